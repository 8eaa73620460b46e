package tunnel_test

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
)

// entries are the attempts, those that close a flow last.
func (x *inward) entries() []entry {
	return append(append(x.scans(), x.flows()...), x.control()...)
}

const syn, ack, push, fin, rst = 0x02, 0x10, 0x08, 0x01, 0x04

// scans knock at every port.
func (x *inward) scans() []entry {
	knock := func(src, dst netip.Addr, flags byte) func(string) {
		return func(string) {
			x.put(scan(func(p uint16) []byte {
				return packettest.IP(src, dst, unix.IPPROTO_TCP, packettest.TCP(40000, p, 1, 1, flags, ""))
			})...)
		}
	}
	one := func(src netip.Addr, sport, dport uint16, flags byte) func(string) {
		return func(string) {
			x.l.wire.clear()
			x.base = x.answeredInside(dport)
			x.put(packettest.IP(src, x.a1, unix.IPPROTO_TCP, packettest.TCP(sport, dport, 1, 1, flags, "")))
		}
	}
	controller := netip.MustParseAddr("10.77.0.100")
	return []entry{
		{name: fmt.Sprintf("a SYN to every port up to %d, IPv4; ssh, slurmd and an exporter are listed", lastPort()), send: knock(x.ay, x.a1, syn), got: x.answers(tcpAnswer), want: 3},
		{name: fmt.Sprintf("a SYN to every port up to %d, IPv6", lastPort()), send: knock(x.by, x.b1, syn), got: x.answers(tcpAnswer), want: 3},
		{name: fmt.Sprintf("a datagram to every port up to %d", lastPort()), send: func(text string) {
			x.put(scan(func(p uint16) []byte {
				return packettest.IP(x.ay, x.a1, unix.IPPROTO_UDP, packettest.UDP(40000, p, text))
			})...)
		}, got: said(x.listener)},
		{name: "an ACK out of nowhere", send: one(x.ay, 40001, 7201, ack), got: x.answers(tcpAnswer)},
		{name: "a FIN out of nowhere", send: one(x.ay, 40002, 7999, fin|ack), got: x.answers(tcpAnswer)},
		{name: "a SYN to a root's server", send: one(x.ay, 40003, 7300, syn), got: x.answers(tcpAnswer)},
		{name: "a SYN from slurmctld's address and port", send: one(controller, 6817, 7201, syn), got: x.toSwitch(7201)},
		{name: "a SYN in a peer's name", send: one(x.a2, 40004, 7201, syn), got: x.toSwitch(7201)},
		{name: "a SYN from slurmd's port of a peer", send: one(x.a2, 6818, 7201, syn), got: x.toSwitch(7201)},
	}
}

// flows inject into what is under way in the tunnel. The attacker is generous to itself: it knows
// addresses, ports and sequence numbers.
func (x *inward) flows() []entry {
	datagram := func(text string) []byte {
		return packettest.IP(x.a2, x.a1, unix.IPPROTO_UDP, packettest.UDP(7000, 7100, text))
	}
	segment := func(flags byte, data string) []byte {
		seq, acked := next(x.t, x.inner, x.a2, x.a1, 7000, 7100)
		return packettest.IP(x.a2, x.a1, unix.IPPROTO_TCP, packettest.TCP(7000, 7100, seq, acked, flags, data))
	}
	into := func(text string, wait time.Duration) int {
		n := said(x.stream)(text, wait)
		x.shift += uint32(n * len(text)) // what comes next has another number
		return n
	}
	return []entry{
		{name: "UDP into a flow, as the peer", send: func(s string) { x.put(datagram(s)) }, got: said(x.flow)},
		{name: "the same in two fragments", send: func(s string) { x.put(fragments(datagram(s), 8)...) }, got: said(x.flow)},
		{name: "the same, the last fragment first", send: func(s string) { f := fragments(datagram(s), 16); x.put(f[1], f[0]) }, got: said(x.flow)},
		{name: "UDP into a flow, as the peer, IPv6", send: func(s string) {
			x.put(packettest.IP(x.b2, x.b1, unix.IPPROTO_UDP, packettest.UDP(7000, 7100, s)))
		}, got: said(x.flow6)},
		{name: "UDP to the user's server, as the peer", send: func(s string) {
			x.put(packettest.IP(x.a2, x.a1, unix.IPPROTO_UDP, packettest.UDP(7555, 7200, s)))
		}, got: said(x.listener)},
		{name: "UDP to the user's server, as the peer, IPv6", send: func(s string) {
			x.put(packettest.IP(x.b2, x.b1, unix.IPPROTO_UDP, packettest.UDP(7555, 7200, s)))
		}, got: said(x.listener6)},
		{name: "UDP to all, 224.0.0.1", send: func(s string) {
			x.y.put([]byte{1, 0, 0x5e, 0, 0, 1}, packettest.IP(x.ay, netip.MustParseAddr("224.0.0.1"), unix.IPPROTO_UDP, packettest.UDP(7555, 7202, s)))
		}, got: said(x.any)},
		{name: "UDP to the subnet's broadcast", send: func(s string) {
			x.y.put([]byte{255, 255, 255, 255, 255, 255}, packettest.IP(x.ay, netip.MustParseAddr("10.77.0.255"), unix.IPPROTO_UDP, packettest.UDP(7555, 7202, s)))
		}, got: said(x.any)},
		{name: "TCP into a flow, as the peer", send: func(s string) { x.put(segment(ack|push, s)) }, got: into},
	}
}

