//go:build e2e

package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Slurm's daemons are killed and come back while a job is in its prolog, runs, or is in its epilog.
func TestP5SlurmsDaemonsComeBack(t *testing.T) {
	idle(t)
	restart := func(host, daemon string) { require.NoError(t, labCommand("restart", host, daemon).Run()) }
	over := func(t *testing.T, id string) {
		t.Helper()
		await(t, id, "COMPLETED")
		idle(t)
		assert.Equal(t, "simulated", verdict(t, id))
		assert.NotContains(t, must(t, "n0", "root", "sinfo", "-h", "-R"), "enclave", "no node is drained")
	}
	t.Run("slurmctld while the job is in its prolog", func(t *testing.T) {
		setFault(t, "n2", `{"slow": 3000}`)
		id := submit(t, "alice", "srun true", "-p", "cpu-sev", "-N", "2", "-w", "n1,n2")
		eventually(t, 20*time.Second, func() bool { return on(t, "n1", "root", "pgrep", "enclave-prolog").status == 0 }, func() string { return "no prolog on n1" })
		restart("n0", "slurmctld")
		over(t, id)
	})
	t.Run("slurmctld and slurmd while the job runs: the keeper stays", func(t *testing.T) {
		id := submit(t, "alice", "srun -N2 sh -c 'sleep 8; echo lives'", "-p", "cpu-sev", "-N", "2", "-w", "n1,n2")
		started(t, id, "alice", "n2")
		keeper := must(t, "n2", "root", "pgrep", "-x", "enclave-keeper")
		restart("n2", "slurmd")
		restart("n0", "slurmctld")
		assert.Equal(t, keeper, must(t, "n2", "root", "pgrep", "-x", "enclave-keeper"))
		over(t, id)
		assert.Equal(t, 2, strings.Count(output(t, "alice", id), "lives"))
	})
	t.Run("slurmctld while the job is in its epilog", func(t *testing.T) {
		id := submit(t, "alice", "true", "-p", "cpu-sev", "-N", "3")
		eventually(t, 60*time.Second, func() bool {
			return field(t, id, "JobState") == "COMPLETING" || field(t, id, "JobState") == "COMPLETED"
		},
			func() string { return must(t, "n0", "root", "squeue") })
		restart("n0", "slurmctld")
		over(t, id)
	})
}
