//go:build e2e

package e2e_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hasten lets nodes prove themselves every 2 s, and close by themselves 6 s after the last time.
func hasten(t *testing.T) {
	t.Helper()
	reconfigure(t, "s/renew_seconds: 5, renew_grace_seconds: 30/renew_seconds: 2, renew_grace_seconds: 6/")
}

// lost waits until the job was ended for the code, all enclave nodes but the one named are not
// drained, and that one is.
func lost(t *testing.T, id, code, broken string) {
	t.Helper()
	await(t, id, "CANCELLED")
	assert.Equal(t, "0", field(t, id, "Restarts"), "its ranks had begun: it is not put back")
	for _, n := range []string{"n1", "n2", "n3"} {
		if n == broken {
			assert.Contains(t, drained(t, n), "enclave:"+code)
		} else {
			assert.Empty(t, drained(t, n), n)
		}
	}
	for _, text := range []string{must(t, "n0", "root", "enclave", "why", id), on(t, "login", "alice", "enclave", "report", id).out} {
		assert.Regexp(t, code+" n[123]", text)
	}
	eventually(t, 20*time.Second, func() bool { return strings.Contains(adminComment(t, id), code) }, func() string { return adminComment(t, id) })
}

// everyone is a job of alice's on all three nodes.
func everyone(t *testing.T, script string) string {
	t.Helper()
	id := submit(t, "alice", script, "--partition=cpu-sev", "--nodes=3")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	started(t, id, "alice", "n1")
	return id
}

func goFile(t *testing.T, node, id string) bool {
	t.Helper()
	return on(t, node, "root", "test", "-e", "/run/slurm-enclave/gate/"+id+".go").status == 0
}

func TestRenewal(t *testing.T) {
	idle(t)
	hasten(t)
	t.Run("a job is renewed while it runs, and finishes", func(t *testing.T) {
		id := everyone(t, "srun sleep 7")
		await(t, id, "COMPLETED")
		var report struct {
			Nodes []struct{ Renewals int }
		}
		require.NoError(t, json.Unmarshal([]byte(must(t, "login", "alice", "enclave", "report", id, "--json")), &report))
		require.Len(t, report.Nodes, 3)
		for _, n := range report.Nodes {
			assert.GreaterOrEqual(t, n.Renewals, 2)
		}
		assert.Contains(t, must(t, "login", "alice", "enclave", "report", id), "Renewed")
		idle(t)
	})
	t.Run("a node whose evidence fails ends the job and is drained", func(t *testing.T) {
		id := everyone(t, "srun sleep 60")
		setFault(t, "n2", `{"old_tcb": true}`)
		lost(t, id, "E235", "n2")
		on(t, "n2", "root", "sh", "-c", "echo '{}' >/run/enclave-tsm.faults")
		resume(t, "n2")
		idle(t)
	})
	t.Run("a keeper that is killed ends the job, nothing is left, and nobody is drained", func(t *testing.T) {
		was := nodeTrace(t, "n2")
		id := everyone(t, "srun sleep 60")
		must(t, "n2", "root", "pkill", "-KILL", "enclave-keeper")
		lost(t, id, "E531", "")
		idle(t)
		eventually(t, 20*time.Second, func() bool { return nodeTrace(t, "n2") == was }, func() string { return nodeTrace(t, "n2") })
	})
	t.Run("a verifier that is away for less than the grace period harms nobody", func(t *testing.T) {
		id := everyone(t, "srun sleep 12")
		require.NoError(t, labCommand("stop", "n0", "enclaved").Run())
		time.Sleep(2500 * time.Millisecond)
		require.NoError(t, labCommand("start", "n0", "enclaved").Run())
		await(t, id, "COMPLETED")
		idle(t)
	})
	t.Run("one that is away for longer ends the job, and the nodes close before it is back", func(t *testing.T) {
		id := everyone(t, "srun sleep 90")
		require.NoError(t, labCommand("stop", "n0", "enclaved").Run())
		for _, n := range []string{"n1", "n2", "n3"} {
			assert.True(t, goFile(t, n, id), n)
		}
		for _, n := range []string{"n1", "n2", "n3"} {
			eventually(t, 15*time.Second, func() bool {
				return !goFile(t, n, id) && on(t, n, "root", "ip", "link", "show", "enc"+id).status != 0
			}, func() string { return n + " is still open" })
		}
		assert.Contains(t, must(t, "n2", "root", "tail", "-n", "3", "/var/log/slurm-enclave.log"), "E242")
		require.NoError(t, labCommand("start", "n0", "enclaved").Run())
		lost(t, id, "E531", "")
		idle(t)
	})
}

