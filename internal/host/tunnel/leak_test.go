package tunnel_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// attempt is a way in which a job's user may try to get data out beside the tunnel. x is a
// host that is not of the job, or another job's node: the fence makes no difference.
type attempt struct {
	name string
	uid  uint32
	role role
}

func attempts(t *testing.T) []attempt {
	t.Helper()
	toX := func(proto string) role { return role{Proto: proto, Address: "10.77.0.100:7000"} }
	all := []attempt{
		{"TCP to another host", user, toX("tcp")},
		{"UDP to another host", user, toX("udp")},
		{"UDP to another host on IPv6", user, role{Proto: "udp", Address: "[fd77::100]:7000"}},
		{"TCP to another host on IPv6", user, role{Proto: "tcp", Address: "[fd77::100]:7000"}},
		{"multipath TCP to another host", user, toX("mptcp")},
		{"a ping that holds data", user, toX("ping")},
		{"SCTP to another host", user, toX("sctp")},
		{"UDP from a sub-uid", subUser, toX("udp")},
		{"UDP from another person", 3000, toX("udp")},
		{"UDP to a peer, bound to the underlay", user, role{Proto: "udp", Address: "10.77.0.2:7000", Device: "eth0"}},
		{"TCP to a peer, bound to the underlay", user, role{Proto: "tcp", Address: "10.77.0.2:7000", Device: "eth0"}},
		{"UDP to a peer on IPv6, bound to the underlay", user, role{Proto: "udp", Address: "[fd77::2]:7000", Device: "eth0"}},
		{"UDP to slurmctld's port", user, role{Proto: "udp", Address: "10.77.0.100:6817"}},
		{"TCP to a port of the controller's beside Slurm's", user, role{Proto: "tcp", Address: "10.77.0.100:6819"}},
		{"TCP to srun's ports on a host that is not the submit host", user, role{Proto: "tcp", Address: "10.77.0.100:61005"}},
		{"TCP to the verifier", user, role{Proto: "tcp", Address: "10.77.0.100:6830"}},
		{"UDP to WireGuard's port from another", user, role{Proto: "udp", Address: "10.77.0.100:51820"}},
		{"multicast", user, role{Proto: "udp", Address: "224.0.0.251:7000", Device: "eth0"}},
	}
	// A protocol that the kernel does not speak is no leak.
	return slices.DeleteFunc(all, func(a attempt) bool { return !available(a) })
}

func TestLeaks(t *testing.T) {
	l := enclaveUp(t)
	n1 := l.nodes[0]
	n1.Run("sh", "-c", "echo 0 4294967294 > /proc/sys/net/ipv4/ping_group_range")
	for _, at := range []string{"7000", "6817", "6819", "61005", "6830"} {
		serve(t, l.x, 0, "tcp", "10.77.0.100:"+at)
	}
	serve(t, l.x, 0, "tcp", "[fd77::100]:7000")
	serve(t, l.nodes[1].Node, user, "tcp", ":7000")
	run := func(t *testing.T, a attempt, payload string) (seen int) {
		t.Helper()
		l.wire.clear()
		a.role.Payload = payload
		client := act(t, n1.Node, a.uid, a.role)
		defer client.stop()
		client.says("got", 400*time.Millisecond)
		return l.wire.outside(n1.own.Addresses) + l.wire.holds(payload)
	}
	for i, a := range attempts(t) {
		t.Run(a.name+" is rejected and counted", func(t *testing.T) {
			before := n1.counters(t).Rejected
			assert.Zero(t, run(t, a, fmt.Sprintf("%s-%d", secret, i)), "seen on the wire")
			after := n1.counters(t)
			assert.Greater(t, after.Rejected.Packets, before.Packets)
			assert.Zero(t, after.Unlisted())
		})
	}
	t.Run("control", func(t *testing.T) {
		for _, n := range l.nodes {
			n.dropFence(t)
		}
		for i, a := range attempts(t) {
			t.Run(a.name+" is seen without the fence", func(t *testing.T) {
				assert.Positive(t, run(t, a, fmt.Sprintf("CONTROL-%s-%d", secret, i)))
			})
		}
	})
}

// available says whether the kernel speaks a protocol at all.
func available(a attempt) bool {
	if a.role.Proto != "sctp" {
		return true
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err == nil
}

// TestTheTunnelGoes takes the tunnel away in the middle of a job.
func TestTheTunnelGoes(t *testing.T) {
	for _, protected := range []bool{true, false} {
		name := "the fence lets nothing out in clear"
		if !protected {
			name = "control: without the fence all of it leaves in clear"
		}
		t.Run(name, func(t *testing.T) {
			l := enclaveUp(t)
			n1, n2 := l.nodes[0], l.nodes[1]
			// Two flows that are open when the tunnel goes: one of the user's, and one whose
			// near end is root's, which no rule for users catches.
			serve(t, n2.Node, user, "udp", "10.77.0.2:7000")
			serve(t, n1.Node, 0, "tcp", "10.77.0.1:7001")
			serve(t, n2.Node, user, "tcp", ":7002")
			act(t, n2.Node, user, role{Proto: "tcp", Address: "10.77.0.1:7001", Payload: secret}).must("got")
			act(t, n1.Node, user, role{Proto: "tcp", Address: "10.77.0.2:7002", Payload: secret}).must("got")
			n1.cut(t)
			if !protected {
				for _, n := range l.nodes {
					n.dropFence(t)
				}
			}
			l.wire.clear()
			act(t, n1.Node, user, role{Proto: "udp", Address: "10.77.0.2:7000", Payload: secret}).says("got", time.Second)
			act(t, n1.Node, user, role{Proto: "tcp", Address: "10.77.0.2:7002", Payload: secret}).says("got", time.Second)
			seen := l.wire.holds(secret)
			if !protected {
				assert.Positive(t, seen)
				return
			}
			assert.Zero(t, seen)
			c := n1.counters(t)
			assert.Positive(t, c.Rejected.Packets)
			assert.Zero(t, c.Unlisted())
		})
	}
	t.Run("an answer of root's to a flow of the tunnel is dropped", func(t *testing.T) {
		l := enclaveUp(t)
		n1, n2 := l.nodes[0], l.nodes[1]
		server := serve(t, n1.Node, 0, "tcp", "10.77.0.1:7001")
		client := act(t, n2.Node, user, role{Proto: "tcp", Address: "10.77.0.1:7001", Payload: "open"})
		client.must("got")
		// What root's server has not yet been told of is sent again and again.
		n2.Run("nft", "add", "table", "inet", "hold")
		n2.Run("nft", "add chain inet hold in { type filter hook input priority -1; }")
		n2.Run("nft", "add rule inet hold in tcp sport 7001 drop")
		l.wire.clear()
		client.say("again " + secret)
		server.must("again")
		time.Sleep(100 * time.Millisecond) // its answer
		n1.cut(t)
		require.Eventually(t, func() bool { return n1.counters(t).Escaped.Packets > 0 }, 10*time.Second, 50*time.Millisecond)
		assert.Zero(t, l.wire.holds(secret))
		t.Run("control: it leaves without the fence", func(t *testing.T) {
			n1.dropFence(t)
			require.Eventually(t, func() bool { return l.wire.holds(secret) > 0 }, 20*time.Second, 100*time.Millisecond)
		})
	})
	t.Run("the job's mesh is taken down all the same", func(t *testing.T) {
		l := enclaveUp(t)
		n1 := l.nodes[0]
		n1.cut(t)
		n1.down(t)
		assert.Equal(t, n1.before, n1.state())
	})
}
