package tunnel_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// forgedError is an ICMP error that a neighbour forges about a flow of the tunnel, and what it does
// when it is believed.
type forgedError struct {
	name   string
	packet []byte
	flow   *actor
	route  []string // of `ip route get`, which then says mtu; nil: the flow ends with an error
	mtu    string
}

// errors are about flows that conntrack has forgotten, each about its own.
func (x *inward) errors() []forgedError {
	x.n1.Run("sh", "-c", "for f in udp_timeout udp_timeout_stream; do echo 1 >/proc/sys/net/netfilter/nf_conntrack_$f; done")
	road, road6 := []string{x.a2.String(), "uid", "2001"}, []string{x.b2.String(), "uid", "2001"}
	list := []forgedError{
		x.forge4("the peer has no such port", 7110, 3, 3, 0, plainly),
		x.forge4("the same, the ports behind options", 7111, 3, 3, 0, behindOptions),
		x.forge4("the packet is too big", 7112, 3, 4, 600, plainly, road...),
		x.forge4("the packet has a bad head", 7113, 12, 0, 0, plainly),
		x.forge6("IPv6: the peer has no such port", 7114, 1, 4, 0, plainly),
		x.forge6("IPv6: the same, the ports behind an extension", 7115, 1, 4, 0, behindExtension),
		x.forge6("IPv6: the packet is too big", 7116, 2, 0, 1290, plainly, road6...),
	}
	require.Eventually(x.t, func() bool {
		return !strings.Contains(x.n1.Run("cat", "/proc/net/nf_conntrack"), "sport=711")
	}, 20*time.Second, 100*time.Millisecond)
	return list
}

// What a quoted packet looks like. The latter two have WireGuard's port, 51820, where ports stand in
// a packet without options or extensions.
func plainly(p []byte) []byte { return p }

func behindOptions(p []byte) []byte {
	p = append(append(bytes.Clone(p[:20]), 0xca, 0x6c, 0, 0), p[20:]...)
	p[0] = 0x46
	return p
}

func behindExtension(p []byte) []byte {
	p = append(append(bytes.Clone(p[:40]), unix.IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0), p[40:]...)
	p[6] = unix.IPPROTO_DSTOPTS
	return p
}

func (x *inward) forge4(name string, port uint16, kind, code byte, mtu uint32, look func([]byte) []byte, route ...string) forgedError {
	about := look(packettest.IP(x.a1, x.a2, unix.IPPROTO_UDP, packettest.UDP(port, 7000, "12345678")))
	return x.forged(name, forgedError{
		packet: packettest.IP(x.a2, x.a1, unix.IPPROTO_ICMP, icmp(kind, code, mtu, about)),
		route:  route, mtu: fmt.Sprintf("mtu %d", mtu),
	}, role{Proto: "udp", Address: "10.77.0.2:7000", Local: fmt.Sprintf("10.77.0.1:%d", port), Payload: secret})
}

func (x *inward) forge6(name string, port uint16, kind, code byte, mtu uint32, look func([]byte) []byte, route ...string) forgedError {
	about := look(packettest.IP(x.b1, x.b2, unix.IPPROTO_UDP, packettest.UDP(port, 7000, "12345678")))
	return x.forged(name, forgedError{
		packet: packettest.IP(x.b2, x.b1, unix.IPPROTO_ICMPV6, append(icmp(kind, code, mtu, nil), about...)),
		route:  route, mtu: fmt.Sprintf("mtu %d", mtu),
	}, role{Proto: "udp", Address: "[fd77::2]:7000", Local: fmt.Sprintf("[fd77::1]:%d", port), Payload: secret})
}

func (x *inward) forged(name string, e forgedError, r role) forgedError {
	e.name, e.flow = name, act(x.t, x.n1.Node, user, r)
	e.flow.must("got")
	return e
}

// believed says whether the error had its effect.
func (x *inward) believed(e forgedError, wait time.Duration) bool {
	if e.route == nil {
		return e.flow.says("error", wait)
	}
	time.Sleep(min(wait, 300*time.Millisecond))
	return strings.Contains(x.n1.Run(append([]string{"ip", "route", "get"}, e.route...)...), e.mtu)
}

// TestErrorsOfSilentFlows: an error about a flow that conntrack has forgotten is not "related", and has no
// mark that would tell that it is about the tunnel.
func TestErrorsOfSilentFlows(t *testing.T) {
	t.Parallel() // most of it waits
	x := newInward(t)
	list := x.errors()
	for _, e := range list {
		t.Run(e.name, func(t *testing.T) {
			before := x.n1.counters(t)
			x.put(e.packet)
			assert.False(t, x.believed(e, 300*time.Millisecond))
			assert.Equal(t, before.Dropped.Packets+1, x.n1.counters(t).Dropped.Packets, "it is counted")
		})
	}
	t.Run("the flows go on", func(*testing.T) {
		for _, e := range list {
			e.flow.say("STILL-THERE")
			e.flow.must("STILL-THERE")
		}
	})
	t.Run("the path's MTU for WireGuard is learned, and the tunnel's stays", func(t *testing.T) {
		x.learns(t, 1300, packettest.IP(x.a1, x.a2, unix.IPPROTO_UDP, packettest.UDP(51820, 51820, "12345678")), "mark", fmt.Sprintf("%#x", mesh.FwMark(job)))
		assert.NotContains(t, x.n1.Run("ip", "route", "get", x.a2.String(), "uid", "2001"), "mtu 1300")
	})
	x.n1.dropFence(t)
	for _, e := range list {
		t.Run("control: without the fence, "+e.name, func(t *testing.T) {
			x.put(e.packet)
			assert.True(t, x.believed(e, seconds()))
		})
	}
}

// learns has the neighbour say that a packet of n1's to n2 was too big.
func (x *inward) learns(t *testing.T, mtu uint32, about []byte, route ...string) {
	t.Helper()
	x.put(packettest.IP(netip.MustParseAddr("10.77.0.100"), x.a1, unix.IPPROTO_ICMP, icmp(3, 4, mtu, about)))
	require.Eventually(t, func() bool {
		out := x.n1.Run(append([]string{"ip", "route", "get", x.a2.String()}, route...)...)
		return strings.Contains(out, fmt.Sprintf("mtu %d", mtu))
	}, seconds(), 50*time.Millisecond)
}
