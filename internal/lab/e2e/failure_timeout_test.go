//go:build e2e && failures

package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// impatient gives n2's slurmd so many seconds of PrologEpilogTimeout until the test's end.
func impatient(t *testing.T, seconds string) {
	t.Helper()
	const conf = "/etc/slurm/slurm.conf.d/enclave.conf"
	good := must(t, "n2", "root", "cat", conf)
	t.Cleanup(func() {
		onWithInput(t, "n2", "root", good, "sh", "-c", "cat >"+conf)
		require.NoError(t, labCommand("restart", "n2", "slurmd").Run())
	})
	must(t, "n2", "root", "sed", "-i", "s/^PrologEpilogTimeout=.*/PrologEpilogTimeout="+seconds+"/", conf)
	require.NoError(t, labCommand("restart", "n2", "slurmd").Run())
	idle(t)
}

// Slurm kills a prolog or epilog that takes longer than PrologEpilogTimeout, and can't know better than
// to drain its node.
func TestFailuresOfTime(t *testing.T) {
	f := newFailures(t, "PrologEpilogTimeout")
	drained := map[string]string{"n2": "^Prolog error"}
	f.row(t, "a prolog stands still for longer than PrologEpilogTimeout", promise{job: "COMPLETED", starts: "refused E[0-9]+; simulated", drained: drained, meets: "PENDING"}, func(t *testing.T) string {
		impatient(t, "6")
		h := holdNext(t, "n2", "enclave-prolog")
		id := submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3")
		h.held()
		return id
	})
	drained = map[string]string{"n2": "^Epilog error"}
	f.row(t, "an epilog stands still for longer than PrologEpilogTimeout", promise{job: "COMPLETED", starts: "simulated", drained: drained, mends: true}, func(t *testing.T) string {
		impatient(t, "6")
		h := holdNext(t, "n2", "enclave-epilog")
		id := submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3")
		h.held()
		return id
	})
}
