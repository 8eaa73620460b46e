//go:build e2e

package e2e_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What users see of Slurm around an enclave, for the page's table of releases.

// quoted are the lines of a text that match; one of ours, which is the same on all releases, must be there, too.
func quoted(t *testing.T, text, ours, theirs string) string {
	t.Helper()
	require.Regexp(t, ours, text)
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); regexp.MustCompile(theirs).MatchString(line) && !regexp.MustCompile(ours).MatchString(line) {
			lines = append(lines, "`"+line+"`")
		}
	}
	return or(strings.Join(lines, " "))
}

// refusedStreams is srun on c1, which slurm.submit_hosts does not list: the job's steps can't call back.
func refusedStreams(t *testing.T) string {
	t.Helper()
	r := on(t, "c1", "alice", "timeout", "60", "srun", "--quiet", "--partition=cpu-sev", "--nodelist=n1", "hostname")
	assert.Empty(t, r.out)
	idle(t)
	said := "no word"
	if strings.Contains(r.errOut, "Slurmd could not connect IO") {
		said = `"Slurmd could not connect IO"`
	}
	return fmt.Sprintf("status %d, %s", r.status, said)
}

func unallocated(t *testing.T) string {
	t.Helper()
	r := on(t, "login", "alice", "timeout", "30", "srun", "--no-allocate", "--nodelist=n1", "hostname")
	assert.NotZero(t, r.status)
	assert.Empty(t, r.out)
	assert.Contains(t, r.errOut, "Application launch failed")
	if r.status > 128 && r.status < 160 { // a signal; srun's own statuses are other numbers
		return "refused, then srun crashes"
	}
	return "refused"
}

// gateWords is what Slurm adds when a step of a job is refused, here because root has taken GO away.
func gateWords(t *testing.T) string {
	t.Helper()
	id := submit(t, "alice", "until [ -e now-$SLURM_JOB_ID ]; do sleep 0.2; done; srun hostname; echo status $?", "--partition=cpu-sev", "--nodelist=n1")
	started(t, id, "alice", "n1")
	must(t, "n1", "root", "rm", "/run/slurm-enclave/gate/"+id+".go")
	must(t, "n1", "alice", "touch", "now-"+id)
	await(t, id, "COMPLETED")
	text := output(t, "alice", id)
	idle(t)
	return quoted(t, text, `enclave: gate: E1\d\d: `, "^(srun: |status )")
}

func submitWords(t *testing.T) string {
	t.Helper()
	return quoted(t, refused(t, "carol", "hostname", "--partition=cpu-sev"), `E1\d\d`, "^sbatch: ")
}

// requeueReason is what squeue tells of a job whose start a broken node prevented.
func requeueReason(t *testing.T) string {
	t.Helper()
	setFault(t, "n2", `{"wrong_key": true}`)
	id := submit(t, "alice", "hostname", "--partition=cpu-sev", "--nodes=3")
	eventually(t, 60*time.Second, func() bool { return drained(t, "n2") != "" }, func() string { return must(t, "n0", "root", "sinfo", "-R") })
	await(t, id, "PENDING")
	reason := strings.TrimSpace(must(t, "login", "alice", "squeue", "-h", "-j", id, "-O", "Reason"))
	must(t, "n0", "root", "scancel", id)
	on(t, "n2", "root", "sh", "-c", "echo '{}' >/run/enclave-tsm.faults")
	resume(t, "n2")
	idle(t)
	require.NotEmpty(t, reason)
	return "`" + reason + "`"
}
