package tunnel_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/host/spawn"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

const gateDir = "/run/slurm-enclave/gate"

// guarded brings a node up with a keeper that has heard of GO and watches.
func (n *node) guarded(t *testing.T, l *lab) {
	t.Helper()
	closed, err := fence.Closed(1000, []fence.Service{{Name: "slurmd", Proto: "tcp", Port: 6818}}, fence.Streams{})
	require.NoError(t, err)
	n.peers = nil
	for _, p := range l.nodes {
		if p != n {
			n.peers = append(n.peers, p.own)
		}
	}
	n.grant = func(h *spawn.Handle) error {
		boot, err := process.BootID()
		if err != nil {
			return err
		}
		var now unix.Timespec
		if err = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
			return err
		}
		g := gate.Go{Job: job, Boot: boot, Expires: uint64(now.Sec) + 600}
		if err = errors.Join(os.MkdirAll(gateDir, 0o700), (gate.Directory{Path: gateDir}).WriteGo(g)); err != nil {
			return err
		}
		return h.Grant(keeper.Grant{
			Go: g, Lifetime: 600, Renew: 300, Walls: keeper.Walls{Mesh: n.mesh.Held(), Fence: n.fence, Closed: closed},
		})
	}
	n.up(t)
}

// again takes a node that was lost back to where nothing is.
func (n *node) again(t *testing.T) {
	t.Helper()
	n.down(t)
	n.Must(func() error {
		return errors.Join(filter.Kernel{}.Replace(t.Context(), fence.Table{}, fence.ClosedName), (gate.Directory{Path: gateDir}).Remove(job))
	})
}

// read is a file of the node's, "" when there is none.
func (n *node) read(path string) string {
	out, err := n.Try("", "cat", path)
	if err != nil {
		return ""
	}
	return out
}

const (
	goPath   = gateDir + "/4711.go"
	denyPath = gateDir + "/4711.deny"
)

// seconds is within what anything here is to be seen, a change by the keeper as well: it looks ten times in each.
// A processor that QEMU emulates (the kernel says so of it) takes many times as long for all that hangs on it.
func seconds() time.Duration {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err == nil && strings.Contains(string(b), "QEMU TCG") {
		return 30 * time.Second
	}
	return 5 * time.Second
}

// TestGuard: somebody with root's rights changes fence or mesh of a running job.
func TestGuard(t *testing.T) {
	t.Parallel() // most of it waits
	l := build(t)
	n := l.nodes[0]
	table, routes := "inet enclave_4711", fmt.Sprint(mesh.Table(job))
	for name, tc := range map[string]struct{ change, code string }{
		"all of nftables is flushed":               {"nft flush ruleset", "E426"},
		"the job's table is deleted":               {"nft delete table " + table, "E426"},
		"a chain of the job's table is flushed":    {"nft flush chain " + table + " out", "E426"},
		"a rule is put before the others":          {"nft insert rule " + table + " out accept", "E426"},
		"a chain gets another policy":              {"nft 'add chain " + table + " in { type filter hook input priority 0; policy drop; }'", "E426"},
		"a set gets an address more":               {"nft add element " + table + " slurmctld4 '{ 10.77.0.77 }'", "E426"},
		"the table is made dormant":                {"nft add table " + table + " '{ flags dormant; }'", "E426"},
		"a policy rule is deleted":                 {"ip rule del pref 9902", "E427"},
		"all policy rules are flushed":             {"ip rule flush; ip rule add pref 32766 lookup main", "E427"},
		"the IPv6 rules are deleted":               {"ip -6 rule del pref 9900", "E427"},
		"a route is deleted":                       {"ip route del 10.77.0.2 table " + routes, "E427"},
		"the job's table of routes is flushed":     {"ip route flush table " + routes, "E427"},
		"a route is added":                         {"ip route add 10.77.0.100/32 dev eth0 table " + routes, "E427"},
		"the interface is set down":                {"ip link set enc4711 down", "E428"},
		"the interface is deleted":                 {"ip link del enc4711", "E428"},
		"the interface gets an address more":       {"ip addr add 10.99.0.1/32 dev enc4711", "E428"},
		"the interface gets another MTU":           {"ip link set enc4711 mtu 1300", "E428"},
		"reverse path filtering is made strict":    {"echo 1 >/proc/sys/net/ipv4/conf/enc4711/rp_filter", "E428"},
		"a policy rule stands before the job's":    {"ip rule add pref 100 lookup main", "E430"},
		"a rule for the node's own address does":   {"ip route add default via 10.77.0.100 table 77; ip rule add pref 100 from 10.77.0.1 lookup 77", "E430"},
		"nftables and policy rules go at one time": {"nft flush ruleset; ip rule flush; ip rule add pref 32766 lookup main", "E426"},
	} {
		t.Run(name, func(t *testing.T) {
			n.guarded(t, l)
			defer n.again(t)
			require.NotEmpty(t, n.read(goPath))
			began := time.Now()
			n.Run("sh", "-c", tc.change)
			require.Eventually(t, func() bool { return strings.Contains(n.read(denyPath), tc.code) }, seconds(), 10*time.Millisecond,
				"%s", n.read(denyPath))
			t.Logf("GO was gone %d ms after the command began", time.Since(began).Milliseconds())
			assert.Empty(t, n.read(goPath))
			require.Eventually(t, func() bool { return !n.hasDevice() }, seconds(), 10*time.Millisecond)
			tables := n.Run("nft", "list", "tables")
			assert.Contains(t, tables, "enclave_closed")
			assert.NotContains(t, tables, "enclave_4711", "its counters would begin at zero")
			l.wire.clear()
			r := act(t, n.Node, user, role{Proto: "udp", Address: "10.77.0.2:7000", Payload: secret})
			assert.False(t, r.says("got", 100*time.Millisecond))
			assert.Zero(t, l.wire.holds(secret), "nothing leaves in clear behind it")
		})
		n.Run("sh", "-c", "while ip rule del pref 100 2>/dev/null; do :; done; ip rule | grep -q default || ip rule add pref 32767 lookup default")
	}
}

