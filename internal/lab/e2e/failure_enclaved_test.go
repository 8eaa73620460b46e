//go:build e2e && failures

package e2e_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// enclaved is killed and comes back at once, or after a while.
func TestFailuresOfEnclaved(t *testing.T) {
	f := newFailures(t, "enclaved")
	for _, at := range points() {
		p := promise{job: "COMPLETED", starts: "simulated"}
		if at.name == "in the prolog" {
			p.starts = "refused E[0-9]+; simulated"
		}
		f.row(t, "enclaved is killed and comes back, "+at.name, p, func(t *testing.T) string {
			id, goOn := at.at(t)
			anew(t, "n0", "enclaved", "KILL")
			goOn()
			return id
		})
		f.row(t, "enclaved is away for 8 s, "+at.name, p, func(t *testing.T) string {
			id, goOn := at.at(t)
			send(t, "n0", "enclaved", "KILL")
			goOn()
			time.Sleep(8 * time.Second)
			begin(t, "n0", "enclaved")
			return id
		})
	}
	f.row(t, "enclaved is away at registration", promise{job: "COMPLETED", starts: "simulated"}, func(t *testing.T) string {
		send(t, "n0", "enclaved", "KILL")
		id := submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3")
		time.Sleep(3 * time.Second)
		begin(t, "n0", "enclaved")
		return id
	})
}

// enclaved stands still: whoever waits for it gives up long before Slurm's patience ends, and nobody is
// drained.
func TestFailuresOfAnEnclavedThatStandsStill(t *testing.T) {
	f := newFailures(t, "enclaved stands still")
	freeze := func(t *testing.T) {
		t.Helper()
		send(t, "n0", "enclaved", "STOP")
		t.Cleanup(func() { send(t, "n0", "enclaved", "CONT") })
	}
	for _, c := range []struct {
		name, starts string
		at           func(t *testing.T) (string, func())
		long         time.Duration
	}{
		{"for 8 s, in the prolog", "simulated", inProlog, 8 * time.Second},
		{"for 8 s, while the job runs", "simulated", inJob, 8 * time.Second},
		{"for 8 s, in the epilog", "simulated", inEpilog, 8 * time.Second},
		{"for 50 s, in the prolog", "refused E[0-9]+; simulated", inProlog, 50 * time.Second},
		{"for 70 s, in the epilog", "simulated", inEpilog, 70 * time.Second},
	} {
		f.row(t, "enclaved stands still "+c.name, promise{job: "COMPLETED", starts: c.starts}, func(t *testing.T) string {
			id, goOn := c.at(t)
			freeze(t)
			goOn()
			time.Sleep(c.long)
			send(t, "n0", "enclaved", "CONT")
			return id
		})
	}
	f.row(t, "enclaved stands still for longer than the grace period, while the job runs", promise{job: "CANCELLED", starts: "refused E531"}, func(t *testing.T) string {
		id, _ := inJob(t)
		freeze(t)
		for _, n := range enclaveNodes() {
			eventually(t, 60*time.Second, func() bool { return !goFile(t, n, id) }, func() string { return n + " is still open" })
		}
		send(t, "n0", "enclaved", "CONT")
		return id
	})
	f.row(t, "enclaved stands still for 25 s, at registration", promise{job: "COMPLETED", starts: "(refused E[0-9]+; )?simulated"}, func(t *testing.T) string {
		freeze(t)
		id := submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3")
		time.Sleep(25 * time.Second)
		send(t, "n0", "enclaved", "CONT")
		return id
	})
	f.row(t, "enclaved stands still when a refused job is to be put back", promise{job: "COMPLETED", starts: "refused E[0-9]+; simulated"}, func(t *testing.T) string {
		h := holdNext(t, "n2", "enclave-epilog")
		id, goOn := inProlog(t)
		require.NoError(t, labCommand("restart", "n0", "enclaved").Run()) // this start is lost
		goOn()
		h.held()
		freeze(t)
		h.goOn()
		await(t, id, "PENDING")
		send(t, "n0", "enclaved", "CONT")
		return id
	})
}
