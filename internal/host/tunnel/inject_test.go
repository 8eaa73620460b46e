package tunnel_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
)

const forged = "FORGED-BY-THE-UNDERLAY"

// TestInjection: x, on the same network, sends plaintext in the name of a peer.
func TestInjection(t *testing.T) {
	l := enclaveUp(t)
	n1, n2 := l.nodes[0], l.nodes[1]
	a1, a2 := n1.own.Addresses[0], n2.own.Addresses[0]
	inner := listenWire(t, n1.Node, device)

	serve(t, n2.Node, user, "udp", "10.77.0.2:7000")
	udpClient := act(t, n1.Node, user, role{Proto: "udp", Address: "10.77.0.2:7000", Local: "10.77.0.1:7100", Payload: secret})
	udpClient.must("got")
	serve(t, n2.Node, user, "tcp", "10.77.0.2:7000")
	tcpClient := act(t, n1.Node, user, role{Proto: "tcp", Address: "10.77.0.2:7000", Local: "10.77.0.1:7100", Payload: secret})
	tcpClient.must("got")
	listener := serve(t, n1.Node, user, "udp", "10.77.0.1:7200")
	slurm := serve(t, n1.Node, user, "tcp", "10.77.0.1:7201")

	injectUDP := func() error { return forge(l.x, a2, a1, unix.IPPROTO_UDP, packettest.UDP(7000, 7100, forged)) }
	// The attacker on the path is generous to itself: it knows the sequence numbers, which the
	// tunnel hides.
	injectTCP := func() error {
		seq, ack := next(t, inner, a2, a1, 7000, 7100)
		return forge(l.x, a2, a1, unix.IPPROTO_TCP, packettest.TCP(7000, 7100, seq, ack, 0x18, forged))
	}
	injectNew := func() error { return forge(l.x, a2, a1, unix.IPPROTO_UDP, packettest.UDP(7000, 7200, forged)) }
	// A bare SYN from slurmctld's own address and port: the stateless rule must not take it.
	injectSyn := func() error {
		return forge(l.x, netip.MustParseAddr("10.77.0.100"), a1, unix.IPPROTO_TCP, packettest.TCP(6817, 7201, 1, 0, 0x02, ""))
	}

	t.Run("a UDP packet into a flow of the tunnel is dropped and counted", func(t *testing.T) {
		before := n1.counters(t).Injected
		require.NoError(t, injectUDP())
		assert.False(t, udpClient.says(forged, 300*time.Millisecond))
		assert.Equal(t, before.Packets+1, n1.counters(t).Injected.Packets)
	})
	t.Run("a TCP segment into a flow of the tunnel is dropped and counted", func(t *testing.T) {
		before := n1.counters(t).Injected
		require.NoError(t, injectTCP())
		assert.False(t, tcpClient.says(forged, 300*time.Millisecond))
		assert.Equal(t, before.Packets+1, n1.counters(t).Injected.Packets)
	})
	t.Run("a reset into a flow of the tunnel is dropped", func(t *testing.T) {
		seq, ack := next(t, inner, a2, a1, 7000, 7100)
		require.NoError(t, forge(l.x, a2, a1, unix.IPPROTO_TCP, packettest.TCP(7000, 7100, seq, ack, 0x14, "")))
		assert.False(t, tcpClient.says("error", 300*time.Millisecond))
	})
	t.Run("a new flow in a peer's name is dropped and counted", func(t *testing.T) {
		before := n1.counters(t).Dropped
		require.NoError(t, injectNew())
		assert.False(t, listener.says(forged, 300*time.Millisecond))
		assert.Equal(t, before.Packets+1, n1.counters(t).Dropped.Packets)
	})
	t.Run("a connection opened from slurmctld's port is dropped and counted", func(t *testing.T) {
		before := n1.counters(t).Dropped
		l.wire.clear()
		require.NoError(t, injectSyn())
		assert.False(t, l.wire.answered(7201))
		assert.Equal(t, before.Packets+1, n1.counters(t).Dropped.Packets)
	})
	t.Run("the node is no way into the tunnel", func(t *testing.T) {
		n1.Run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
		defer n1.Run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
		n1.Run("ip", "route", "add", "10.88.0.1/32", "dev", device)
		defer n1.Run("ip", "route", "del", "10.88.0.1/32", "dev", device)
		l.x.Run("ip", "route", "add", "10.88.0.1/32", "via", "10.77.0.1")
		require.NoError(t, forge(l.x, netip.MustParseAddr("10.77.0.100"), netip.MustParseAddr("10.88.0.1"), unix.IPPROTO_UDP, packettest.UDP(1, 1, forged)))
		require.Eventually(t, func() bool { return n1.counters(t).Forwarded.Packets > 0 }, seconds(), 20*time.Millisecond)
		assert.Zero(t, inner.holds(forged))
	})
	t.Run("control: without the fence", func(t *testing.T) {
		n1.dropFence(t)
		t.Run("the UDP packet arrives", func(t *testing.T) {
			require.NoError(t, injectUDP())
			assert.True(t, udpClient.says(forged, seconds()))
		})
		t.Run("the TCP segment arrives", func(t *testing.T) {
			require.NoError(t, injectTCP())
			assert.True(t, tcpClient.says(forged, seconds()))
		})
		t.Run("the new flow arrives", func(t *testing.T) {
			require.NoError(t, injectNew())
			assert.True(t, listener.says(forged, seconds()))
		})
		t.Run("the connection is answered", func(t *testing.T) {
			l.wire.clear()
			require.NoError(t, injectSyn())
			assert.True(t, l.wire.answered(7201))
		})
	})
	_ = slurm
}

// TestRootAnswersInTheTunnel is the control for TestEnclave's servers of root's.
func TestRootAnswersInTheTunnel(t *testing.T) {
	l := enclaveUp(t)
	n1, n2 := l.nodes[0], l.nodes[1]
	serve(t, n2.Node, 0, "udp", "10.77.0.2:7000")
	l.wire.clear()
	act(t, n1.Node, user, role{Proto: "udp", Address: "10.77.0.2:7000", Payload: secret}).must("got")
	assert.Zero(t, l.wire.holds(secret))
	t.Run("so does the kernel to a closed port", func(t *testing.T) {
		l.wire.clear()
		act(t, n1.Node, user, role{Proto: "tcp", Address: "10.77.0.2:7999", Payload: secret}).must("connection refused")
		l.wire.onlyWireGuard(t)
	})
	t.Run("control: without the fence the answer leaves in clear, and the other node's fence drops it", func(t *testing.T) {
		n2.dropFence(t)
		before := n1.counters(t).Injected
		assert.False(t, act(t, n1.Node, user, role{Proto: "udp", Address: "10.77.0.2:7000", Payload: secret}).says("got", 500*time.Millisecond))
		assert.Positive(t, l.wire.holds(secret))
		assert.Greater(t, n1.counters(t).Injected.Packets, before.Packets)
	})
}

// next is the sequence number that comes next in a TCP flow, as seen inside the tunnel.
func next(t *testing.T, w *wire, src, dst netip.Addr, sport, dport uint16) (seq, ack uint32) {
	t.Helper()
	seq, ack, found := packettest.Next(w.packets(0), netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport))
	require.True(t, found, "no segment of %s:%d > %s:%d", src, sport, dst, dport)
	return seq, ack
}

// answered says whether a SYN-ACK from that port was seen.
func (w *wire) answered(port uint16) bool {
	for _, p := range w.packets(14) {
		if p.Proto == unix.IPPROTO_TCP && p.SPort == port && len(p.Data) > 13 && p.Data[13] == 0x12 {
			return true
		}
	}
	return false
}
