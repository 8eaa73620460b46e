//go:build e2e

package e2e_test

import (
	"testing"
	"time"
)

// Some rows of the failure table, of those that take seconds; `make failures` makes them all.
func TestP5FailuresOfDaemons(t *testing.T) {
	f := newFailures(t, "some")
	fine := promise{job: "COMPLETED", starts: "simulated"}
	f.row(t, "slurmd is killed and comes back, while the job runs", fine, func(t *testing.T) string {
		id, goOn := inJob(t)
		keeperStays(t, func() { anew(t, "n2", "slurmd", "KILL") })
		goOn()
		return id
	})
	f.row(t, "slurmd is killed in the prolog, and the job cancelled", promise{job: "CANCELLED", starts: "refused E503"}, func(t *testing.T) string {
		id, goOn := inProlog(t)
		anew(t, "n2", "slurmd", "KILL")
		must(t, "n0", "root", "scancel", id)
		goOn()
		return id
	})
	f.row(t, "enclaved stands still for 8 s, in the epilog", fine, func(t *testing.T) string {
		id, goOn := inEpilog(t)
		send(t, "n0", "enclaved", "STOP")
		t.Cleanup(func() { send(t, "n0", "enclaved", "CONT") })
		goOn()
		time.Sleep(8 * time.Second)
		send(t, "n0", "enclaved", "CONT")
		return id
	})
}
