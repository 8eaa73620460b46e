//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// promise is what a row of docs/failures.md says of job and nodes. Of the rest every row says the same:
// in the end nothing is left on a node, and each start has a verdict and a receipt that holds.
type promise struct {
	job     string            // the state in which the job ends; "" where there is no job, forgotten where slurmctld knows of none
	starts  string            // what the ledger says of each start, a pattern: "simulated", "refused E500; simulated"
	drained map[string]string // nodes that Slurm or we take out of service, and a pattern of the reason; no others may be
	meets   string            // the state of the job while they are out, before they are put back
	mends   bool              // what is left there is taken down by the prolog of the next job
	after   func()            // what the test takes back of its own before the nodes are compared
}

const forgotten = "forgotten"

// failures is the table of one suite: what was made to fail, and what came of it, row by row.
type failures struct {
	title                        string
	was                          map[string]string // the nodes' traces at the beginning
	rows, kept, drained, receipt int
}

// newFailures begins a table; it is summed up when the test ends.
func newFailures(t *testing.T, title string) *failures {
	t.Helper()
	idle(t)
	f := &failures{title: title, was: map[string]string{}}
	for _, n := range enclaveNodes() {
		f.was[n] = nodeTrace(t, n)
	}
	t.Cleanup(func() {
		fmt.Fprintf(os.Stderr, "failures: %s: rows=%d kept=%d drained_by_slurm=%d receipts=%d\n", f.title, f.rows, f.kept, f.drained, f.receipt)
	})
	return f
}

func enclaveNodes() []string {
	var names []string
	for n := 1; n <= labNodes; n++ {
		names = append(names, fmt.Sprintf("n%d", n))
	}
	return names
}

// row makes something fail, which act does to a job of alice's that it gives the number of, and holds
// what came of it against the promise.
func (f *failures) row(t *testing.T, what string, p promise, act func(t *testing.T) string) {
	t.Helper()
	t.Run(what, func(t *testing.T) {
		f.rows++
		job, node, left, receipt := "?", "?", "?", "?"
		defer func() {
			word := "KEPT"
			if t.Failed() {
				word = "BROKEN"
				logs(t)
			} else {
				f.kept++
			}
			fmt.Fprintf(os.Stderr, "failure: %-6s %s | job=%s node=%s left=%s receipt=%s\n", word, what, job, node, left, receipt)
		}()
		idle(t)
		id := act(t)
		node = f.nodes(t, id, p)
		job = ends(t, id, p)
		idle(t)
		if p.mends {
			for n := range p.drained {
				await(t, submit(t, "alice", "true", "--partition=cpu-sev", "--nodelist="+n), "COMPLETED")
			}
			idle(t)
		}
		if p.after != nil {
			p.after()
		}
		left = f.left(t)
		receipt = f.receipts(t, id, p)
	})
}

// logs shows what the lab's daemons said last.
func logs(t *testing.T) {
	t.Helper()
	for _, host := range append([]string{"n0"}, enclaveNodes()...) {
		t.Log(on(t, host, "root", "sh", "-c", "cd /var/log && tail -n 25 slurm-enclave.log enclave-lab/enclaved.log enclave-lab/slurmctld.log enclave-lab/slurmd.log 2>/dev/null").out)
	}
}

// nodes waits for the drains that are promised, looks that there are no others, and does as an admin does
// who has read the reason.
func (f *failures) nodes(t *testing.T, id string, p promise) string {
	t.Helper()
	if len(p.drained) == 0 {
		return "in service"
	}
	names := slices.Sorted(maps.Keys(p.drained))
	var told []string
	for _, n := range names {
		var state, reason string
		eventually(t, 3*time.Minute, func() bool { state, reason = service(t, n); return state == "drained" || state == "down" },
			func() string { return n + " is " + state + "\n" + must(t, "n0", "root", "sinfo", "-R") })
		assert.Regexp(t, p.drained[n], reason)
		told = append(told, fmt.Sprintf("%s %s (%s)", n, state, reason))
	}
	if p.meets != "" {
		await(t, id, p.meets)
	}
	for _, n := range names {
		must(t, "n0", "root", "scontrol", "update", "NodeName="+n, "State=RESUME")
		f.drained++
	}
	return strings.Join(told, ", ")
}

