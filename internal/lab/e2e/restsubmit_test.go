//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// restIn in the environment makes the test program a user's client of slurmrestd on n0.
const (
	restIn      = "E2E_REST"
	restProgram = "/usr/local/sbin/e2e-rest"
)

// call is what the client is told on standard input. Without a token it starts a slurmrestd of the
// user's own on a socket, as rest_auth/local wants it, and asks that one.
type call struct {
	User, Token string
	Path        string
	Body        any
}

// heard is what came back.
type heard struct {
	Status int
	Body   string
}

// refused: slurmrestd of 22.05 says 200 and what was wrong with the question.
func (h heard) refused() bool {
	var a struct {
		Errors []any `json:"errors"`
	}
	return h.Status != http.StatusOK || json.Unmarshal([]byte(h.Body), &a) != nil || len(a.Errors) > 0
}

func restMain() int {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	var c call
	err := json.NewDecoder(os.Stdin).Decode(&c)
	var h heard
	if err == nil {
		h, err = c.make(ctx)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(h)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (c call) make(ctx context.Context) (h heard, err error) {
	client := http.Client{}
	if c.Token == "" {
		dir, errDir := os.MkdirTemp("", "rest-")
		if errDir != nil {
			return h, errDir
		}
		defer func() { _ = os.RemoveAll(dir) }()
		socket := filepath.Join(dir, "sock")
		own := exec.CommandContext(ctx, "/usr/sbin/slurmrestd", "-a", "rest_auth/local", "unix:"+socket)
		if err = own.Start(); err != nil {
			return h, err
		}
		defer func() { _ = own.Process.Kill(); _ = own.Wait() }()
		for {
			to, errDial := net.Dial("unix", socket)
			if errDial == nil {
				_ = to.Close()
				break
			}
			if ctx.Err() != nil {
				return h, errDial
			}
			time.Sleep(50 * time.Millisecond)
		}
		client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}
	}
	body, err := json.Marshal(c.Body)
	if err != nil {
		return h, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:6820"+c.Path, bytes.NewReader(body))
	if err != nil {
		return h, err
	}
	r.Header.Set("Content-Type", "application/json")
	if c.Token != "" {
		r.Header.Set("X-SLURM-USER-NAME", c.User)
		r.Header.Set("X-SLURM-USER-TOKEN", c.Token)
	}
	a, err := client.Do(r)
	if err != nil {
		return h, err
	}
	defer func() { _ = a.Body.Close() }()
	b, err := io.ReadAll(a.Body)
	return heard{Status: a.StatusCode, Body: string(b)}, err
}

// apiVersion is the newest that the suite's slurmrestd offers.
func apiVersion() string {
	return map[string]string{"": "v0.0.38", "bookworm": "v0.0.38", "trixie": "v0.0.42", "forky": "v0.0.45"}[suite()]
}

// restDoor is a user's way to slurmrestd: "token" to the site's, "socket" to one of his own.
type restDoor string

func restDoors() []restDoor { return []restDoor{"token", "socket"} }

// ask posts to slurmrestd as a user.
func (d restDoor) ask(t *testing.T, user, path string, body any) heard {
	t.Helper()
	c := call{User: user, Path: "/slurm/" + apiVersion() + path, Body: body}
	if d == "token" {
		out := must(t, "n0", "root", "scontrol", "token", "username="+user, "lifespan=600")
		c.Token = strings.TrimPrefix(strings.TrimSpace(out), "SLURM_JWT=")
	}
	text, err := json.Marshal(c)
	require.NoError(t, err)
	r := onWithInput(t, "n0", user, string(text), "env", restIn+"=1", restProgram)
	require.Zero(t, r.status, r.String())
	var h heard
	require.NoError(t, json.Unmarshal([]byte(r.out), &h), r.out)
	return h
}

// wish is a job as the suite's version of the API words it.
func wish(user, script string, fields map[string]any) map[string]any {
	job := map[string]any{"name": "by-rest", "current_working_directory": "/home/" + user, "standard_output": "/home/" + user + "/slurm-%j.out"}
	maps.Copy(job, fields)
	script = "#!/bin/sh\n" + script + "\n"
	if apiVersion() == "v0.0.38" {
		job["environment"] = map[string]string{"PATH": "/usr/bin:/bin"}
		if n, ok := job["minimum_nodes"]; ok { // the same by another name
			delete(job, "minimum_nodes")
			job["nodes"] = fmt.Sprint(n)
		}
		return map[string]any{"job": job, "script": script}
	}
	job["environment"], job["script"] = []string{"PATH=/usr/bin:/bin"}, script
	return map[string]any{"job": job}
}

// submit hands a job in and gives its number, "0" when it was refused.
func (d restDoor) submit(t *testing.T, user, script string, fields map[string]any) (string, heard) {
	t.Helper()
	h := d.ask(t, user, "/job/submit", wish(user, script, fields))
	var a struct {
		ID uint32 `json:"job_id"`
	}
	_ = json.Unmarshal([]byte(h.Body), &a) // what is no JSON has no number
	return fmt.Sprint(a.ID), h
}

// SPANK plugins do not run in slurmrestd: all that holds such a job is enclave.lua in slurmctld, and then the
// nodes.
func TestP1JobsThroughSlurmrestdAreRoutedAndRefusedAsSbatchs(t *testing.T) {
	copySelf(t, "n0", restProgram)
	must(t, "n0", "root", "chmod", "755", restProgram)
	for _, d := range restDoors() {
		t.Run(string(d), func(t *testing.T) {
			t.Run("a job of an entitled account runs in an enclave, its name and comment are only text", d.runs)
			t.Run("what sbatch is refused is refused here", d.refuses)
			t.Run("a job of another partition is left alone", func(t *testing.T) {
				id, h := d.submit(t, "carol", "echo here: $ENCLAVE_VERDICT", map[string]any{"partition": "cpu"})
				require.NotEqual(t, "0", id, h.Body)
				await(t, id, "COMPLETED")
				assert.Equal(t, "here:\n", output(t, "carol", id))
			})
		})
	}
}

// An account that requires an enclave gets one, whatever partition its user names and by whatever way the job comes.
func TestAnAccountThatRequiresAnEnclaveIsRouted(t *testing.T) {
	restart := func() { require.NoError(t, labCommand("restart", "n0", "enclaved").Run()) }
	required := func(word string) {
		eventually(t, 30*time.Second, func() bool {
			return strings.Contains(on(t, "n0", "root", "grep", "digimed.*required", "/var/lib/slurm-enclave/tenants.lua").out, "required = "+word)
		}, func() string { return on(t, "n0", "root", "cat", "/var/lib/slurm-enclave/tenants.lua").String() })
	}
	copySelf(t, "n0", restProgram)
	must(t, "n0", "root", "chmod", "755", restProgram)
	t.Cleanup(func() { restart(); required("false") })
	edit(t, "n0", "/etc/slurm-enclave/tenants.yaml", "s,subtree: proj/digimed,required: true\\, &,")
	restart()
	required("true")
	ids := []string{submit(t, "alice", "true"), submit(t, "alice", "true", "--partition=cpu")}
	for _, d := range restDoors() {
		for _, fields := range []map[string]any{nil, {"partition": "cpu"}} {
			id, h := d.submit(t, "alice", "true", fields)
			require.NotEqual(t, "0", id, h.Body)
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		await(t, id, "COMPLETED")
		assert.Equal(t, "cpu-sev", field(t, id, "Partition"), id)
		assert.Equal(t, "simulated", verdict(t, id), id)
	}
	other := submit(t, "carol", "true")
	await(t, other, "COMPLETED")
	assert.Equal(t, "cpu", field(t, other, "Partition"))
	idle(t)
}

func (d restDoor) runs(t *testing.T) {
	t.Helper()
	script := "srun printenv ENCLAVE_VERDICT; until [ -e go-$SLURM_JOB_ID ]; do sleep 0.2; done"
	id, h := d.submit(t, "alice", script, map[string]any{"partition": "cpu-sev", "minimum_nodes": 2, "name": strange, "comment": strange})
	require.NotEqual(t, "0", id, h.Body)
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id); on(t, "login", "alice", "rm", "-f", "go-"+id) })
	eventually(t, 60*time.Second, func() bool { return on(t, "login", "alice", "cat", "slurm-"+id+".out").out == "simulated\nsimulated\n" },
		func() string { return must(t, "n0", "root", "scontrol", "show", "job", id) })
	assert.Equal(t, "2 4", strings.TrimSpace(must(t, "n0", "root", "squeue", "-h", "-j", id, "-o", "%D %C")), "two whole nodes")
	for name, change := range map[string]map[string]any{
		"another partition": {"partition": "cpu"}, "another account": {"account": "astro"}, "named nodes": {"required_nodes": d.nodes("n3")}, "features": {"constraints": "x"},
	} {
		a := d.ask(t, "alice", "/job/"+id, change)
		assert.True(t, a.refused(), "%s: %s", name, a.Body)
	}
	assert.Equal(t, "cpu-sev", field(t, id, "Partition"))
	must(t, "login", "alice", "touch", "go-"+id)
	await(t, id, "COMPLETED")
	idle(t)
	assert.Equal(t, "simulated", verdict(t, id))
	for _, argv := range [][]string{{"enclave", "report", id}, {"enclave", "jobs"}, {"enclave", "acct"}, {"enclave", "why", id}} {
		r := on(t, "n0", "root", argv...)
		assert.NotContains(t, r.out+r.errOut, "\x1b", argv)
	}
	for _, host := range []string{"n0", "n1", "n2"} {
		assert.NotZero(t, on(t, host, "root", "test", "-e", "/tmp/pwned").status, host)
	}
}

