//go:build e2e

package e2e_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// blind stops a node's keeper, for controls that take a job's fence or mesh away: it would see that
// and end the job. Userspace WireGuard stands still with it, and renewals are missed.
func blind(t *testing.T, node string) {
	t.Helper()
	must(t, node, "root", "pkill", "-STOP", "enclave-keeper")
}

// TestRobustAFlushEndsTheJob: an admin, or a program of his, flushes nftables in mid-job.
func TestRobustAFlushEndsTheJob(t *testing.T) {
	idle(t)
	for code, change := range map[string]string{
		"E426": "nft flush ruleset",
		"E427": "ip rule flush; ip rule add pref 32766 lookup main; ip rule add pref 32767 lookup default",
	} {
		t.Run(change+" is "+code, func(t *testing.T) {
			id := everyone(t, "srun -N1 -n1 -w n2 bash -c '"+strings.ReplaceAll(strings.TrimPrefix(sendUntilKilled, `trap "" TERM; `), "%", address(t, "n1"))+"'")
			eventually(t, 20*time.Second, func() bool {
				return on(t, "n1", "root", "test", "-e", "/srv/enclave-fs/lab/proj/digimed/last-"+id).status == 0
			}, func() string { return "n2 sends nothing" })
			c := startCapture(t)
			began := time.Now()
			must(t, "n2", "root", "sh", "-c", change)
			eventually(t, 5*time.Second, func() bool { return !goFile(t, "n2", id) }, func() string { return "GO is still there" })
			t.Logf("GO was gone %d ms after the command began", time.Since(began).Milliseconds())
			assert.Contains(t, must(t, "n2", "root", "cat", "/run/slurm-enclave/gate/"+id+".deny"), code)
			await(t, id, "CANCELLED")
			t.Logf("the job was cancelled after %d ms", time.Since(began).Milliseconds())
			for _, f := range holding(c.stop(), "still-sending\n") {
				assert.NotEqual(t, netip.MustParseAddr(address(t, "n2")), f.src, "in clear: %s", f)
			}
			lost(t, id, code, "n2")
			idle2(t, "n2")
			checked := verify(t, "--allow-simulated", exported(t, id, "r-"+id+".json"))
			assert.Contains(t, checked.out, code, "%s", checked)
			assert.Contains(t, must(t, "n0", "root", "enclave", "why", "n2"), code)
			resume(t, "n2")
			idle(t)
		})
	}
}

// idle2 waits until a drained node has no job any more.
func idle2(t *testing.T, node string) {
	t.Helper()
	eventually(t, 60*time.Second, func() bool {
		return strings.TrimSpace(must(t, "n0", "root", "sinfo", "-h", "-n", node, "-p", "cpu-sev", "-o", "%T")) == "drained"
	}, func() string { return must(t, "n0", "root", "sinfo", "-R") })
}

// TestRobustASitesOwnRulesAreItsOwn: firewalld is reloaded and routes change while a job runs.
func TestRobustASitesOwnRulesAreItsOwn(t *testing.T) {
	idle(t)
	id := everyone(t, "srun sleep 4; srun hostname")
	must(t, "n2", "root", "sh", "-c", `nft 'add table inet firewalld; add chain inet firewalld filter_INPUT { type filter hook input priority 10; }'
ip rule add pref 20000 fwmark 0x77 lookup 77; ip rule add pref 100 fwmark 0x78 lookup 77; ip route add 10.55.0.0/16 dev lo
for i in 1 2 3; do nft 'flush table inet firewalld; add rule inet firewalld filter_INPUT ct state established,related accept'; sleep 0.3; done`)
	await(t, id, "COMPLETED")
	assert.Contains(t, output(t, "alice", id), "n2")
	must(t, "n2", "root", "sh", "-c", "nft delete table inet firewalld; ip rule del pref 20000; ip rule del pref 100; ip route del 10.55.0.0/16")
	idle(t)
}