// service is a node's state, without the marks of a node that is not answering or being asked, and why it
// is out of service.
func service(t *testing.T, node string) (state, reason string) {
	t.Helper()
	line, _, _ := strings.Cut(must(t, "n0", "root", "sinfo", "-h", "-N", "-n", node, "-p", "cpu-sev", "-O", "StateLong:|,Reason:|"), "\n")
	state, reason, _ = strings.Cut(line, "|")
	return strings.TrimRight(state, "*~#$@!%^"), strings.TrimSuffix(reason, "|")
}

// ends waits for the end that is promised.
func ends(t *testing.T, id string, p promise) string {
	t.Helper()
	if p.job == "" {
		return "none"
	}
	last := ""
	eventually(t, 4*time.Minute, func() bool {
		if last = field(t, id, "JobState"); last == "" {
			last = forgotten
		}
		return last == p.job
	}, func() string {
		return fmt.Sprintf("job %s is %s, promised is %s\n%s%s%s", id, last, p.job, on(t, "n0", "root", "scontrol", "show", "job", id),
			on(t, "login", "alice", "cat", "slurm-"+id+".out"), must(t, "n0", "root", "sinfo", "-R"))
	})
	return last
}

// left looks that all nodes are as they were.
func (f *failures) left(t *testing.T) string {
	t.Helper()
	for n, was := range f.was {
		now := ""
		eventually(t, 30*time.Second, func() bool { now = nodeTrace(t, n); return now == was }, func() string {
			assert.Equal(t, was, now, n)
			return "something is left on " + n
		})
		r := on(t, n, "root", "enclave", "host", "check")
		assert.Zero(t, r.status, "%s: %s", n, r)
	}
	return "nothing"
}

// startsOf are the starts of a job in the ledger, the first one first.
func startsOf(t *testing.T, id string) []api.JobLine {
	t.Helper()
	var all api.Jobs
	require.NoError(t, json.Unmarshal([]byte(must(t, "n0", "root", "enclave", "jobs", "--json")), &all))
	return slices.SortedFunc(func(yield func(api.JobLine) bool) {
		for _, j := range all.Jobs {
			if fmt.Sprint(j.Job) == id && !yield(j) {
				return
			}
		}
	}, func(a, b api.JobLine) int { return int(a.Restart) - int(b.Restart) })
}

// receipts looks that each start of the job has its verdict in the ledger and a receipt that holds.
func (f *failures) receipts(t *testing.T, id string, p promise) string {
	t.Helper()
	if p.job == "" {
		return "none"
	}
	all := startsOf(t, id)
	require.NotEmpty(t, all, "the ledger has nothing of job %s", id)
	for _, s := range all {
		name := fmt.Sprintf("%s.%d", id, s.Restart)
		file := ""
		eventually(t, 4*time.Minute, func() bool { // enclaved asks Slurm once a minute about what nobody told it the end of
			file = on(t, "n0", "root", "enclave", "receipt", "export", name).out
			return file != ""
		}, func() string { return on(t, "n0", "root", "enclave", "receipt", "export", name).String() })
		r := onWithInput(t, "login", "root", file, "unshare", "-n", "enclave", "--config", "/nonexistent", "receipt", "verify", "--allow-simulated", "/dev/stdin")
		assert.Zero(t, r.status, "receipt of %s: %s", name, r)
		f.receipt++
	}
	var said []string
	for _, s := range startsOf(t, id) {
		said = append(said, strings.TrimSpace(fmt.Sprint(s.Verdict, " ", s.Code)))
	}
	told := strings.Join(said, "; ")
	assert.Regexp(t, `^(`+p.starts+`)$`, told)
	return fmt.Sprintf("%d of %d, %s", len(all), len(all), told)
}
