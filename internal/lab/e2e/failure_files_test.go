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

// No file descriptor is left.
func TestFailuresOfDescriptors(t *testing.T) {
	f := newFailures(t, "file descriptors")
	fine := promise{job: "COMPLETED", starts: "simulated"}
	f.row(t, "enclaved has no file descriptor left for 20 s, at registration", promise{job: "COMPLETED", starts: "(refused E[0-9]+; )*simulated"}, func(t *testing.T) string {
		restore := noFiles(t, "n0", "enclave", "enclaved")
		id := submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3")
		time.Sleep(20 * time.Second)
		restore()
		return id
	})
	f.row(t, "enclaved has no file descriptor left, in the prolog", promise{job: "COMPLETED", starts: "(refused E[0-9]+; )+simulated"}, func(t *testing.T) string {
		id, goOn := inProlog(t)
		restore := noFiles(t, "n0", "enclave", "enclaved")
		goOn()
		eventually(t, 60*time.Second, func() bool { return on(t, "n1", "root", "pgrep", "-x", "enclave-prolog").status != 0 }, func() string { return "the prolog runs on" })
		restore()
		return id
	})
	f.row(t, "enclaved has no file descriptor left, while the job runs", fine, func(t *testing.T) string {
		id, goOn := inJob(t)
		restore := noFiles(t, "n0", "enclave", "enclaved")
		time.Sleep(15 * time.Second)
		restore()
		goOn()
		return id
	})
	f.row(t, "enclaved has no file descriptor left for 5 s, in the epilog", fine, func(t *testing.T) string {
		id, goOn := inEpilog(t)
		restore := noFiles(t, "n0", "enclave", "enclaved")
		goOn()
		time.Sleep(5 * time.Second)
		restore()
		return id
	})
	f.row(t, "a keeper has no file descriptor left for 10 s", fine, func(t *testing.T) string {
		id, goOn := inJob(t)
		restore := noFiles(t, "n2", "root", "enclave-keeper")
		time.Sleep(10 * time.Second)
		restore()
		time.Sleep(5 * time.Second)
		assert.True(t, goFile(t, "n2", id))
		goOn()
		return id
	})
	f.row(t, "a keeper has no file descriptor left for longer than the grace period", promise{job: "CANCELLED", starts: "refused E(431|531)"}, func(t *testing.T) string {
		id, _ := inJob(t)
		noFiles(t, "n2", "root", "enclave-keeper")
		eventually(t, 60*time.Second, func() bool { return !goFile(t, "n2", id) }, func() string { return "n2 is still open" })
		return id
	})
	again := promise{job: "COMPLETED", starts: "refused E[0-9]+; simulated", meets: "PENDING"}
	f.row(t, "slurmd has no file descriptor left as the job begins, until that was requeued", again, func(t *testing.T) string {
		restore := noFiles(t, "n2", "root", "slurmd")
		return requeued(t, restore)
	})
	f.row(t, "slurmd can take calls as the job begins, and open nothing for them", again, func(t *testing.T) string {
		restore := fewFiles(t, "n2", "root", "slurmd", 8)
		return requeued(t, restore)
	})
	f.row(t, "slurmd has no file descriptor left for 10 s, while the job runs", fine, func(t *testing.T) string {
		id, goOn := inJob(t)
		restore := noFiles(t, "n2", "root", "slurmd")
		time.Sleep(10 * time.Second)
		restore()
		goOn()
		return id
	})
	f.row(t, "slurmd has no file descriptor left for 10 s, as the job ends", fine, func(t *testing.T) string {
		id, goOn := inJob(t)
		restore := noFiles(t, "n2", "root", "slurmd")
		goOn()
		time.Sleep(10 * time.Second)
		restore()
		return id
	})
	for _, n := range []int{4, 8, 12, 16} {
		p := promise{job: "COMPLETED", starts: "refused E[0-9]+; simulated", meets: "PENDING", drained: map[string]string{"n2": "too many open files|enclave-keeper does not answer|Prolog error"}}
		f.row(t, fmt.Sprintf("a prolog may have %d files open", n), p, func(t *testing.T) string {
			restore := without(t, "n2", "enclave-prolog", fmt.Sprintf(`ulimit -n %d\nexec %senclave-prolog.kept "$@"`, n, libexec))
			id := submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3")
			awaitDrain(t, "n2")
			restore()
			return id
		})
	}
}

// requeued submits a job, restores what keeps it from coming up once it is pending again, and has it
// start soon.
func requeued(t *testing.T, restore func()) string {
	t.Helper()
	id := submit(t, "alice", "srun true", "--partition=cpu-sev", "--nodes=3")
	eventually(t, 2*time.Minute, func() bool { return field(t, id, "Restarts") == "1" }, func() string { return on(t, "n0", "root", "scontrol", "show", "job", id).String() })
	assert.False(t, goFile(t, "n2", id))
	restore()
	return id
}

// noFiles leaves the oldest program of that name without a file descriptor for anything new, until the
// test ends or what it gives is called. In a container root may do that to root's processes only.
func noFiles(t *testing.T, host, user, program string) (restore func()) {
	t.Helper()
	return fewFiles(t, host, user, program, 3)
}

func fewFiles(t *testing.T, host, user, program string, most int) (restore func()) {
	t.Helper()
	limit := func(rest string) result {
		return on(t, host, user, "sh", "-c", "prlimit --pid $(pgrep -o -x "+program+") "+rest)
	}
	was := limit("--nofile --noheadings --output SOFT")
	r := limit(fmt.Sprintf("--nofile=%d:", most))
	require.Zero(t, was.status+r.status, "%s %s", was, r)
	restore = func() { limit("--nofile=" + strings.TrimSpace(was.out) + ":") }
	t.Cleanup(restore)
	return restore
}