// TestGuardLeavesTheSiteAlone: a site's own firewall, rules and interfaces are changed all day.
func TestGuardLeavesTheSiteAlone(t *testing.T) {
	t.Parallel() // most of it waits
	l := build(t)
	n := l.nodes[0]
	n.guarded(t, l)
	const firewalld = `table inet firewalld {
	chain filter_INPUT {
		type filter hook input priority 10; policy accept;
		ct state established,related accept
	}
}
`
	nft := func(text string) string { return "nft -f - <<'X'\n" + text + "X" }
	for _, tc := range []struct{ name, change string }{
		{"firewalld starts", nft(firewalld)},
		{"firewalld is reloaded, its tables flushed", nft("flush table inet firewalld\ndelete table inet firewalld\n" + firewalld)},
		{"an address joins a ban list", "nft 'add table ip bans; add set ip bans evil { type ipv4_addr; }; add element ip bans evil { 10.1.1.1 }' && nft delete table ip bans"},
		{"a table of the same name in another family", "nft add table ip enclave_4711 && nft delete table ip enclave_4711"},
		{"iptables' tables come and go", "nft 'add table ip filter; add chain ip filter INPUT { type filter hook input priority 0; policy accept; }' && nft delete table ip filter"},
		{"a container's interface comes and goes", "ip link add veth7 type veth peer name veth8 && ip link set veth7 up && ip addr add 172.17.0.1/16 dev veth7 && ip link del veth7"},
		{"a rule of the site's behind the job's", "ip rule add pref 20000 fwmark 0x77 lookup 77"},
		{"a rule of the site's for its own mark", "ip rule add pref 100 fwmark 0x77 lookup 77"},
		{"routes of the site's", "ip route add 10.55.0.0/16 via 10.77.0.100 && ip route add default via 10.77.0.100 && ip route del default"},
		{"rp_filter of all interfaces", "echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter; echo 2 >/proc/sys/net/ipv4/conf/all/rp_filter"},
		{"forwarding is switched on", "echo 1 >/proc/sys/net/ipv4/ip_forward"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n.Run("sh", "-c", tc.change)
			time.Sleep(300 * time.Millisecond) // three looks
			assert.NotEmpty(t, n.read(goPath), "%s", n.read(denyPath))
		})
	}
	assert.Empty(t, n.read(denyPath))
	t.Run("control: the keeper still watches", func(t *testing.T) {
		n.Run("ip", "rule", "del", "pref", "9900")
		require.Eventually(t, func() bool { return strings.Contains(n.read(denyPath), "E427") }, seconds(), 10*time.Millisecond)
	})
	n.again(t)
}

// A keeper that hangs must not hold the epilog up, which reads the tunnel's counters first.
func TestAStoppedKeeperHoldsNobodyUp(t *testing.T) {
	l := build(t)
	n := l.nodes[0]
	if l.driver != mesh.DriverKeeper {
		t.Log("the kernel's WireGuard needs no keeper to be read")
		return
	}
	n.up(t)
	require.NoError(t, unix.Kill(n.pid, unix.SIGSTOP))
	read := make(chan error, 1)
	go func() {
		read <- n.Do(func() error { _, err := link.Kernel{}.State(t.Context(), device); return err })
	}()
	select {
	case err := <-read:
		require.ErrorContains(t, err, "does not answer")
	case <-time.After(10 * time.Second):
		t.Fatal("the read hangs")
	}
	n.down(t)
	assert.Equal(t, n.before, n.state())
}
