//go:build vm || e2e

package vmtest_test

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/vmtest"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

const (
	secret = "SECRET-OF-THE-TENANT"
	forged = "FORGED-ON-THE-WIRE"
	soon   = 15 * time.Second // for what happens, on a machine without a fast processor
	never  = time.Second      // for what does not
)

// TestP2KernelWireGuardBetweenMachines is the way between two kernels, with the wire in between
// in the test's hands.
func TestP2KernelWireGuardBetweenMachines(t *testing.T) {
	f := enclaveUp(t)
	n1, n2 := f.nodes[0], f.nodes[1]
	t.Run("there is a session with each peer", func(t *testing.T) {
		assert.Equal(t, fmt.Sprintf("peers %d shaken %d received true sent true", size-1, size-1), n1.do(t, "tunnel", nil))
	})
	flows(t, &f.wire, n1, n2)
	t.Run("a megabyte passes", func(t *testing.T) {
		server := n2.serve(t, user, "tcp", "10.78.0.2:7050")
		n1.dial(t, end{Proto: "tcp", Address: "10.78.0.2:7050", Payload: "x", Times: 1 << 20})
		server.Must(t, "total 1048576")
	})
	t.Run("WireGuard's packets carry the mark and the uid of the socket inside", func(t *testing.T) {
		n1.Run(t, "nft", "add table inet look; add counter inet look outer; add chain inet look out { type filter hook output priority 5; }")
		n1.Run(t, "nft", fmt.Sprintf("add rule inet look out oifname eth0 udp sport 51820 meta mark %#x meta skuid %d counter name outer", mesh.FwMark(job), user))
		n2.serve(t, user, "udp", "10.78.0.2:7051")
		require.True(t, n1.talk(t, "udp", "10.78.0.2:7051", soon))
		assert.NotContains(t, n1.Run(t, "nft", "list", "counter", "inet", "look", "outer"), "packets 0 ")
		t.Run("control: a rule that knows the uid and not the mark cuts the tunnel", func(t *testing.T) {
			n1.Run(t, "nft", fmt.Sprintf("insert rule inet look out oifname eth0 meta skuid %d drop", user))
			assert.False(t, n1.talk(t, "udp", "10.78.0.2:7051", 2*time.Second))
		})
		n1.Run(t, "nft", "delete table inet look")
	})
	t.Run("control: without mesh and fence the same is seen in clear", func(t *testing.T) {
		n1.down(t)
		n2.down(t)
		n2.serve(t, user, "tcp", "10.78.0.2:7052")
		f.wire.Clear()
		require.True(t, n1.talk(t, "tcp", "10.78.0.2:7052", soon))
		assert.Positive(t, f.wire.Holds(secret))
	})
}

// flows are what the job's user sends from n1 to n2, and that nothing else than WireGuard's packets is
// seen of it.
func flows(t *testing.T, wire *vmtest.Hub, n1, n2 *node) {
	t.Helper()
	port := 7000
	for family, host := range map[string]string{"IPv4": "10.78.0.2", "IPv6": "[fd78::2]"} {
		for _, proto := range []string{"tcp", "udp"} {
			for owner, uid := range map[string]uint32{"the user's": user, "root's": 0} {
				port++
				address := fmt.Sprintf("%s:%d", host, port)
				t.Run(fmt.Sprintf("the user talks to %s server in the tunnel: %s %s", owner, proto, family), func(t *testing.T) {
					server := n2.serve(t, uid, proto, address)
					wire.Clear()
					require.True(t, n1.talk(t, proto, address, soon))
					server.Must(t, "heard")
					assert.Zero(t, wire.Holds(secret))
					onlyWireGuard(t, wire, n1, n2)
				})
			}
		}
	}
	t.Run("to a host that is not of the job the user sends nothing", func(t *testing.T) {
		wire.Clear()
		before := n1.counters(t).Rejected
		assert.False(t, n1.talk(t, "udp", "10.78.0.100:7000", never))
		assert.Greater(t, n1.counters(t).Rejected.Packets, before.Packets)
		assert.Zero(t, wire.Holds(secret))
	})
}

// TestP2NothingIsInjectedBetweenMachines: a neighbour on the wire sends in the name of a peer.
func TestP2NothingIsInjectedBetweenMachines(t *testing.T) {
	f := enclaveUp(t)
	n1 := f.nodes[0]
	all := injections(t, &f.wire, n1, f.nodes[1])
	t.Run("control: without the fence all of it arrives", func(t *testing.T) {
		n1.do(t, "fence-down", nil)
		all(t)
	})
}

