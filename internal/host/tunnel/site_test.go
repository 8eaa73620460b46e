package tunnel_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// TestSites: what nodes have of their own before an enclave comes. In each case a megabyte and a
// large datagram pass between the user's programs, both families, and nothing but WireGuard's
// packets is on the wire.
func TestSites(t *testing.T) {
	t.Parallel() // most of it waits
	for _, tc := range []struct {
		name, site string
		iptables   string // site is iptables' of this kind
		mtu        int
		// control makes a peer refuse what comes out of the tunnel, with the site's own means: the
		// packets do pass its rules.
		control string
	}{
		{name: "reverse path filter off", site: "for c in all default eth0; do echo 0 >/proc/sys/net/ipv4/conf/$c/rp_filter; done"},
		{name: "reverse path filter strict", site: "for c in all default eth0; do echo 1 >/proc/sys/net/ipv4/conf/$c/rp_filter; done"},
		{name: "reverse path filter loose", site: "for c in all default eth0; do echo 2 >/proc/sys/net/ipv4/conf/$c/rp_filter; done"},
		{name: "firewalld's zone public", site: firewalld(t), control: "nft flush chain inet firewalld filter_INPUT_ZONES; nft add rule inet firewalld filter_INPUT_ZONES goto filter_IN_public"},
		{name: "iptables of nftables", iptables: "nft", control: "iptables-nft -D INPUT -i enc+ -j ACCEPT; ip6tables-nft -D INPUT -i enc+ -j ACCEPT"},
		{name: "iptables of old", iptables: "legacy", control: "iptables-legacy -D INPUT -i enc+ -j ACCEPT; ip6tables-legacy -D INPUT -i enc+ -j ACCEPT"},
		{name: "rules of the site's behind and beside the job's", site: "ip rule add pref 100 fwmark 0x77 lookup 77; ip rule add pref 20000 from 10.77.0.0/24 lookup 88; ip route add 10.77.0.0/24 dev eth0 table 88"},
		{name: "a default route, and forwarding", site: "ip route add default via 10.77.0.100; echo 1 >/proc/sys/net/ipv4/ip_forward"},
		{name: "jumbo frames", mtu: 9000, site: "true"},
		{name: "the smallest MTU of IPv6", mtu: 1280, site: "true"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.iptables != "" {
				tc.site = iptables(t, tc.iptables)
			}
			l := build(t)
			for i, n := range l.nodes {
				n.Run("sh", "-ec", tc.site)
				if tc.mtu != 0 {
					l.sw.Run("ip", "link", "set", fmt.Sprintf("p-n%d", i+1), "mtu", fmt.Sprint(tc.mtu))
					n.Run("ip", "link", "set", "eth0", "mtu", fmt.Sprint(tc.mtu))
					n.mesh.Link.MTU = mesh.TunnelMTU(tc.mtu)
				}
				n.up(t)
			}
			require.NoError(t, l.probe(20*time.Second))
			n1, n2 := l.nodes[0], l.nodes[1]
			for _, a := range []string{"10.77.0.2:7000", "[fd77::2]:7000"} {
				tcpServer, udpServer := serve(t, n2.Node, user, "tcp", a), serve(t, n2.Node, user, "udp", a)
				l.wire.clear()
				act(t, n1.Node, user, role{Proto: "tcp", Address: a, Payload: "x", Times: 1 << 20})
				tcpServer.must("sum 1048576")
				act(t, n1.Node, user, role{Proto: "udp", Address: a, Payload: secret + strings.Repeat("y", 8000)}).must("got")
				udpServer.must(secret)
				assert.Zero(t, l.wire.holds(secret))
			}
			for _, n := range []*node{n1, n2} {
				c := n.counters(t)
				assert.Zero(t, c.Unlisted())
				assert.Zero(t, c.Outside.Packets)
				assert.Zero(t, c.Rejected.Packets)
			}
			if tc.control == "" {
				return
			}
			n2.Run("sh", "-ec", tc.control)
			for _, a := range []string{"10.77.0.2:7000", "[fd77::2]:7000"} {
				assert.False(t, act(t, n1.Node, user, role{Proto: "tcp", Address: a, Payload: "x"}).says("got", 4*time.Second), "%s passed", a)
			}
		})
	}
	for name, site := range map[string]string{
		"a rule for everything":           "ip rule add pref 100 lookup main",
		"a rule for the node's address":   "ip route add default via 10.77.0.100 table 77; ip rule add pref 100 from 10.77.0.1 lookup 77",
		"a rule for the peers' addresses": "ip rule add pref 100 to 10.77.0.3 lookup main",
		"a rule of IPv6":                  "ip -6 rule add pref 100 lookup main",
	} {
		t.Run("a node where packets would pass by the tunnel is refused: "+name, func(t *testing.T) {
			l := build(t)
			n := l.nodes[0]
			n.Run("sh", "-ec", site)
			err := n.raise(t)
			r, ok := enclave.AsRefusal(err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, mesh.CodePath, r.Code)
			assert.Contains(t, r.Reason, "eth0")
		})
	}
}
