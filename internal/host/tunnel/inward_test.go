package tunnel_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
)

// inward is n1 as a neighbour attacks it: what runs on it, and what is under way in its tunnel.
type inward struct {
	t      *testing.T
	l      *lab
	n1, n2 *node
	y      *neighbour
	seen   *wire // at the neighbour: what n1 answers
	inner  *wire // what comes out of n1's tunnel
	mac    net.HardwareAddr

	a1, a2, b1, b2, ay, by netip.Addr // IPv4 and IPv6 of n1, n2 and the neighbour

	flow, flow6, second, stream, listener, listener6, any *actor
	base                                                  int    // answers inside before an attempt
	shift                                                 uint32 // bytes that were forged into stream
}

// entry is one way in. Its bytes come in when got says so, or when n1 answers the neighbour.
type entry struct {
	name string
	send func(text string)
	got  func(text string, wait time.Duration) int // how much of it came in
	want int                                       // what may come in: the listed services
}

func newInward(t *testing.T) *inward {
	t.Helper()
	l := enclaveUp(t)
	x := &inward{t: t, l: l, n1: l.nodes[0], n2: l.nodes[1], y: newNeighbour(t, l.sw)}
	x.a1, x.b1, x.a2, x.b2 = x.n1.own.Addresses[0], x.n1.own.Addresses[1], x.n2.own.Addresses[0], x.n2.own.Addresses[1]
	x.ay, x.by = netip.MustParseAddr("10.77.0.50"), netip.MustParseAddr("fd77::50")
	x.mac = hardware(t, x.n1.Node)
	x.n1.Run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/icmp_ratelimit; echo 0 >/proc/sys/net/ipv6/icmp/ratelimit")
	x.seen, x.inner = listenWire(t, x.y.Node, "eth0"), listenWire(t, x.n1.Node, device)
	require.NoError(t, unix.SetsockoptInt(x.seen.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	for _, at := range []string{"10.77.0.1:22", "10.77.0.1:6818", "[fd77::1]:22", "[fd77::1]:6818"} {
		serve(t, x.n1.Node, 0, "tcp", at)
	}
	serve(t, x.n1.Node, 0, "tcp", ":7300")
	serve(t, x.n1.Node, 0, "tcp", ":9100")
	serve(t, x.n1.Node, user, "tcp", ":7201")
	x.listener, x.listener6 = serve(t, x.n1.Node, user, "udp", "10.77.0.1:7200"), serve(t, x.n1.Node, user, "udp", "[fd77::1]:7200")
	x.any = serve(t, x.n1.Node, user, "udp", "224.0.0.1:7202") // an IPv4 socket for any address
	serve(t, x.n2.Node, user, "udp", "10.77.0.2:7000")
	serve(t, x.n2.Node, user, "udp", "[fd77::2]:7000")
	serve(t, x.n2.Node, user, "tcp", "10.77.0.2:7000")
	x.flow = act(t, x.n1.Node, user, role{Proto: "udp", Address: "10.77.0.2:7000", Local: "10.77.0.1:7100", Payload: secret})
	x.flow6 = act(t, x.n1.Node, user, role{Proto: "udp", Address: "[fd77::2]:7000", Local: "[fd77::1]:7100", Payload: secret})
	x.stream = act(t, x.n1.Node, user, role{Proto: "tcp", Address: "10.77.0.2:7000", Local: "10.77.0.1:7100", Payload: secret})
	x.second = act(t, x.n1.Node, user, role{Proto: "udp", Address: "10.77.0.2:7000", Local: "10.77.0.1:7101", Payload: secret})
	for _, a := range []*actor{x.flow, x.flow6, x.stream, x.second} {
		a.must("got")
	}
	return x
}

// put sends packets to n1.
func (x *inward) put(packets ...[]byte) { x.t.Helper(); x.y.put(x.mac, packets...) }

// answers counts n1's packets that tell a sender that there is somebody: not its neighbour discovery.
func (x *inward) answers(match func(packettest.Packet) bool) func(string, time.Duration) int {
	return func(_ string, wait time.Duration) int {
		ports := map[string]bool{}
		for until := time.Now().Add(wait); ; {
			for _, p := range x.seen.packets(14) { // takes its time
				if (p.Src == x.a1 || p.Src == x.b1) && match(p) {
					ports[fmt.Sprint(p.Src, p.Proto, p.SPort)] = true
				}
			}
			if len(ports) > 0 || time.Now().After(until) {
				return len(ports)
			}
		}
	}
}

// toSwitch is 1 when n1 answered a SYN to the port, to whoever it was said to come from.
func (x *inward) toSwitch(port uint16) func(string, time.Duration) int {
	return func(_ string, wait time.Duration) int {
		time.Sleep(min(wait, 200*time.Millisecond))
		if x.l.wire.answered(port) || x.answeredInside(port) > x.base {
			return 1
		}
		return 0
	}
}

// answeredInside counts n1's answers that took the tunnel, as all to a peer do.
func (x *inward) answeredInside(port uint16) int {
	n := 0
	for _, p := range x.inner.packets(0) {
		if p.Proto == unix.IPPROTO_TCP && p.Src == x.a1 && p.SPort == port && len(p.Data) > 13 && p.Data[13] == syn|ack {
			n++
		}
	}
	return n
}

func tcpAnswer(p packettest.Packet) bool { return p.Proto == unix.IPPROTO_TCP }
func icmpAnswer(p packettest.Packet) bool {
	return p.Proto == unix.IPPROTO_ICMP && len(p.Data) > 0 && p.Data[0] == 3
}

// said counts a text that a program on n1 got.
func said(a *actor) func(string, time.Duration) int {
	return func(text string, wait time.Duration) int {
		if a.says(text, wait) {
			return 1
		}
		return 0
	}
}

// lastPort of a scan: an emulated processor takes minutes for all.
func lastPort() int {
	if testing.Short() {
		return 9999
	}
	return 65535
}

// scan is a packet to every port.
func scan(one func(port uint16) []byte) [][]byte {
	var out [][]byte
	for port := range lastPort() {
		out = append(out, one(uint16(port+1)))
	}
	return out
}

// TestInward prints what a neighbour on the underlay tries on a node of a running job, one
// attempt a line, and what of it came in; then the same without the fence.
func TestInward(t *testing.T) {
	t.Parallel() // most of it waits
	x := newInward(t)
	entries := x.entries()
	type result struct{ sent, in, dropped, injected, control int }
	results := make([]result, len(entries))
	for i, e := range entries {
		t.Run(e.name, func(t *testing.T) {
			x.seen.clear()
			x.y.sent = 0
			before := x.n1.counters(t)
			e.send(fmt.Sprintf("FORGED-%d-WITH", i))
			results[i].in = e.got(fmt.Sprintf("FORGED-%d-WITH", i), 150*time.Millisecond)
			after := x.n1.counters(t)
			results[i].sent = x.y.sent
			results[i].dropped = int(after.Dropped.Packets - before.Dropped.Packets)
			results[i].injected = int(after.Injected.Packets - before.Injected.Packets)
			assert.Equal(t, e.want, results[i].in)
			assert.Positive(t, results[i].dropped+results[i].injected, "it is counted")
		})
	}
	t.Run("the flows in the tunnel go on", func(*testing.T) {
		for _, a := range []*actor{x.flow, x.flow6, x.second, x.stream} {
			a.say("STILL-THERE")
			a.must("STILL-THERE")
		}
	})
	x.n1.dropFence(t)
	for i, e := range entries {
		t.Run("control: "+e.name, func(t *testing.T) {
			x.seen.clear()
			e.send(fmt.Sprintf("FORGED-%d-WITHOUT", i))
			results[i].control = e.got(fmt.Sprintf("FORGED-%d-WITHOUT", i), seconds())
			assert.Greater(t, results[i].control, e.want)
		})
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "attempt\tsent\tcame in\tmay\tdropped\tinjected\twithout the fence")
	for i, e := range entries {
		r := results[i]
		_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\n", e.name, r.sent, r.in, e.want, r.dropped, r.injected, r.control)
	}
	require.NoError(t, w.Flush())
	t.Logf("from a neighbour on the underlay, driver %s:\n%s", x.l.driver, b.String())
}
