//go:build e2e && failures

package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// slurmctld is restarted. What it had saved goes on.
func TestFailuresOfSlurmctld(t *testing.T) {
	f := newFailures(t, "slurmctld")
	fine := promise{job: "COMPLETED", starts: "simulated"}
	for _, at := range points() {
		f.row(t, "slurmctld ends and comes back, "+at.name, fine, func(t *testing.T) string {
			id, goOn := at.at(t)
			anew(t, "n0", "slurmctld", "TERM")
			goOn()
			return id
		})
		f.row(t, "slurmctld is killed and comes back, "+at.name, fine, func(t *testing.T) string {
			id, goOn := at.at(t)
			saved(t)
			anew(t, "n0", "slurmctld", "KILL")
			goOn()
			return id
		})
		f.row(t, "slurmctld is away for 10 s, "+at.name, fine, func(t *testing.T) string {
			id, goOn := at.at(t)
			send(t, "n0", "slurmctld", "TERM")
			goOn()
			time.Sleep(10 * time.Second)
			begin(t, "n0", "slurmctld")
			return id
		})
	}
}

const stateSave = "/var/spool/slurmctld"

// slurmctld is killed before it has saved anything of the job: nobody knows it any more but we.
func TestFailuresOfASlurmctldThatForgets(t *testing.T) {
	f := newFailures(t, "slurmctld forgets")
	firsts := []string{"refused E503", "simulated|refused E531", "simulated"}
	for i, at := range points() {
		// The next job gets the number of the one that is forgotten, and is put back once for that.
		p := promise{job: "COMPLETED", starts: "(" + firsts[i] + ")(; refused E[0-9]+)?; simulated"}
		f.row(t, "slurmctld is killed and forgets the job, "+at.name, p, func(t *testing.T) string {
			remember(t)
			id, goOn := at.at(t)
			forget(t)
			goOn()
			require.Empty(t, field(t, id, "JobState"), "the control: slurmctld does not know the job")
			next := submit(t, "bob", "srun hostname", "--partition=cpu-sev", "--nodes=3", "--chdir=/home/bob")
			require.Equal(t, id, next, "the control: it is the same number")
			return id
		})
	}
	f.row(t, "slurmctld is killed and forgets the job that runs, and no other gets its nodes", promise{job: "COMPLETED", starts: firsts[1]}, func(t *testing.T) string {
		remember(t)
		id, _ := inJob(t)
		forget(t)
		// Slurm has its nodes abort it, as if it were root's and in no partition.
		for _, n := range enclaveNodes() {
			eventually(t, 90*time.Second, func() bool {
				return journals(t, n) == "" && on(t, n, "root", "pgrep", "-x", "enclave-keeper").status == 1
			},
				func() string { return n + " has " + journals(t, n) })
			assert.Empty(t, on(t, n, "root", "pgrep", "-u", "alice").out)
		}
		require.Equal(t, id, submit(t, "alice", "true", "--partition=cpu"), "the control: slurmctld does not know the job")
		next := submit(t, "bob", "srun hostname", "--partition=cpu-sev", "--nodes=3", "--chdir=/home/bob")
		await(t, next, "COMPLETED")
		assert.Equal(t, "0", field(t, next, "Restarts"), "nothing is in its way")
		return id
	})
}

// remember has slurmctld save what it knows, and keeps that for forget.
func remember(t *testing.T) {
	t.Helper()
	await(t, submit(t, "alice", "true", "--partition=cpu-sev"), "COMPLETED")
	idle(t)
	anew(t, "n0", "slurmctld", "TERM")
	must(t, "n0", "root", "sh", "-c", "rm -rf /root/before && cp -a "+stateSave+" /root/before")
}

// forget kills slurmctld and starts it with what it had saved before the job.
func forget(t *testing.T) {
	t.Helper()
	send(t, "n0", "slurmctld", "KILL")
	eventually(t, 20*time.Second, func() bool { return daemonOf(t, "n0", "slurmctld").End != "" }, func() string { return "slurmctld does not end" })
	must(t, "n0", "root", "sh", "-c", "rm -rf "+stateSave+" && mv /root/before "+stateSave)
	begin(t, "n0", "slurmctld")
	eventually(t, 30*time.Second, func() bool { return strings.Contains(on(t, "n0", "root", "scontrol", "ping").out, "is UP") }, func() string { return "slurmctld does not answer" })
}

// slurmd is restarted on one node: keeper and job do not notice.
func TestFailuresOfSlurmd(t *testing.T) {
	f := newFailures(t, "slurmd")
	for _, at := range points() {
		for _, signal := range []string{"TERM", "KILL"} {
			word := map[string]string{"TERM": "ends", "KILL": "is killed"}[signal]
			f.row(t, "slurmd "+word+" and comes back, "+at.name, promise{job: "COMPLETED", starts: "simulated"}, func(t *testing.T) string {
				id, goOn := at.at(t)
				send(t, "n2", "slurmd", signal)
				if signal == "TERM" { // it waits for its prologs and epilogs
					goOn()
				}
				if at.name == "while the job runs" {
					keeperStays(t, func() { begin(t, "n2", "slurmd") })
				} else {
					begin(t, "n2", "slurmd")
				}
				goOn()
				return id
			})
		}
	}
}

// A prolog whose slurmd was killed goes on, and nobody waits for it. It must not open what the job's epilog has
// closed.
func TestFailuresOfAProlog(t *testing.T) {
	f := newFailures(t, "prologs and epilogs that nobody waits for")
	f.row(t, "slurmd is killed while a prolog stands still, and the job cancelled", promise{job: "CANCELLED", starts: "refused E503"}, func(t *testing.T) string {
		h := holdNext(t, "n2", "enclave-prolog")
		id := submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3")
		h.held()
		anew(t, "n2", "slurmd", "KILL")
		must(t, "n0", "root", "scancel", id)
		await(t, id, "CANCELLED")
		h.goOn()
		time.Sleep(5 * time.Second) // in which it would open an enclave
		return id
	})
}

// munged is away for ten seconds.
func TestFailuresOfMunge(t *testing.T) {
	f := newFailures(t, "munge")
	fine := promise{job: "COMPLETED", starts: "simulated"}
	away := func(t *testing.T, host string, during func()) {
		t.Helper()
		send(t, host, "munged", "TERM")
		during()
		time.Sleep(10 * time.Second)
		begin(t, host, "munged")
	}
	for _, host := range []string{"n2", "n0"} {
		where := map[string]string{"n2": "on a node", "n0": "on the controller"}[host]
		for _, at := range points() {
			f.row(t, "munged is away "+where+", "+at.name, fine, func(t *testing.T) string {
				id, goOn := at.at(t)
				away(t, host, goOn)
				return id
			})
		}
	}
	unheard := promise{job: "COMPLETED", starts: "(refused E510; )?simulated"} // its prolog was not asked for
	f.row(t, "munged is away on a node, at submit", unheard, func(t *testing.T) (id string) {
		away(t, "n2", func() { id = submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3") })
		return id
	})
	f.row(t, "munged is away on the controller, at submit", promise{}, func(t *testing.T) string {
		away(t, "n0", func() {
			r := on(t, "login", "alice", "sbatch", "--partition=cpu-sev", "--wrap=true")
			assert.NotZero(t, r.status)
			assert.Contains(t, r.errOut, "sbatch: error: ", "the user is told: %s", r)
			r = on(t, "login", "alice", "enclave", "jobs")
			assert.NotZero(t, r.status, "%s", r)
		})
		return ""
	})
}
