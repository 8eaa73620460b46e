package tunnel_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
)

// close puts up the fence of a node between jobs.
func (n *node) close(t *testing.T) {
	t.Helper()
	closed, err := fence.Closed(1000, []fence.Service{{Name: "slurmd", Proto: "tcp", Port: 6818}},
		fence.Streams{Hosts: []netip.Addr{netip.MustParseAddr("10.77.0.100")}, Ports: fence.PortRange{First: 61001, Last: 61200}})
	require.NoError(t, err)
	n.Must(func() error { return fence.Up(t.Context(), filter.Kernel{}, closed) })
}

// unclose takes it down.
func (n *node) unclose(t *testing.T) {
	t.Helper()
	n.Must(func() error { return filter.Kernel{}.Replace(t.Context(), fence.Table{}, fence.ClosedName) })
}

// TestClosed is a node between jobs.
func TestClosed(t *testing.T) {
	l := build(t)
	n1 := l.nodes[0]
	n1.close(t)
	serve(t, l.x, 0, "udp", "10.77.0.100:7000")
	serve(t, n1.Node, 0, "tcp", "10.77.0.1:6818")
	serve(t, n1.Node, 0, "tcp", ":7001")
	person := func() bool {
		return act(t, n1.Node, user, role{Proto: "udp", Address: "10.77.0.100:7000", Payload: secret}).says("got", 400*time.Millisecond)
	}
	reach := func(address string) bool {
		return act(t, l.x, 0, role{Proto: "tcp", Address: address, Payload: "x"}).says("got", 700*time.Millisecond)
	}
	assert.False(t, person(), "people send nothing")
	assert.Zero(t, l.wire.holds(secret))
	assert.True(t, act(t, n1.Node, user, role{Proto: "tcp", Address: "127.0.0.1:7001", Payload: "x"}).says("got", seconds()), "but to the node itself")
	assert.True(t, act(t, n1.Node, 0, role{Proto: "udp", Address: "10.77.0.100:7000", Payload: "x"}).says("got", seconds()), "daemons are free")
	serve(t, l.x, 0, "tcp", "10.77.0.100:61001")
	stream := role{Proto: "tcp", Address: "10.77.0.100:61001", Payload: "x"}
	assert.True(t, act(t, n1.Node, user, stream).says("got", seconds()), "a refused job's streams are")
	assert.True(t, reach("10.77.0.1:6818"), "a service is reached")
	assert.False(t, reach("10.77.0.1:7001"), "nothing else is")
	t.Run("control: without the fence", func(t *testing.T) {
		n1.unclose(t)
		assert.True(t, person())
		assert.True(t, reach("10.77.0.1:7001"))
	})
}

// TestAStreamOutlivesItsEnclave: slurmstepd's to srun, under the user's id. Who waits for its answer hears at once that none comes.
func TestAStreamOutlivesItsEnclave(t *testing.T) {
	l := build(t)
	n1 := l.nodes[0]
	serve(t, l.x, 0, "tcp", "10.77.0.100:7000")
	stream := func() *actor {
		a := act(t, n1.Node, user, role{Proto: "tcp", Address: "10.77.0.100:7000", Payload: "x"})
		a.must("got")
		return a
	}
	a := stream()
	n1.close(t)
	a.say(secret)
	a.must("connection reset")
	assert.Zero(t, l.wire.holds(secret))
	n1.unclose(t)
	t.Run("control: an ICMP error is taken for one that passes", func(t *testing.T) {
		closed, err := fence.Closed(1000, nil, fence.Streams{})
		require.NoError(t, err)
		for i, c := range closed.Chains {
			closed.Chains[i].Rules = slices.DeleteFunc(c.Rules, func(r fence.Rule) bool { return r.Do == fence.Reset })
		}
		a := stream()
		n1.Must(func() error { return fence.Up(t.Context(), filter.Kernel{}, closed) })
		a.say(secret)
		assert.False(t, a.says("error", 3*time.Second))
		n1.unclose(t)
	})
}

// TestErrorsAboutADaemonsSilentFlow: between jobs a neighbour ends no flow that conntrack has forgotten.
func TestErrorsAboutADaemonsSilentFlow(t *testing.T) {
	l := build(t)
	n1 := l.nodes[0]
	n1.close(t)
	x := &inward{t: t, l: l, n1: n1, y: newNeighbour(t, l.sw), mac: hardware(t, n1.Node)}
	x.a1, x.a2 = n1.own.Addresses[0], netip.MustParseAddr("10.77.0.100")
	server := serve(t, l.x, 0, "udp", "10.77.0.100:7000")
	n1.Run("sh", "-c", "for f in udp_timeout udp_timeout_stream; do echo 1 >/proc/sys/net/netfilter/nf_conntrack_$f; done")
	flow := act(t, n1.Node, 0, role{Proto: "udp", Address: "10.77.0.100:7000", Local: "10.77.0.1:7110", Payload: secret})
	flow.must("got")
	server.must("heard")
	require.Eventually(t, func() bool {
		return !strings.Contains(n1.Run("cat", "/proc/net/nf_conntrack"), "sport=7110")
	}, 20*time.Second, 100*time.Millisecond)
	about := packettest.IP(x.a1, x.a2, unix.IPPROTO_UDP, packettest.UDP(7110, 7000, "12345678"))
	forged := packettest.IP(x.a2, x.a1, unix.IPPROTO_ICMP, icmp(3, 3, 0, about))
	x.put(forged)
	assert.False(t, flow.says("error", 300*time.Millisecond))
	flow.say("STILL-THERE")
	flow.must("STILL-THERE")
	t.Run("control: without the fence", func(t *testing.T) {
		n1.unclose(t)
		x.put(forged)
		assert.True(t, flow.says("error", seconds()))
	})
}
