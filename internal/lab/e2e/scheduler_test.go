//go:build e2e

package e2e_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What slurmctld alone decides about: a job that names no partition, and one whose nodes are to change.
func TestTheSchedulerKeepsNoWayAroundTheRules(t *testing.T) {
	t.Run("an enclave partition that is the default has all its rules", func(t *testing.T) {
		must(t, "n0", "root", "scontrol", "update", "PartitionName=cpu-sev", "Default=YES")
		t.Cleanup(func() { must(t, "n0", "root", "scontrol", "update", "PartitionName=cpu", "Default=YES") })
		assert.Contains(t, refused(t, "carol", "hostname"), "E102")
		r := on(t, "login", "alice", "sbatch", "--wrap=hostname", ":", "--wrap=hostname")
		assert.NotZero(t, r.status, "%s", r)
		assert.Contains(t, r.errOut, "E105")
		id := submit(t, "alice", "sleep 300", "--hold")
		t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
		assert.Equal(t, "cpu-sev", field(t, id, "Partition"))
		assert.Equal(t, "1", field(t, id, "Requeue"))
		assert.Contains(t, must(t, "n0", "root", "squeue", "-h", "-j", id, "-O", "admin_comment:|"), "pending")
		outside := submit(t, "carol", "hostname", "--partition=cpu", "--hold")
		on(t, "n0", "root", "scancel", outside)
	})
	t.Run("a heterogeneous job that no job_submit has seen fails when it is registered", func(t *testing.T) {
		const rules = "/etc/slurm/job_submit.lua"
		must(t, "n0", "root", "cp", "-a", rules, rules+".kept")
		t.Cleanup(func() { must(t, "n0", "root", "sh", "-c", "mv "+rules+".kept "+rules+" && touch "+rules); idle(t) })
		must(t, "n0", "root", "sh", "-c", "printf 'function slurm_job_submit() return slurm.SUCCESS end\nfunction slurm_job_modify() return slurm.SUCCESS end\n' >"+rules)
		id := strings.TrimSpace(must(t, "login", "alice", "sbatch", "--parsable", "--partition=cpu-sev", "--wrap=srun hostname", ":", "--partition=cpu-sev"))
		await(t, id, "FAILED")
		assert.Contains(t, on(t, "login", "alice", "enclave", "why", id).String(), "E105")
		assert.NotContains(t, on(t, "login", "alice", "cat", "slurm-"+id+".out").out, "\nn")
	})
	t.Run("a job that runs gives none of its nodes back", func(t *testing.T) {
		id := submit(t, "alice", "sleep 300", "--partition=cpu-sev", "--nodes=2-3")
		t.Cleanup(func() {
			on(t, "n0", "root", "scancel", id)
			idle(t)
		})
		await(t, id, "RUNNING")
		require.Equal(t, "3", field(t, id, "NumNodes"))
		for _, user := range []string{"alice", "root"} {
			for _, change := range []string{"NumNodes=2", "NumNodes=2-2", "NodeList=" + field(t, id, "BatchHost")} {
				r := on(t, "n0", user, "scontrol", "update", "JobId="+id, change)
				assert.NotZero(t, r.status, "%s %s: %s", user, change, r)
				assert.Equal(t, "3", field(t, id, "NumNodes"), "%s %s", user, change)
			}
		}
	})
}
