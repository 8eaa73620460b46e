//go:build e2e

package e2e_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestP3TheJobReachesItsOwnSubtreeOnly(t *testing.T) {
	idle(t)
	const site = "/srv/enclave-fs/lab/proj"
	// Open to everybody by its modes, so that only the view protects it.
	must(t, "n1", "root", "sh", "-c", "echo BOBS-SECRET >"+site+"/astro/s && chmod 755 "+site+"/astro && chmod 644 "+site+"/astro/s")
	t.Cleanup(func() { on(t, "n1", "root", "rm", "-f", site+"/astro/s") })
	id := sleeper(t, "alice", "n1")
	mine := must(t, "n1", "alice", "sh", "-c", "echo hers >/lustre/h && ls /lustre")
	assert.Contains(t, mine, "h\n")
	attempts := "for p in " + site + "/astro/s /lustre/../srv/enclave-fs/lab/proj/astro/s /lustre/astro/s /lustre/../astro/s /proc/1/root" + site + "/astro/s; do cat $p; done; ls /srv/enclave-fs"
	assert.NotContains(t, on(t, "n1", "alice", "sh", "-c", attempts).String(), "BOBS-SECRET")
	t.Run("control: with the root-only folder opened it is read", func(t *testing.T) {
		must(t, "n1", "root", "chmod", "755", "/srv/enclave-fs")
		t.Cleanup(func() { on(t, "n1", "root", "chmod", "700", "/srv/enclave-fs") })
		assert.Contains(t, on(t, "n1", "alice", "sh", "-c", attempts).String(), "BOBS-SECRET")
	})
	must(t, "n0", "root", "scancel", id)
	idle(t)
	assert.Empty(t, must(t, "n1", "alice", "ls", "/lustre"), "after the job nothing is there")
}

func TestP7OtherPartitionsNeedNothingOfOurs(t *testing.T) {
	idle(t)
	const conf = "/etc/slurm-enclave/enclave.yaml"
	for _, host := range []string{"n0", "c1"} {
		good := must(t, host, "root", "cat", conf)
		t.Cleanup(func() { onWithInput(t, host, "root", good, "sh", "-c", "cat >"+conf) })
		must(t, host, "root", "sh", "-c", "echo '}{ broken' >"+conf)
	}
	require.NoError(t, labCommand("stop", "n0", "enclaved").Run())
	id := submit(t, "carol", "srun hostname", "--partition=cpu")
	await(t, id, "COMPLETED")
	assert.Equal(t, "c1\n", output(t, "carol", id))
	assert.NotZero(t, on(t, "c1", "root", "test", "-e", "/var/log/slurm-enclave.log").status, "the prolog began nothing")
	for _, host := range []string{"n0", "c1"} {
		assert.Contains(t, must(t, host, "root", "cat", conf), "broken")
	}
}

// The cleanups of the test before have mended the files, and this one starts enclaved again.
func TestP7TheVerifierComesBack(t *testing.T) {
	require.NoError(t, labCommand("start", "n0", "enclaved").Run())
	id := submit(t, "alice", "srun hostname", "--partition=cpu-sev")
	await(t, id, "COMPLETED")
	idle(t)
}

func TestP8SimulatedIsSaidEverywhere(t *testing.T) {
	idle(t)
	id := submit(t, "alice", "printenv ENCLAVE_VERDICT", "--partition=cpu-sev")
	await(t, id, "COMPLETED")
	assert.Equal(t, "simulated\n", output(t, "alice", id))
	for _, screen := range [][]string{{"enclave", "report", id}, {"enclave", "why", id}} {
		first, _, _ := strings.Cut(must(t, "login", "alice", screen...), "\n")
		assert.Contains(t, first, "SIMULATED", screen)
	}
	// slurmdbd hears of a job's end a little after the state is COMPLETED.
	var comment string
	eventually(t, 30*time.Second, func() bool {
		comment = strings.ReplaceAll(adminComment(t, id), "`", `"`)
		return strings.Contains(comment, `"v":"simulated"`)
	}, func() string { return comment })
	idle(t)
}

func TestP8WithoutLeaveSimulatedEvidenceIsRefused(t *testing.T) {
	idle(t)
	t.Cleanup(func() { resume(t, "n1", "n2", "n3") })
	reconfigure(t, "/simulated/d")
	id := submit(t, "alice", "srun touch /lustre/ran-$SLURM_JOB_ID", "--partition=cpu-sev", "--nodes=3")
	eventually(t, 60*time.Second, func() bool {
		return strings.Contains(on(t, "login", "alice", "enclave", "why", id).out, "E53")
	}, func() string { return on(t, "login", "alice", "enclave", "why", id).String() })
	must(t, "n0", "root", "scancel", id)
	idle(t)
	assert.NotContains(t, must(t, "n1", "root", "ls", "/srv/enclave-fs/lab/proj/digimed"), "ran-"+id)
}

