//go:build e2e && failures

package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// interrupted has a job of alice's on n2, and does something while its prolog or epilog stands in a step of
// its journal; with names a program that is to be there by then.
func interrupted(t *testing.T, program string, at step, during func(id string), with ...string) (id string) {
	t.Helper()
	again(t, at, func() string {
		c := catch(t, program, at, append([]string{"resume"}, with...)...)
		id = submit(t, "alice", "true", "-p", "cpu-sev", "-w", "n2")
		said := ""
		eventually(t, 45*time.Second, func() bool {
			said = strings.TrimSpace(c.said.String())
			return said != ""
		}, func() string { return "the killer says nothing" })
		if said == at.String() {
			during(id)
		}
		require.NoError(t, c.resume.Close())
		where := c.step()
		if where != at.String() {
			await(t, id, "COMPLETED")
			idle(t)
		}
		return where
	})
	return id
}

// All space of /run is gone in each step that is journaled.
func TestFailuresOfAFullRun(t *testing.T) {
	f := newFailures(t, "/run full")
	copySelf(t, "n2", killerPath)
	prolog, epilog := journaled(t)
	for _, at := range prolog {
		f.row(t, "/run of a node is full, in the prolog's "+at.String(), noSpace("n2"), func(t *testing.T) string {
			var free func()
			id := interrupted(t, "enclave-prolog", at, func(string) { free = fill(t, "n2", "/run") })
			awaitDrain(t, "n2")
			free()
			return id
		})
	}
	for _, at := range epilog {
		f.row(t, "/run of a node is full, in the epilog's "+at.String(), promise{job: "COMPLETED", starts: "simulated"}, func(t *testing.T) string {
			var free func()
			id := interrupted(t, "enclave-epilog", at, func(string) { free = fill(t, "n2", "/run") })
			await(t, id, "COMPLETED")
			idle(t)
			free()
			return id
		})
	}
	f.row(t, "/run of a node is full for less than the grace period, while the job runs", promise{job: "COMPLETED", starts: "simulated"}, func(t *testing.T) string {
		hasten(t)
		id, goOn := inJob(t)
		free := fill(t, "n2", "/run")
		time.Sleep(4 * time.Second)
		free()
		time.Sleep(6 * time.Second)
		assert.True(t, goFile(t, "n2", id))
		goOn()
		return id
	})
	f.row(t, "/run of a node is full for longer, while the job runs", promise{job: "CANCELLED", starts: "refused E531"}, func(t *testing.T) string {
		hasten(t)
		id, _ := inJob(t)
		free := fill(t, "n2", "/run")
		eventually(t, 20*time.Second, func() bool { return !goFile(t, "n2", id) }, func() string { return "n2 is still open" })
		await(t, id, "CANCELLED")
		idle(t)
		free()
		return id
	})
}

// All space beside the ledger is gone.
func TestFailuresOfAFullLedger(t *testing.T) {
	f := newFailures(t, "ledger full")
	f.row(t, "the disk of the ledger is full, in the prolog", promise{job: "COMPLETED", starts: "(refused E50[67]; )+simulated"}, func(t *testing.T) string {
		smallState(t)
		id, goOn := inProlog(t)
		free := fill(t, "n0", stateDir)
		goOn()
		eventually(t, 60*time.Second, func() bool { return on(t, "n1", "root", "pgrep", "-x", "enclave-prolog").status != 0 }, func() string { return "the prolog runs on" })
		free()
		return id
	})
	f.row(t, "the disk of the ledger is full for longer than the grace period, while the job runs", promise{job: "CANCELLED", starts: "refused E531"}, func(t *testing.T) string {
		smallState(t)
		hasten(t)
		id, _ := inJob(t)
		free := fill(t, "n0", stateDir)
		for _, n := range enclaveNodes() {
			eventually(t, 40*time.Second, func() bool { return !goFile(t, n, id) }, func() string { return n + " is still open" })
		}
		await(t, id, "CANCELLED")
		idle(t)
		free()
		return id
	})
	f.row(t, "a node is revoked while the disk of the ledger is full", promise{job: "CANCELLED", starts: "refused E532"}, func(t *testing.T) string {
		smallState(t)
		id, _ := inJob(t)
		free := fill(t, "n0", stateDir)
		r := on(t, "n0", "root", "enclave", "node", "revoke", "n2", "--reason", "a disk is missing")
		assert.NotZero(t, r.status, "it is not stored")
		assert.Contains(t, r.String(), "E507")
		awaitDrain(t, "n2")
		assert.Contains(t, drained(t, "n2"), "E532")
		await(t, id, "CANCELLED")
		assert.NotZero(t, on(t, "n2", "root", "enclave", "node", "prove").status, "it is out although nothing is stored")
		free()
		readmit(t, "n2")
		return id
	})
	f.row(t, "enclaved begins anew on a full disk, and again when there is space", promise{job: "COMPLETED", starts: "simulated"}, func(t *testing.T) string {
		smallState(t)
		id, goOn := inJob(t)
		free := fill(t, "n0", stateDir)
		require.NoError(t, labCommand("restart", "n0", "enclaved").Run())
		time.Sleep(3 * time.Second)
		free()
		if daemonOf(t, "n0", "enclaved").End != "" {
			assert.Contains(t, must(t, "n0", "root", "tail", "-n", "3", "/var/log/enclave-lab/enclaved.log"), "E0")
			begin(t, "n0", "enclaved")
		}
		goOn()
		return id
	})
}
