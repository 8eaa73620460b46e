//go:build e2e && failures

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// without has a program on a node do nothing, until the test ends or what it gives is called.
func without(t *testing.T, node, program, instead string) (restore func()) {
	t.Helper()
	path := libexec + program
	must(t, node, "root", "sh", "-ec", fmt.Sprintf("mv %[1]s %[1]s.kept; printf '#!/bin/sh\n%[2]s\n' >%[1]s; chmod 755 %[1]s", path, instead))
	restore = func() {
		on(t, node, "root", "sh", "-c", fmt.Sprintf("[ ! -e %[1]s.kept ] || mv %[1]s.kept %[1]s", path))
	}
	t.Cleanup(restore)
	return restore
}

// The scripts are called out of turn.
func TestFailuresOfOrder(t *testing.T) {
	f := newFailures(t, "order")
	fine := promise{job: "COMPLETED", starts: "simulated"}
	f.row(t, "an epilog of a job that was never here", promise{}, func(t *testing.T) string {
		assert.Zero(t, script{job: "999999", nodes: "n2"}.run(t, "n2", "epilog").status)
		return ""
	})
	f.row(t, "an epilog of a job that was never here, while another's runs", fine, func(t *testing.T) string {
		id, goOn := inJob(t)
		r := script{job: "999999", nodes: "n2"}.run(t, "n2", "epilog")
		assert.Zero(t, r.status, "%s", r)
		assert.True(t, goFile(t, "n2", id))
		goOn()
		return id
	})
	f.row(t, "a prolog of a job that nobody registered", promise{}, func(t *testing.T) string {
		s := script{job: "999999", nodes: "n2"}
		r := s.run(t, "n2", "prolog")
		assert.Zero(t, r.status, "%s", r)
		assert.Contains(t, must(t, "n2", "root", "cat", "/run/slurm-enclave/gate/999999.deny"), "code E502")
		assert.Zero(t, s.run(t, "n2", "epilog").status)
		return ""
	})
	f.row(t, "a prolog of a job that nobody registered, while another's runs", fine, func(t *testing.T) string {
		id, goOn := inJob(t)
		s := script{job: "999999", nodes: "n2"}
		r := s.run(t, "n2", "prolog")
		assert.Zero(t, r.status, "%s", r)
		assert.Zero(t, s.run(t, "n2", "epilog").status)
		assert.True(t, goFile(t, "n2", id))
		goOn()
		return id
	})
	f.row(t, "the epilog runs twice, one after the other", fine, func(t *testing.T) string {
		id, goOn := inJob(t)
		goOn()
		await(t, id, "COMPLETED")
		idle(t)
		for range 2 {
			assert.Zero(t, script{job: id, nodes: "n[1-3]"}.run(t, "n2", "epilog").status)
		}
		return id
	})
	f.row(t, "the epilog runs twice at the same time, after Slurm's", fine, func(t *testing.T) string {
		id, goOn := inJob(t)
		goOn()
		await(t, id, "COMPLETED")
		idle(t)
		for range 5 {
			assert.Contains(t, atOnce(t, "n2", script{job: id, nodes: "n[1-3]"}, "epilog"), "0", "the later one does it all")
		}
		return id
	})
	f.row(t, "the epilog runs while the job does, twice at the same time, and Slurm's after them", promise{job: "CANCELLED", starts: "refused E531"}, func(t *testing.T) string {
		hasten(t)
		id := submit(t, "alice", "srun sleep 600", "--partition=cpu-sev", "--nodes=3")
		started(t, id, "alice", "n2")
		assert.Subset(t, []string{"0", "137"}, atOnce(t, "n2", script{job: id, nodes: "n[1-3]"}, "epilog"), "done, or ended by a later one, as Slurm's is")
		return id
	})
	f.row(t, "the prolog runs again while the job does: its node closes", promise{job: "CANCELLED", starts: "refused E531"}, func(t *testing.T) string {
		hasten(t)
		id := submit(t, "alice", "srun sleep 600", "--partition=cpu-sev", "--nodes=3")
		started(t, id, "alice", "n2")
		r := script{job: id, nodes: "n[1-3]"}.run(t, "n2", "prolog")
		assert.Zero(t, r.status, "%s", r)
		assert.False(t, goFile(t, "n2", id))
		return id
	})
	f.row(t, "the prolog runs twice after a requeue: no epilog ran between the starts", promise{job: "COMPLETED", starts: "simulated; simulated"}, func(t *testing.T) string {
		restore := without(t, "n2", "enclave-epilog", "exit 0")
		id, goOn := inJob(t)
		must(t, "n0", "root", "scontrol", "requeue", id)
		eventually(t, 60*time.Second, func() bool {
			return goFile(t, "n2", id) && field(t, id, "Restarts") == "1" && journals(t, "n2") == id+".1"
		},
			func() string { return journals(t, "n2") + on(t, "n0", "root", "scontrol", "show", "job", id).String() })
		restore()
		goOn()
		return id
	})
}

// atOnce runs a script twice at the same time, and gives how each ended. A later one may end an earlier.
func atOnce(t *testing.T, node string, s script, which string) []string {
	t.Helper()
	line := "'" + strings.Join(s.command(node, which), "' '") + "'"
	r := on(t, node, "root", "sh", "-c", line+" & p=$!; "+line+"; a=$?; wait $p; printf '\nended %d %d' $a $?")
	_, ended, _ := strings.Cut(r.out, "\nended ")
	require.Len(t, strings.Fields(ended), 2, "%s", r)
	return strings.Fields(ended)
}

// journals are the starts that a node has a journal of.
func journals(t *testing.T, node string) string {
	t.Helper()
	return strings.Join(strings.Fields(must(t, node, "root", "sh", "-c", "cd /run/slurm-enclave && ls -d [0-9]*.* 2>/dev/null; true")), " ")
}