func TestNoGoRuntimeInSlurmsDaemons(t *testing.T) {
	idle(t)
	sleeper(t, "alice", "n1,n2,n3")
	stepds := 0
	for n := 1; n <= labNodes; n++ {
		node := fmt.Sprintf("n%d", n)
		maps := must(t, node, "root", "sh", "-c", `for p in $(pgrep -x slurmd) $(pgrep slurmstepd); do echo "== $p"; cat /proc/$p/maps; done`)
		stepds += strings.Count(maps, "== ") - 1
		assert.Contains(t, maps, "enclave.so", "the gate is loaded")
		assert.NotContains(t, maps, "libenclave-submit")
		assert.NotContains(t, maps, "libgo")
	}
	assert.GreaterOrEqual(t, stepds, 4)
}

// inHost runs f on a thread in a host's network namespace; the thread ends with it.
func inHost(t *testing.T, host string, f func() error) {
	t.Helper()
	s := state(t)
	var path string
	for _, h := range s.Hosts {
		if h.Name == host {
			path = fmt.Sprintf("/proc/%d/root/proc/%d/ns/net", s.Supervisor, h.PID)
		}
	}
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		ns, err := os.Open(path)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			_ = ns.Close()
		}
		if err == nil {
			err = f()
		}
		errs <- err
	}()
	require.NoError(t, <-errs)
}

// steady is the report of a job that runs, without its nodes' renewals, which go on.
func steady(t *testing.T, id string) map[string]any {
	t.Helper()
	var report map[string]any
	require.NoError(t, json.Unmarshal([]byte(must(t, "n0", "root", "enclave", "report", id, "--json")), &report))
	for _, n := range report["nodes"].([]any) {
		delete(n.(map[string]any), "renewals")
		delete(n.(map[string]any), "renewed")
	}
	return report
}

func TestP1StrangersChangeNothingAtTheVerifier(t *testing.T) {
	idle(t)
	id := sleeper(t, "alice", "n1,n2")
	before := steady(t, id)
	bodies := map[string]string{
		"/v1/node/nonce":          `{"job":{"cluster":"lab","job":` + id + `,"restart":0},"node":"n1","purpose":1}`,
		"/v1/node/evidence":       `{"job":{"cluster":"lab","job":` + id + `,"restart":0},"node":"n1","evidence":{}}`,
		"/v1/node/ready":          `{"job":{"cluster":"lab","job":` + id + `,"restart":0},"node":"n1","epoch":1}`,
		"/v1/node/broken":         `{"job":{"cluster":"lab","job":` + id + `,"restart":0},"node":"n1","epoch":1,"refusal":{"code":"E220","fault":"node","reason":"x"}}`,
		"/v1/node/renew":          `{"job":{"cluster":"lab","job":` + id + `,"restart":0},"node":"n1","epoch":1,"purpose":2,"evidence":{}}`,
		"/v1/node/watch":          `{"job":{"cluster":"lab","job":` + id + `,"restart":0},"node":"n1","epoch":0}`,
		"/v1/controller/register": `{"job":{"cluster":"lab","job":999,"restart":0,"partition":"cpu-sev","nodes":["n1"],"uid":2001}}`,
		"/v1/admin/enrol/approve": `{"node":"n1"}`,
		"/v1/nothing":             "garbage \x00\xff",
	}
	for _, host := range []string{"n3", "login"} {
		for path, body := range bodies {
			inHost(t, host, func() error {
				// No http.Client: it dials on another thread, which is not in the host's network.
				c, err := net.DialTimeout("tcp", address(t, "n0")+":6830", 5*time.Second)
				if err != nil {
					return err
				}
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				s := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
				req, err := http.NewRequest(http.MethodPost, "https://n0:6830"+path, strings.NewReader(body))
				if err != nil {
					return err
				}
				if err = req.Write(s); err != nil {
					return nil // turned away before it could speak
				}
				res, err := http.ReadResponse(bufio.NewReader(s), req)
				if err != nil {
					return nil // the same
				}
				assert.GreaterOrEqual(t, res.StatusCode, 400, "%s from %s", path, host)
				return res.Body.Close()
			})
		}
	}
	assert.Equal(t, before, steady(t, id))
	for n := 1; n <= labNodes; n++ {
		assert.Empty(t, drained(t, fmt.Sprintf("n%d", n)))
	}
	var fleet struct{ Counters map[string]uint64 }
	require.NoError(t, json.Unmarshal([]byte(must(t, "n0", "root", "enclave", "nodes", "--json")), &fleet))
	var counted uint64
	for _, n := range fleet.Counters {
		counted += n
	}
	assert.NotZero(t, counted, "%v", fleet.Counters)
}