// injections tries to get packets into n1 in the name of n2. What it returns tries again, and wants
// all of them to arrive.
func injections(t *testing.T, wire *vmtest.Hub, n1, n2 *node) (arrive func(*testing.T)) {
	t.Helper()
	a1, a2 := n1.orders.Own.Addresses[0], n2.orders.Own.Addresses[0]
	inner := n1.act(t, "sniff", 0, nil)
	inner.Must(t, "sniffing")
	var clients []*vmtest.Process
	for _, proto := range []string{"udp", "tcp"} {
		n2.serve(t, user, proto, "10.78.0.2:7000")
		c := n1.dial(t, end{Proto: proto, Address: "10.78.0.2:7000", Local: "10.78.0.1:7100", Payload: secret})
		c.Must(t, "got")
		clients = append(clients, c)
	}
	listener := n1.serve(t, user, "udp", "10.78.0.1:7200")
	injectUDP := func() { wire.Send(forge(1, a2, a1, unix.IPPROTO_UDP, packettest.UDP(7000, 7100, forged))) }
	injectTCP := func(t *testing.T, flags byte, data string) {
		seq, ack := next(t, inner, a2, a1, 7000, 7100)
		wire.Send(forge(1, a2, a1, unix.IPPROTO_TCP, packettest.TCP(7000, 7100, seq, ack, flags, data)))
	}
	injectNew := func() { wire.Send(forge(1, a2, a1, unix.IPPROTO_UDP, packettest.UDP(7000, 7200, forged))) }

	t.Run("a UDP packet into a flow of the tunnel is dropped and counted", func(t *testing.T) {
		before := n1.counters(t).Injected
		injectUDP()
		assert.False(t, clients[0].Says(forged, never))
		assert.Equal(t, before.Packets+1, n1.counters(t).Injected.Packets)
	})
	t.Run("a TCP segment into a flow of the tunnel is dropped and counted", func(t *testing.T) {
		before := n1.counters(t).Injected
		injectTCP(t, 0x18, forged)
		assert.False(t, clients[1].Says(forged, never))
		assert.Equal(t, before.Packets+1, n1.counters(t).Injected.Packets)
	})
	t.Run("a reset into a flow of the tunnel is dropped", func(t *testing.T) {
		injectTCP(t, 0x14, "")
		assert.False(t, clients[1].Says("error", never))
	})
	t.Run("a new flow in a peer's name is dropped and counted", func(t *testing.T) {
		before := n1.counters(t).Dropped
		injectNew()
		assert.False(t, listener.Says(forged, never))
		assert.Equal(t, before.Packets+1, n1.counters(t).Dropped.Packets)
	})
	return func(t *testing.T) {
		injectUDP()
		assert.True(t, clients[0].Says(forged, soon))
		injectTCP(t, 0x18, forged)
		assert.True(t, clients[1].Says(forged, soon))
		injectNew()
		assert.True(t, listener.Says(forged, soon))
	}
}

// TestP4KernelWireGuardLeavesNothing reads links, addresses, rules, routes, tables, processes and
// cgroups back.
func TestP4KernelWireGuardLeavesNothing(t *testing.T) {
	f := boot(t)
	n1, n2 := f.nodes[0], f.nodes[1]
	for _, n := range f.nodes {
		n.up(t)
	}
	f.prove(t)
	n2.serve(t, user, "udp", "10.78.0.2:7000")
	require.True(t, n1.talk(t, "udp", "10.78.0.2:7000", soon))
	t.Run("the keeper's death leaves the tunnel, and nothing goes beside it", func(t *testing.T) {
		n1.Run(t, "killall", "-KILL", "enclave-keeper")
		f.wire.Clear()
		assert.True(t, n1.talk(t, "udp", "10.78.0.2:7000", soon))
		assert.Zero(t, f.wire.Holds(secret))
	})
	t.Run("after down the nodes are as before", func(t *testing.T) {
		for _, n := range f.nodes {
			assert.Contains(t, n.state(t), device, "the state is one that shows")
			n.down(t)
			assert.Equal(t, n.before, n.state(t), n.Name)
		}
	})
	t.Run("at the end of its time the keeper unlinks GO and takes the tunnel away", func(t *testing.T) {
		o := n1.orders
		o.Lifetime = 8
		require.Contains(t, n1.do(t, "up", o), "driver wireguard")
		n1.do(t, "go", nil)
		n1.Run(t, "test", "-e", "/run/slurm-enclave/gate/4711.go")
		n1.Run(t, "ip", "link", "show", device)
		require.Eventually(t, func() bool { _, there := n1.Try("ip", "link", "show", device); return !there }, time.Minute, 500*time.Millisecond)
		n1.Run(t, "test", "!", "-e", "/run/slurm-enclave/gate/4711.go")
		f.wire.Clear()
		assert.False(t, n1.talk(t, "udp", "10.78.0.2:7000", never))
		assert.Zero(t, f.wire.Holds(secret))
		n1.down(t)
		assert.Equal(t, n1.before, n1.state(t))
	})
}

// next is the sequence number that comes next in a TCP flow, as seen inside the tunnel.
func next(t *testing.T, sniffer *vmtest.Process, src, dst netip.Addr, sport, dport uint16) (seq, ack uint32) {
	t.Helper()
	time.Sleep(300 * time.Millisecond) // an acknowledgement may be under way
	var seen []packettest.Packet
	for line := range strings.Lines(sniffer.Output()) {
		text, _ := strings.CutPrefix(strings.TrimSpace(line), "packet ")
		b, err := hex.DecodeString(text)
		if p, ok := packettest.Parse(b); ok && err == nil {
			seen = append(seen, p)
		}
	}
	seq, ack, found := packettest.Next(seen, netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport))
	require.True(t, found, "no segment of %s:%d > %s:%d", src, sport, dst, dport)
	return seq, ack
}