// nodes words a list of nodes as the suite's version has it.
func (restDoor) nodes(list string) any {
	if apiVersion() == "v0.0.38" {
		return list
	}
	return []string{list}
}

func (d restDoor) refuses(t *testing.T) {
	t.Helper()
	last := must(t, "n0", "root", "squeue", "-h", "-a", "-o", "%i")
	for name, c := range map[string]struct {
		user, says string
		fields     map[string]any
	}{
		"an account without a tenant":   {"carol", "Invalid account", map[string]any{"partition": "cpu-sev"}},
		"a list of both kinds":          {"alice", "ermission denied", map[string]any{"partition": "cpu,cpu-sev"}},
		"more nodes than there are":     {"alice", "Node count specification invalid", map[string]any{"partition": "cpu-sev", "minimum_nodes": 40}},
		"an account that is not theirs": {"alice", "Invalid account", map[string]any{"partition": "cpu-sev", "account": "astro"}},
	} {
		id, h := d.submit(t, c.user, "touch ran", c.fields)
		assert.Equal(t, "0", id, "%s: %s", name, h.Body)
		assert.Contains(t, h.Body, c.says, "%s: slurmrestd tells Slurm's own word and no other", name)
	}
	two := []any{}
	for _, partition := range []string{"cpu", "cpu-sev"} {
		two = append(two, wish("alice", "true", map[string]any{"partition": partition})["job"])
	}
	h := d.ask(t, "alice", "/job/submit", map[string]any{"jobs": two, "script": "#!/bin/sh\ntouch ran\n"})
	assert.True(t, h.refused(), "a heterogeneous job with an enclave component: %s", h.Body)
	assert.Equal(t, last, must(t, "n0", "root", "squeue", "-h", "-a", "-o", "%i"), "nothing is in the queue")
	for _, user := range []string{"alice", "carol"} {
		assert.NotZero(t, on(t, "login", user, "test", "-e", "ran").status, user)
	}
}
