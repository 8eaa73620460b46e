//go:build e2e

package e2e_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// setFault makes a node's simulated attester misbehave until the test's end.
func setFault(t *testing.T, node, fault string) {
	t.Helper()
	r := onWithInput(t, node, "root", fault, "sh", "-c", "cat >/run/enclave-tsm.faults")
	require.Zero(t, r.status, "%s", r)
	t.Cleanup(func() { on(t, node, "root", "sh", "-c", "echo '{}' >/run/enclave-tsm.faults") })
}

// adminComment is the value of our token in the job's AdminComment, from the database.
func adminComment(t *testing.T, id string) string {
	t.Helper()
	return must(t, "n0", "root", "sacct", "-X", "-n", "-P", "-D", "-j", id, "-o", "AdminComment")
}

func drained(t *testing.T, node string) string {
	t.Helper()
	out := must(t, "n0", "root", "sinfo", "-h", "-N", "-n", node, "-o", "%T|%E")
	state, reason, _ := strings.Cut(strings.TrimSpace(strings.SplitN(out, "\n", 2)[0]), "|")
	if strings.Contains(state, "drain") {
		return reason
	}
	return ""
}

func resume(t *testing.T, nodes ...string) {
	t.Helper()
	for _, n := range nodes {
		if drained(t, n) != "" {
			must(t, "n0", "root", "scontrol", "update", "NodeName="+n, "State=RESUME")
		}
	}
}

func TestP1OneBadNodeStopsAllRanks(t *testing.T) {
	for name, fault := range map[string]string{
		"a report signed by another key":            `{"wrong_key": true}`,
		"a guest policy that allows debugging":      `{"debug_policy": true}`,
		"an old TCB":                                `{"old_tcb": true}`,
		"a report for another nonce":                `{"replay": true}`,
		"no report at all":                          `{"no_report": true}`,
		"another node's chip":                       `{"other_chip": "n1"}`,
		"a measurement the policy does not know of": `{"wrong_measurement": true}`,
	} {
		t.Run(name, func(t *testing.T) {
			idle(t)
			setFault(t, "n2", fault)
			id := submit(t, "alice", `srun sh -c 'touch /lustre/ran-$SLURM_JOB_ID-$SLURM_PROCID'; sleep 1`, "--partition=cpu-sev", "--nodes=3")
			eventually(t, 60*time.Second, func() bool { return drained(t, "n2") != "" },
				func() string { return must(t, "n0", "root", "sinfo", "-R") })
			assert.Regexp(t, `^enclave:E2\d\d `, drained(t, "n2"))
			assert.Empty(t, drained(t, "n1"))
			assert.Empty(t, drained(t, "n3"))
			await(t, id, "PENDING")
			why := must(t, "login", "alice", "enclave", "why", id)
			assert.Contains(t, why, "n2")
			assert.Regexp(t, `E2\d\d`, why)
			assert.Regexp(t, `E2\d\d`, must(t, "n0", "root", "enclave", "why", "n2"))
			assert.NotContains(t, must(t, "n1", "root", "ls", "/srv/enclave-fs/lab/proj/digimed"), "ran-"+id)
			assert.Contains(t, adminComment(t, id), "enclave={")

			on(t, "n2", "root", "sh", "-c", "echo '{}' >/run/enclave-tsm.faults")
			resume(t, "n2")
			eventually(t, 60*time.Second, func() bool { return strings.Contains(field(t, id, "AdminComment"), `"v":"simulated"`) },
				func() string { return "the verdict of the second start: " + field(t, id, "AdminComment") })
			await(t, id, "COMPLETED")
			assert.Contains(t, must(t, "n1", "root", "ls", "/srv/enclave-fs/lab/proj/digimed"), "ran-"+id+"-2")
			var report struct {
				Verdict string `json:"verdict"`
				Restart int    `json:"restart"`
			}
			require.NoError(t, json.Unmarshal([]byte(must(t, "login", "alice", "enclave", "report", id, "--json")), &report))
			assert.Equal(t, "simulated", report.Verdict)
			assert.Equal(t, 1, report.Restart)
			idle(t)
		})
	}
}

func TestP5AWrongPolicyDrainsNobody(t *testing.T) {
	idle(t)
	const policy = "/etc/slurm-enclave/policy.d/default.yaml"
	good := must(t, "n0", "root", "cat", policy)
	t.Cleanup(func() {
		onWithInput(t, "n0", "root", good, "sh", "-c", "cat >"+policy)
		require.NoError(t, labCommand("restart", "n0", "enclaved").Run())
		resume(t, "n1", "n2", "n3")
	})
	bad := regexpMeasurement.ReplaceAllString(good, "measurement: "+strings.Repeat("ab", 48))
	require.NotEqual(t, good, bad)
	r := onWithInput(t, "n0", "root", bad, "sh", "-c", "cat >"+policy)
	require.Zero(t, r.status, "%s", r)
	require.NoError(t, labCommand("restart", "n0", "enclaved").Run())

	id := submit(t, "alice", "srun hostname", "--partition=cpu-sev", "--nodes=3")
	eventually(t, 60*time.Second, func() bool {
		return strings.Contains(on(t, "login", "alice", "enclave", "why", id).out, "E53")
	}, func() string { return on(t, "login", "alice", "enclave", "why", id).String() })
	for _, n := range []string{"n1", "n2", "n3"} {
		assert.Empty(t, drained(t, n), n)
	}
	await(t, id, "PENDING") // Slurm forgets a scancel that meets the requeue
	must(t, "n0", "root", "scancel", id)
	await(t, id, "CANCELLED")
	idle(t)
}