// sendUntilKilled sends to the node and writes when it did so last. It takes no notice of Slurm's
// first signal, so that what stops its packets is the tunnel.
const sendUntilKilled = `trap "" TERM; while :; do echo still-sending >/dev/udp/%/9; echo $EPOCHREALTIME >/lustre/last-$SLURM_JOB_ID; sleep 0.02; done 2>/dev/null`

func TestRevocationStopsTrafficWithinASecond(t *testing.T) {
	idle(t)
	t.Cleanup(func() { // n2 is known again
		if strings.Contains(must(t, "n0", "root", "enclave", "nodes"), "not enrolled") || drained(t, "n2") != "" {
			readmit(t, "n2")
		}
	})
	program, err := os.ReadFile(mpiProgram("pingpong"))
	require.NoError(t, err)
	r := onWithInput(t, "login", "alice", string(program), "sh", "-c", "cat >pingpong && chmod 700 pingpong")
	require.Zero(t, r.status, "%s", r)
	target := netip.MustParseAddr(address(t, "n2"))
	id := everyone(t, "srun --overlap -N1 -n1 -w n1 bash -c '"+strings.ReplaceAll(sendUntilKilled, "%", target.String())+"' &\n"+
		orAgain("srun --overlap -N3 -n3 ./pingpong 100")+"\nwait")
	eventually(t, 30*time.Second, func() bool {
		return strings.Contains(on(t, "login", "alice", "cat", "slurm-"+id+".out").out, "rank 2 of 3")
	},
		func() string { return on(t, "login", "alice", "cat", "slurm-"+id+".out").String() })

	c := startCapture(t)
	time.Sleep(500 * time.Millisecond)
	begin := time.Now()
	out := must(t, "n0", "root", "enclave", "node", "revoke", "n2", "--reason", "a disk is missing")
	assert.Contains(t, out, "ended job "+id+".0")
	await(t, id, "CANCELLED")
	frames := c.stop()

	var before int
	var last time.Time
	for _, f := range frames {
		if f.dst != target || !enclaveNode(f.src) || !wireguard(f) {
			continue
		}
		if f.at.Before(begin) {
			before++
		}
		last = f.at
	}
	assert.Greater(t, before, 10, "the capture sees the job's traffic")
	assert.Less(t, last.Sub(begin), time.Second, "traffic to the revoked node went on")
	assert.Empty(t, outside(frames), "in clear: %s", list(outside(frames)))
	text := must(t, "n1", "root", "cat", "/srv/enclave-fs/lab/proj/digimed/last-"+id)
	tried, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	require.NoError(t, err)
	assert.Greater(t, tried-float64(begin.UnixNano())/1e9, 1.0, "the job tried for longer than its packets flowed")
	t.Logf("the last packet came %s after the command began; the job tried for %.1f s", last.Sub(begin), tried-float64(begin.UnixNano())/1e9)

	lost(t, id, "E532", "n2")
	assert.Contains(t, on(t, "login", "alice", "enclave", "report", id).out, "n2 left the roster (epoch 2)")
	assert.Contains(t, must(t, "n0", "root", "enclave", "why", "n2"), "a disk is missing")
	assert.NotZero(t, on(t, "n0", "root", "enclave", "node", "revoke", "n2", "--reason", "again").status)
	readmit(t, "n2")
	idle(t)
}

// readmit enrols a revoked node again and puts it back to work, as an admin does.
func readmit(t *testing.T, node string) {
	t.Helper()
	argv, err := state(t).Command(node, "root", []string{"enclave", "node", "enrol", "--request"})
	require.NoError(t, err)
	asking := exec.Command(argv[0], argv[1:]...) // cleanups run it, too, when the test's context is over
	require.NoError(t, asking.Start())
	var pending result
	eventually(t, 20*time.Second, func() bool {
		pending = onWithInput(t, "n0", "root", "yes\n", "enclave", "node", "enrol", node)
		return pending.status == 0
	}, func() string { return pending.String() })
	require.NoError(t, asking.Wait())
	must(t, node, "root", "enclave", "node", "prove")
	must(t, "n0", "root", "enclave", "node", "return", node)
}
