package tunnel_test

import (
	"fmt"
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

// spoof is a lie about where the peer is. It leads packets to the neighbour.
type spoof struct {
	name string
	tell func()
	six  bool // about the peer's IPv6 address
	// reaches says that WireGuard's packets are led astray as well: those of the lab go over IPv4.
	reaches bool
}

func (x *inward) spoofs() []spoof {
	all := netip.MustParseAddr("ff02::1")
	linkLocal := func() netip.Addr {
		_, after, _ := strings.Cut(x.y.Run("ip", "-o", "addr", "show", "dev", "eth0", "scope", "link"), "inet6 ")
		return netip.MustParsePrefix(strings.Fields(after)[0]).Addr()
	}()
	return []spoof{
		{name: "ARP: the peer is at the neighbour", reaches: true, tell: func() {
			x.put(arp(x.a2, x.y.own, x.a1, x.mac))
		}},
		{name: "neighbour advertisement: the peer is at the neighbour", six: true, tell: func() {
			x.put(packettest.IP(x.b2, x.b1, unix.IPPROTO_ICMPV6, advertisement(x.b2, x.y.own)))
		}},
		{name: "router advertisement: the way to the peer is by the neighbour", six: true, tell: func() {
			b := routerAdvertisement(x.y.own, netip.MustParsePrefix("fd99::/64"))
			b = append(b, 24, 3, 128, 0x08, 0, 0, 0x0e, 0x10) // a route to the peer alone, preferred
			x.put(packettest.IP(linkLocal, all, unix.IPPROTO_ICMPV6, append(b, x.b2.AsSlice()...)))
		}},
	}
}

// TestSpoofedNeighbours: on one switch anybody can lead a node's packets to himself. In the tunnel
// they are worth nothing to him.
func TestSpoofedNeighbours(t *testing.T) {
	t.Parallel() // most of it waits
	x := newInward(t)
	x.n1.Run("sh", "-c", "echo 128 >/proc/sys/net/ipv6/conf/eth0/accept_ra_rt_info_max_plen; echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra; echo 0 >/proc/sys/net/ipv4/neigh/eth0/locktime")
	// try tells the lie, has the user speak, and counts what the neighbour got.
	try := func(s spoof, text string) (plain, encrypted int) {
		a := x.flow
		if s.six {
			a = x.flow6
		}
		a.say(text + "-BEFORE") // so that n1 knows where the peer is
		a.must(text + "-BEFORE")
		x.seen.clear()
		for range 3 {
			s.tell()
			time.Sleep(20 * time.Millisecond)
			a.say(text)
		}
		plain = x.seen.holds(text) // waits
		for _, p := range x.seen.packets(14) {
			if p.Src == x.a1 && p.Dst == x.a2 && p.Proto == unix.IPPROTO_UDP && p.DPort == 51820 {
				encrypted++
			}
		}
		return plain, encrypted
	}
	heal := func() {
		x.n1.Run("sh", "-c", "ip neigh flush all; ip -6 route flush proto ra; true")
	}
	type result struct{ plain, encrypted, control int }
	list := x.spoofs()
	results := make([]result, len(list))
	for i, s := range list {
		t.Run(s.name, func(t *testing.T) {
			r := &results[i]
			r.plain, r.encrypted = try(s, fmt.Sprintf("SPOOF-%d-WITH", i))
			assert.Zero(t, r.plain)
			if s.reaches {
				assert.Positive(t, r.encrypted, "the lie is believed")
			}
			assert.Contains(t, x.n1.Run("ip", "route", "get", x.b2.String(), "uid", "2001"), "dev "+device)
			heal()
			x.flow.say("HEALED")
			x.flow.must("HEALED")
		})
	}
	x.n1.down(t)
	x.n2.down(t)
	for i, s := range list {
		t.Run("control: without tunnel and fence, "+s.name, func(t *testing.T) {
			results[i].control, _ = try(s, fmt.Sprintf("SPOOF-%d-WITHOUT", i))
			assert.Positive(t, results[i].control)
			heal()
		})
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "lie\tthe neighbour got in clear\tWireGuard's packets\tin clear without tunnel and fence")
	for i, s := range list {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", s.name, results[i].plain, results[i].encrypted, results[i].control)
	}
	require.NoError(t, w.Flush())
	t.Logf("lies about where a peer is:\n%s", b.String())
}
