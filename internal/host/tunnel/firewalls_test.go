package tunnel_test

import (
	_ "embed"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/nettest"
)

//go:embed testdata/firewalld.nft
var firewalldRules string

// firewalld loads what firewalld would.
func firewalld(t *testing.T) string {
	t.Helper()
	return "nft -f - <<'X'\n" + firewalldRules + "X"
}

// iptables loads, with the real programs of one of their two kinds, what sites, Docker and kube-proxy do: a
// firewall that ends in a refusal, masquerading, and marks on packets and connections.
func iptables(t *testing.T, kind string) string {
	t.Helper()
	for _, program := range []string{"iptables-" + kind, "ip6tables-" + kind} {
		_, err := exec.LookPath(program)
		require.NoError(t, err, "scripts/deps installs it")
	}
	return strings.ReplaceAll(`for ipt in iptables-KIND ip6tables-KIND; do
	one() { $ipt -w "$@"; }
	one -P INPUT DROP
	one -A INPUT -i lo -j ACCEPT
	one -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED,UNTRACKED -j ACCEPT
	one -A INPUT -p tcp -m multiport --dports 22,6818 -j ACCEPT
	one -A INPUT -p udp --dport 51820 -j ACCEPT
	one -A INPUT -i enc+ -j ACCEPT
	[ $ipt != iptables-KIND ] || one -A INPUT -p icmp -j ACCEPT
	[ $ipt = iptables-KIND ] || one -A INPUT -p ipv6-icmp -j ACCEPT
	one -A INPUT -j REJECT
	one -A OUTPUT -m conntrack --ctstate INVALID -j DROP
	one -P FORWARD DROP
	one -N DOCKER-USER
	one -A FORWARD -j DOCKER-USER
	one -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
	one -t nat -N DOCKER
	one -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
	one -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
	one -t nat -N KUBE-MARK-MASQ
	one -t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
	one -t nat -N KUBE-POSTROUTING
	one -t nat -A POSTROUTING -j KUBE-POSTROUTING
	one -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
	one -t nat -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
	one -t nat -A KUBE-POSTROUTING -j MASQUERADE
	one -t mangle -A OUTPUT -p tcp -j CONNMARK --or-mark 0x1
	one -t mangle -A OUTPUT -p tcp --dport 9999 -j MARK --set-mark 0x100
	one -t mangle -A PREROUTING -p tcp -j CONNMARK --or-mark 0x1
done
iptables-KIND -w -t nat -A OUTPUT -d 10.96.0.0/12 -j KUBE-MARK-MASQ
iptables-KIND -w -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE`, "KIND", kind)
}

// TestTwoCards: the default route, and with it all that is not the job's, takes another card than the tunnel.
func TestTwoCards(t *testing.T) {
	t.Parallel()
	l := build(t)
	wan := nettest.New(t, "wan")
	for i, n := range l.nodes {
		last := string(rune('1' + i))
		n.JoinBy("eth1", wan, 1500, "10.99.0."+last+"/24", "fd99::"+last+"/64")
		n.Run("sh", "-ec", "ip route add default via 10.99.0.100; ip -6 route add default via fd99::100")
	}
	wan.Run("sh", "-ec", "ip addr add 10.99.0.100/24 dev br0; ip addr add fd99::100/64 nodad dev br0; ip addr add 192.0.2.1/32 dev br0")
	other := listenWire(t, wan)
	const open = "OVER-THE-OTHER-CARD"
	serve(t, wan, 0, "udp", "192.0.2.1:7000")
	act(t, l.nodes[0].Node, 0, role{Proto: "udp", Address: "192.0.2.1:7000", Payload: open}).must("got")
	require.NotZero(t, other.holds(open), "control: the default route takes the other card")
	for _, n := range l.nodes {
		n.up(t)
	}
	require.NoError(t, l.probe(20*time.Second))
	n1, n2 := l.nodes[0], l.nodes[1]
	other.clear()
	l.wire.clear()
	for _, a := range []string{"10.77.0.2:7000", "[fd77::2]:7000"} {
		tcp, udp := serve(t, n2.Node, user, "tcp", a), serve(t, n2.Node, user, "udp", a)
		act(t, n1.Node, user, role{Proto: "tcp", Address: a, Payload: "x", Times: 1 << 20})
		tcp.must("sum 1048576")
		act(t, n1.Node, user, role{Proto: "udp", Address: a, Payload: secret + strings.Repeat("y", 8000)}).must("got")
		udp.must(secret)
	}
	for _, a := range []string{"10.99.0.2:7001", "[fd99::2]:7001", "192.0.2.1:7000"} {
		act(t, n1.Node, user, role{Proto: "udp", Address: a, Payload: secret}).says("got", 300*time.Millisecond)
	}
	assert.NotZero(t, n1.counters(t).Rejected.Packets, "the job's user gets nothing out by the other card")
	assert.Zero(t, l.wire.holds(secret))
	assert.Zero(t, other.holds(secret))
	for _, n := range []*node{n1, n2} {
		c := n.counters(t)
		assert.Zero(t, c.Unlisted())
		assert.Zero(t, c.Outside.Packets)
	}
	// Control: without the fence the same goes out by the other card.
	n1.dropFence(t)
	act(t, n1.Node, user, role{Proto: "udp", Address: "192.0.2.1:7000", Payload: secret}).must("got")
	assert.NotZero(t, other.holds(secret))
}
