//go:build e2e

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// urgent is a second enclave partition, of the same nodes, whose jobs preempt those of the first.
const urgent = "cpu-sev-urgent"

// edit runs a script for sed on a file of a host; the test's end takes it back.
func edit(t *testing.T, host, path, script string) {
	t.Helper()
	good := must(t, host, "root", "cat", path)
	t.Cleanup(func() { onWithInput(t, host, "root", good, "sh", "-c", "cat >"+path) })
	must(t, host, "root", "sed", "-i", script, path)
}

// restartSlurmctld ends it in order, with all that it knows on the disk, and starts it again.
func restartSlurmctld(t *testing.T) {
	t.Helper()
	must(t, "n0", "root", "scontrol", "shutdown", "slurmctld")
	eventually(t, 30*time.Second, func() bool { return labCommand("start", "n0", "slurmctld").Run() == nil },
		func() string { return on(t, "n0", "root", "ps", "ax").String() })
	eventually(t, 30*time.Second, func() bool { return strings.Contains(on(t, "n0", "root", "scontrol", "ping").out, " is UP") },
		func() string { return on(t, "n0", "root", "tail", "/var/log/enclave-lab/slurmctld.log").String() })
}

// letPreempt makes a site that does what doctor advises against: enclaves may be preempted.
func letPreempt(t *testing.T) {
	t.Helper()
	idle(t)
	t.Cleanup(func() { // the last to run: enclaved starts only where all files name the same partitions
		assert.NoError(t, labCommand("restart", "n0", "enclaved").Run())
		restartSlurmctld(t)
		idle(t)
	})
	for _, host := range []string{"n1", "n2", "n3"} {
		edit(t, host, "/etc/slurm-enclave/enclave.yaml", "s/^partitions:.*/partitions: [cpu-sev, "+urgent+"]/")
	}
	edit(t, "n0", "/etc/slurm-enclave/tenants.yaml", "1i partitions: [cpu-sev, "+urgent+"]")
	reconfigure(t, "s/^partitions:.*/partitions: [cpu-sev, "+urgent+"]/")
	for _, wrapper := range []string{"prolog-slurmctld", "epilog-slurmctld"} {
		edit(t, "n0", "/etc/slurm-enclave/"+wrapper, "s/--partition cpu-sev/& --partition "+urgent+"/")
	}
	edit(t, "n0", "/etc/slurm/slurm.conf.d/partition.conf", "/^PartitionName=cpu-sev/{p;s/cpu-sev/"+urgent+"/;s/$/ PriorityTier=9/}")
	edit(t, "n0", "/etc/slurm/slurm.conf", `$a PreemptType=preempt/partition_prio\nPreemptMode=SUSPEND,GANG`)
	restartSlurmctld(t)
}

// preempt lets a job of bob's take the nodes of one of alice's, which ends by itself when it is told to.
func preempt(t *testing.T, mode, script string) (low, high string) {
	t.Helper()
	must(t, "n0", "root", "scontrol", "update", "PartitionName=cpu-sev", "PreemptMode="+mode)
	low = submit(t, "alice", script, "-p", "cpu-sev", "-N", "2", "-w", "n1,n2", "--requeue", "--open-mode=append")
	started(t, low, "alice", "n1")
	high = submit(t, "bob", "srun printenv ENCLAVE_VERDICT", "-p", urgent, "-N", "2", "-w", "n1,n2", "--chdir=/home/bob")
	return low, high
}

func TestAnEnclaveThatPreemptsAnother(t *testing.T) {
	letPreempt(t)
	t.Run("and has it requeued: both run, each in an enclave of its own", func(t *testing.T) {
		low, high := preempt(t, "REQUEUE", `echo $ENCLAVE_JOB; test "$SLURM_RESTART_COUNT" || sleep 90`)
		await(t, high, "COMPLETED")
		assert.Equal(t, "simulated\nsimulated\n", output(t, "bob", high))
		eventually(t, 90*time.Second, func() bool {
			on(t, "n0", "root", "scontrol", "update", "JobId="+low, "Nice=0") // slurmctld looks at the queue now, not once a minute
			time.Sleep(time.Second)
			return field(t, low, "JobState") == "COMPLETED"
		}, func() string { return must(t, "n0", "root", "scontrol", "show", "job", low) })
		assert.Regexp(t, `^`+low+`\.0\n(?s:.*)\n`+low+`\.1\n$`, output(t, "alice", low))
		idle(t)
		for _, restart := range []string{"0", "1"} {
			assert.Equal(t, "simulated", verdict(t, low, "--restart", restart))
		}
		assert.Equal(t, "simulated", verdict(t, high))
	})
	t.Run("and has it cancelled: nothing of it is left for the other to find", func(t *testing.T) {
		low, high := preempt(t, "CANCEL", "echo secret >/tmp/mine; srun -N2 sleep 90")
		await(t, high, "COMPLETED")
		assert.Equal(t, "PREEMPTED", await(t, low, "PREEMPTED"))
		idle(t)
		assert.Equal(t, "simulated", verdict(t, low))
		assert.Equal(t, "simulated", verdict(t, high))
		lines := acctOf(t, "alice", low)
		require.Len(t, lines, 1)
		assert.Equal(t, "simulated", lines[0].Verdict)
	})
	t.Run("and may suspend it: it is not let in beside it", func(t *testing.T) {
		low, high := preempt(t, "SUSPEND", "srun -N2 sh -c 'sleep 5; echo $(hostname) lives'")
		seen := ""
		eventually(t, 120*time.Second, func() bool {
			state := field(t, low, "JobState") + " " + field(t, high, "JobState")
			if !strings.HasSuffix(seen, state+"\n") {
				seen += state + "\n"
			}
			return strings.HasPrefix(state, "COMPLETED ")
		}, func() string { return fmt.Sprint(seen, must(t, "n0", "root", "scontrol", "show", "job", high)) })
		assert.Equal(t, 2, strings.Count(output(t, "alice", low), "lives"), "the suspended one goes on: %s", seen)
		assert.NotContains(t, seen, "SUSPENDED", "Slurm suspends no job that has its nodes for itself; where an operator does: TestNoSecondJobLandsOnASuspendedEnclave")
		await(t, high, "COMPLETED")
		assert.Equal(t, "simulated", verdict(t, low))
		assert.NotContains(t, must(t, "n0", "root", "sinfo", "-h", "-R"), "enclave", "no node was drained")
		idle(t)
	})
}
