//go:build e2e

package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// as runs a program as a user whose home is not seen on the node, for another user's job is there.
func as(t *testing.T, node, uid string, argv ...string) result {
	t.Helper()
	return on(t, node, "root", append([]string{"setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"}, argv...)...)
}

const aliceID, bobID = "2001", "2002"

// partition changes a partition of slurmctld's until the test's end.
func partition(t *testing.T, name, now, before string) {
	t.Helper()
	must(t, "n0", "root", "scontrol", "update", "PartitionName="+name, now)
	t.Cleanup(func() { must(t, "n0", "root", "scontrol", "update", "PartitionName="+name, before) })
}

// A site that forgets OverSubscribe=EXCLUSIVE has Slurm put two jobs on one node. The fence tells
// users apart by uid, so the second job is refused there, and the first goes on untouched.
func TestANodeIsOneJobsAtATime(t *testing.T) {
	idle(t)
	partition(t, "cpu-sev", "OverSubscribe=FORCE:2", "OverSubscribe=EXCLUSIVE")
	small := []string{"--partition=cpu-sev", "--nodes=1", "--ntasks=1", "--cpus-per-task=1", "--mem=64", "--nodelist=n1"}
	first := submit(t, "alice", "while sleep 1; do echo here >/lustre/here; done", small...)
	t.Cleanup(func() { on(t, "n0", "root", "scancel", first) })
	started(t, first, "alice", "n1")
	before := must(t, "n1", "root", "nft", "list", "tables")
	for _, user := range []string{"alice", "bob"} {
		t.Run("a second job of "+user+"'s is refused", func(t *testing.T) {
			id := submit(t, user, "touch /lustre/ran-$SLURM_JOB_ID", small...)
			t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
			eventually(t, 60*time.Second, func() bool {
				return strings.Contains(on(t, "n0", "root", "enclave", "why", id).String(), "E206")
			}, func() string {
				return on(t, "n0", "root", "enclave", "why", id).String() + must(t, "n0", "root", "squeue", "-o", "%i %T %r %h")
			})
			// Slurm forgets a scancel that meets a job on its way back into the queue, or that is being launched.
			eventually(t, 60*time.Second, func() bool { return field(t, id, "JobState") == "PENDING" && field(t, id, "Restarts") != "0" },
				func() string { return must(t, "n0", "root", "scontrol", "show", "job", id) })
			must(t, "n0", "root", "scancel", id)
			await(t, id, "CANCELLED")
			assert.NotContains(t, on(t, "n1", "root", "sh", "-c", "ls /srv/enclave-fs/lab/proj/*").out, "ran-"+id)
		})
	}
	assert.Equal(t, "RUNNING", field(t, first, "JobState"))
	assert.Equal(t, before, must(t, "n1", "root", "nft", "list", "tables"), "the first job's fence stands")
	must(t, "n1", "root", "rm", "-f", tenantTree+"/here")
	eventually(t, 10*time.Second, func() bool { return on(t, "n1", "root", "test", "-e", tenantTree+"/here").status == 0 },
		func() string { return "the first job does not write into its view any more" })
	assert.Empty(t, drained(t, "n1"))
	must(t, "n0", "root", "scancel", first)
	idle(t)
	must(t, "n1", "root", "rm", tenantTree+"/here")
}

// An enclave's node that a site has given to another partition, too, takes no ordinary job.
func TestAnOrdinaryJobIsRefusedOnAnEnclavesNode(t *testing.T) {
	idle(t)
	nodes := strings.TrimSpace(must(t, "n0", "root", "sinfo", "-h", "-p", "cpu", "-o", "%N"))
	partition(t, "cpu", "Nodes="+nodes+",n1", "Nodes="+nodes)
	id := submit(t, "bob", "echo RAN", "--partition=cpu", "--nodes=1", "--nodelist=n1")
	await(t, id, "FAILED", "COMPLETED", "CANCELLED", "NODE_FAIL")
	out := output(t, "bob", id)
	assert.Contains(t, out, "E120")
	assert.NotContains(t, out, "RAN")
	assert.Empty(t, drained(t, "n1"))
	t.Run("elsewhere the same job runs", func(t *testing.T) {
		id := submit(t, "bob", "echo RAN", "--partition=cpu", "--nodes=1", "--exclude=n1")
		await(t, id, "COMPLETED")
		assert.Contains(t, output(t, "bob", id), "RAN")
	})
	idle(t)
}

// What the fence can tell apart by user id, and what it can't: the reason for the two tests above.
func TestTheFenceKnowsUsersAndNotJobs(t *testing.T) {
	idle(t)
	id := sleeper(t, "alice", "n1,n2")
	background(t, "n2", "alice", "perl", "-e", tcpServer, "7711")
	ask := func(uid string) string {
		return as(t, "n1", uid, "perl", "-e", talk, address(t, "n2"), "7711", "HELLO").String()
	}
	t.Run("another user's packets do not enter the job's tunnel", func(t *testing.T) {
		assert.Contains(t, ask(bobID), "refused")
	})
	t.Run("the same user's do, whatever started the process", func(t *testing.T) {
		assert.Contains(t, ask(aliceID), "ANSWER-HELLO")
	})
	const look = `for p in $(pgrep -u alice); do tr '\0' '\n' </proc/$p/environ; done 2>/dev/null | grep -x ENCLAVE_JOB=.*`
	t.Run("another user sees nothing of the job's processes", func(t *testing.T) {
		assert.NotContains(t, as(t, "n1", bobID, "sh", "-c", look).out, "ENCLAVE_JOB")
	})
	t.Run("the same user sees all of them", func(t *testing.T) {
		assert.Contains(t, as(t, "n1", aliceID, "sh", "-c", look).out, "ENCLAVE_JOB="+id+".0")
	})
	must(t, "n0", "root", "scancel", id)
	idle(t)
}
