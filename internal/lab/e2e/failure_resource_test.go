//go:build e2e

package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Some rows of what a job meets when something runs out, or comes in another order; `make failures` makes
// them all.
func TestP5FailuresOfResources(t *testing.T) {
	f := newFailures(t, "resources, some")
	f.row(t, "/run of a node is full, before the prolog", noSpace("n2"), func(t *testing.T) string {
		free := fill(t, "n2", "/run")
		id := submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3")
		awaitDrain(t, "n2")
		free()
		return id
	})
	f.row(t, "/run of a node is full, before the epilog", promise{job: "COMPLETED", starts: "simulated"}, func(t *testing.T) string {
		id, goOn := inJob(t)
		free := fill(t, "n2", "/run")
		goOn()
		await(t, id, "COMPLETED")
		idle(t)
		free()
		return id
	})
	f.row(t, "the disk of the ledger is full, from the middle of one job on, and another is submitted", promise{job: "COMPLETED", starts: "simulated"}, func(t *testing.T) string {
		smallState(t)
		before := fullLedger(t)
		other := submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3")
		before.end(t)
		time.Sleep(5 * time.Second)
		assert.NotEqual(t, "COMPLETED", field(t, other, "JobState"), "it waits")
		before.free()
		await(t, other, "COMPLETED")
		before.whole(t)
		return other
	})
	f.row(t, "the epilog runs before the prolog, and again after the epilog", promise{job: "COMPLETED", starts: "simulated"}, func(t *testing.T) string {
		id := submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3", "--hold")
		j := script{job: id, nodes: "n[1-3]"}
		assert.Zero(t, j.run(t, "n2", "epilog").status)
		must(t, "n0", "root", "scontrol", "release", id)
		await(t, id, "COMPLETED")
		idle(t)
		assert.Zero(t, j.run(t, "n2", "epilog").status)
		return id
	})
}

// noSpace is what a node gets whose /run is full when a prolog needs it: that is the node's fault.
func noSpace(node string) promise {
	return promise{
		job: "COMPLETED", starts: "refused E[0-9]+; simulated", meets: "PENDING",
		drained: map[string]string{node: `^enclave:E[0-9]+ .*no space left on device`},
	}
}

// awaitDrain waits until a node is drained, as an admin does who then mends it.
func awaitDrain(t *testing.T, node string) {
	t.Helper()
	eventually(t, 60*time.Second, func() bool { return drained(t, node) != "" }, func() string { return must(t, "n0", "root", "sinfo", "-R") })
}

// fill leaves no space on a tmpfs, until the test ends or what it gives is called.
func fill(t *testing.T, host, path string) (free func()) {
	t.Helper()
	must(t, host, "root", "sh", "-c", fmt.Sprintf(`mount -o remount,size=$(($(df -k --output=used %[1]s | tail -n 1) + 64))k %[1]s; dd if=/dev/zero of=%[1]s/filler bs=4k 2>/dev/null; true`, path))
	control := on(t, host, "root", "sh", "-c", "echo space | cat >"+path+"/probe")
	free = func() {
		on(t, host, "root", "sh", "-c", fmt.Sprintf("rm -f %[1]s/filler %[1]s/probe; mount -o remount,size=25%% %[1]s", path))
	}
	t.Cleanup(free)
	require.Contains(t, control.errOut, "No space left on device")
	return free
}

const stateDir = "/var/lib/slurm-enclave"

// smallState puts enclaved's state on a file system of its own until the test ends.
func smallState(t *testing.T) {
	t.Helper()
	move := func(script string) {
		require.NoError(t, labCommand("stop", "n0", "enclaved").Run())
		r := on(t, "n0", "root", "sh", "-ec", "d="+stateDir+"; k=/root/state-kept; rm -rf $k; cp -a $d $k\n"+script)
		assert.Zero(t, r.status, "%s", r)
		require.NoError(t, labCommand("start", "n0", "enclaved").Run())
		eventually(t, 30*time.Second, func() bool { return on(t, "n0", "root", "enclave", "jobs").status == 0 }, func() string { return "enclaved does not answer" })
	}
	move("mount -t tmpfs -o mode=755 tmpfs $d; chown enclave:enclave $d; cp -a $k/. $d/")
	t.Cleanup(func() {
		move("n=0; until umount $d; do n=$((n + 1)); [ $n -lt 50 ]; sleep 0.1; done; find $d -mindepth 1 -delete; cp -a $k/. $d/; rm -rf $k; rm -f $d/filler $d/probe")
	})
}

// midway is a job of alice's in whose middle the ledger's disk became full.
type midway struct {
	id   string
	goOn func()
	free func()
}

// fullLedger has a job on all nodes, and then leaves no space beside the ledger.
func fullLedger(t *testing.T) midway {
	t.Helper()
	m := midway{}
	m.id, m.goOn = inJob(t)
	m.free = fill(t, "n0", stateDir)
	return m
}

// end lets the job end while there is no space.
func (m midway) end(t *testing.T) {
	t.Helper()
	m.goOn()
	await(t, m.id, "COMPLETED")
	assert.NotZero(t, on(t, "n0", "root", "enclave", "receipt", "export", m.id).status, "there is no receipt yet")
}

// whole waits for the job's receipt, which has the last word of every node.
func (m midway) whole(t *testing.T) {
	t.Helper()
	file := ""
	eventually(t, 30*time.Second, func() bool { file = on(t, "n0", "root", "enclave", "receipt", "export", m.id).out; return file != "" },
		func() string { return on(t, "n0", "root", "enclave", "receipt", "export", m.id).String() })
	r := onWithInput(t, "login", "root", file, "unshare", "-n", "enclave", "--config", "/nonexistent", "receipt", "verify", "--allow-simulated", "/dev/stdin")
	assert.Zero(t, r.status, "%s", r)
	assert.Contains(t, r.out, "closed again")
	assert.NotContains(t, r.out, "no report", "all nodes have told")
}

// script calls prolog or epilog of a job of alice's by hand, as slurmd does.
type script struct {
	job, nodes string
	restart    int
}

// environment is what Slurm 22.05 gives a script on a node, and nothing else.
func (s script) environment(node, which string) []string {
	env := []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SLURM_CLUSTER_NAME=lab", "SLURM_SCRIPT_CONTEXT=" + which + "_slurmd", "SLURM_CONF=/etc/slurm/slurm.conf",
		"SLURM_JOB_ID=" + s.job, "SLURM_JOBID=" + s.job, "SLURM_JOB_UID=2001", "SLURM_JOB_GID=2001", "SLURM_UID=2001", "SLURM_JOB_USER=alice",
		"SLURM_JOB_PARTITION=cpu-sev", "SLURM_NODELIST=" + s.nodes, "SLURMD_NODENAME=" + node, fmt.Sprintf("SLURM_JOB_RESTART_COUNT=%d", s.restart),
	}
	if which == "epilog" {
		env = append(env, "SLURM_JOB_EXIT_CODE=0", "SLURM_JOB_EXIT_CODE2=0:0", "SLURM_JOB_DERIVED_EC=0")
	}
	return env
}

func (s script) command(node, which string) []string {
	return append(append([]string{"env", "-i", "--chdir=/tmp"}, s.environment(node, which)...), libexec+"enclave-"+which)
}

func (s script) run(t *testing.T, node, which string) result {
	t.Helper()
	return on(t, node, "root", s.command(node, which)...)
}

const libexec = "/usr/libexec/slurm-enclave/"