func TestP5TheVerifierIsAway(t *testing.T) {
	t.Run("at submit: the job waits, no node is drained, and it runs when it is back", func(t *testing.T) {
		idle(t)
		require.NoError(t, labCommand("stop", "n0", "enclaved").Run())
		id := submit(t, "alice", "srun hostname", "--partition=cpu-sev", "--nodes=3")
		time.Sleep(3 * time.Second)
		assert.NotEqual(t, "COMPLETED", field(t, id, "JobState"))
		require.NoError(t, labCommand("start", "n0", "enclaved").Run())
		await(t, id, "COMPLETED")
		for _, n := range []string{"n1", "n2", "n3"} {
			assert.Empty(t, drained(t, n), n)
		}
		idle(t)
	})
	t.Run("between the barriers: the job is requeued and runs when it is back", func(t *testing.T) {
		idle(t)
		setFault(t, "n3", `{"slow": 8000}`)
		id := submit(t, "alice", "srun hostname", "--partition=cpu-sev", "--nodes=3")
		eventually(t, 30*time.Second, func() bool { return on(t, "n1", "root", "pgrep", "enclave-prolog").status == 0 },
			func() string { return "no prolog on n1" })
		time.Sleep(3 * time.Second) // n1's evidence is there; n3's comes in five more
		require.NoError(t, labCommand("stop", "n0", "enclaved").Run())
		time.Sleep(3 * time.Second)
		on(t, "n3", "root", "sh", "-c", "echo '{}' >/run/enclave-tsm.faults")
		require.NoError(t, labCommand("start", "n0", "enclaved").Run())
		await(t, id, "COMPLETED")
		assert.NotEqual(t, "0", field(t, id, "Restarts"))
		for _, n := range []string{"n1", "n2", "n3"} {
			assert.Empty(t, drained(t, n), n)
		}
		idle(t)
	})
}

func TestP5ScancelDuringABarrierFreesTheNodes(t *testing.T) {
	idle(t)
	setFault(t, "n3", `{"slow": 15000}`)
	id := submit(t, "alice", "srun hostname", "--partition=cpu-sev", "--nodes=3")
	eventually(t, 30*time.Second, func() bool { return on(t, "n1", "root", "pgrep", "enclave-prolog").status == 0 },
		func() string { return "no prolog on n1" })
	time.Sleep(time.Second)
	must(t, "login", "alice", "scancel", id)
	eventually(t, 5*time.Second, func() bool {
		out := must(t, "n0", "root", "sinfo", "-h", "-N", "-n", "n1,n2", "-o", "%T")
		return !strings.Contains(strings.ReplaceAll(out, "idle", ""), "l") // no "alloc", no "completing"
	}, func() string { return must(t, "n0", "root", "sinfo", "-N", "-l") })
	on(t, "n3", "root", "sh", "-c", "echo '{}' >/run/enclave-tsm.faults")
	idle(t)
}

func TestP1AMissingPluginLineOpensNothing(t *testing.T) {
	idle(t)
	const conf = "/etc/slurm/plugstack.conf"
	must(t, "n2", "root", "sh", "-c", "cp "+conf+" /root/plugstack.kept && : >"+conf)
	t.Cleanup(func() {
		on(t, "n2", "root", "sh", "-c", "cp /root/plugstack.kept "+conf)
		resume(t, "n2")
	})
	id := submit(t, "alice", "srun --nodes=2 touch /lustre/ran-$SLURM_JOB_ID", "--partition=cpu-sev", "--nodes=2", "--nodelist=n1,n2")
	eventually(t, 60*time.Second, func() bool { return drained(t, "n2") != "" },
		func() string { return must(t, "n0", "root", "sinfo", "-R") })
	assert.Regexp(t, `^enclave:E21\d `, drained(t, "n2"))
	assert.Empty(t, drained(t, "n1"))
	assert.NotContains(t, must(t, "n1", "root", "ls", "/srv/enclave-fs/lab/proj/digimed"), "ran-"+id)
	assert.NotContains(t, must(t, "n2", "root", "ip", "-o", "link"), "enc"+id)
	// Slurm drains n2 for the failed prolog, too, a moment after us: who resumes it before is told "Prolog error".
	await(t, id, "PENDING")
	must(t, "n0", "root", "scancel", id)
	on(t, "n2", "root", "sh", "-c", "cp /root/plugstack.kept "+conf)
	resume(t, "n2")
	idle(t)
}

var regexpMeasurement = regexp.MustCompile(`measurement: *"?[0-9a-f]{96}"?`)