// control forges the network's own messages.
func (x *inward) control() []entry {
	ours := packettest.IP(x.a1, x.a2, unix.IPPROTO_UDP, packettest.UDP(7100, 7000, "12345678"))
	second := packettest.IP(x.a1, x.a2, unix.IPPROTO_UDP, packettest.UDP(7101, 7000, "12345678"))
	ours6 := packettest.IP(x.b1, x.b2, unix.IPPROTO_UDP, packettest.UDP(7100, 7000, "12345678"))
	router := netip.MustParseAddr("10.77.0.100")
	road := func(words ...string) func(string, time.Duration) int {
		return func(string, time.Duration) int {
			time.Sleep(100 * time.Millisecond)
			out := x.n1.Run(append([]string{"ip", "route", "get"}, words[1:]...)...)
			if strings.Contains(out, words[0]) {
				return 1
			}
			return 0
		}
	}
	far := packettest.IP(x.a1, netip.MustParseAddr("10.99.0.5"), unix.IPPROTO_ICMP, []byte{0, 0, 0, 0, 0, 1, 0, 1}) // the kernel hears of its own answers only
	x.n1.Run("ip", "route", "add", "10.99.0.0/24", "via", router.String())
	x.n1.Run("sh", "-c", "for c in all eth0; do echo 1 >/proc/sys/net/ipv4/conf/$c/accept_redirects; echo 0 >/proc/sys/net/ipv4/conf/$c/secure_redirects; done")
	return []entry{
		{name: "ICMP: a flow's packet is too big (600)", send: func(string) {
			x.put(packettest.IP(x.a2, x.a1, unix.IPPROTO_ICMP, icmp(3, 4, 600, ours)))
		}, got: road("mtu 600", "10.77.0.2", "uid", "2001")},
		{name: "ICMPv6: a flow's packet is too big (1290)", send: func(string) {
			x.put(packettest.IP(x.b2, x.b1, unix.IPPROTO_ICMPV6, icmp(2, 0, 1290, ours6)))
		}, got: road("mtu 1290", "fd77::2", "uid", "2001")},
		{name: "ICMP: another road is better (redirect)", send: func(string) {
			b := x.ay.As4()
			rest := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
			for range 3 { // the first one has n1 look for the neighbour
				x.put(packettest.IP(router, x.a1, unix.IPPROTO_ICMP, icmp(5, 1, rest, far)))
				time.Sleep(50 * time.Millisecond)
			}
		}, got: road("via 10.77.0.50", "10.99.0.5")},
		{name: "GRE", send: func(s string) { x.put(packettest.IP(x.ay, x.a1, unix.IPPROTO_GRE, append([]byte{0, 0, 8, 0}, s...))) }, got: x.answers(icmpAnswer)},
		{name: "IP in IP, a flow's packet inside", send: func(s string) {
			x.put(packettest.IP(x.ay, x.a1, unix.IPPROTO_IPIP, packettest.IP(x.a2, x.a1, unix.IPPROTO_UDP, packettest.UDP(7000, 7100, s))))
		}, got: x.answers(icmpAnswer)},
		{
			name: "SCTP", send: func(string) { x.put(packettest.IP(x.ay, x.a1, unix.IPPROTO_SCTP, sctp(40000, 7201))) },
			got: x.answers(func(p packettest.Packet) bool { return icmpAnswer(p) || p.Proto == unix.IPPROTO_SCTP }),
		},
		{name: "a protocol that there is not (253)", send: func(s string) { x.put(packettest.IP(x.ay, x.a1, 253, []byte(s))) }, got: x.answers(icmpAnswer)},
		{
			name: "ping", send: func(s string) {
				x.put(packettest.IP(x.ay, x.a1, unix.IPPROTO_ICMP, append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, s...)))
			},
			got: x.answers(func(p packettest.Packet) bool { return p.Proto == unix.IPPROTO_ICMP && p.Data[0] == 0 }),
		},
		{name: "ICMP: a flow's peer has no such port", send: func(string) {
			x.put(packettest.IP(x.a2, x.a1, unix.IPPROTO_ICMP, icmp(3, 3, 0, second)))
		}, got: func(_ string, wait time.Duration) int { return said(x.second)("refused", wait) }},
		{name: "TCP: the peer resets a flow", send: func(string) {
			seq, acked := next(x.t, x.inner, x.a2, x.a1, 7000, 7100)
			x.put(packettest.IP(x.a2, x.a1, unix.IPPROTO_TCP, packettest.TCP(7000, 7100, seq+x.shift, acked, rst|ack, "")))
		}, got: func(_ string, wait time.Duration) int { return said(x.stream)("error", wait) }},
	}
}
