package slurm_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// restd is a slurmrestd: it has the document of a release and answers "METHOD PATH" with what it was
// given; what it was asked is kept, one line per request, without the document.
type restd struct {
	mu       sync.Mutex
	document string
	answers  map[string]reply
	asked    []string
	headers  []http.Header
}

type reply struct {
	status int // 0 is 200
	body   string
}

func (s *restd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path == "/openapi/v3" {
		_, _ = io.WriteString(w, s.document)
		return
	}
	b, _ := io.ReadAll(r.Body)
	line := r.Method + " " + r.URL.Path
	s.asked = append(s.asked, strings.TrimSpace(line+" "+string(b)))
	s.headers = append(s.headers, r.Header)
	a, ok := s.answers[line]
	if !ok {
		a = reply{http.StatusNotFound, "Unable find requested URL"}
	}
	if a.status != 0 {
		w.WriteHeader(a.status)
	}
	_, _ = io.WriteString(w, a.body)
}

func recorded(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "rest", name+".json"))
	require.NoError(t, err)
	return string(b)
}

// release starts a slurmrestd of a release on a socket; the script stands for Slurm's commands.
func release(t testing.TB, name string, answers map[string]reply, commands ...answer) (*slurm.REST, *restd, *script) {
	t.Helper()
	s := &restd{document: recorded(t, "openapi-"+name), answers: answers}
	dir, err := os.MkdirTemp("", "rest") //nolint:usetesting // a socket has a short path, which t.TempDir has not
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	h := httptest.NewUnstartedServer(s)
	require.NoError(t, h.Listener.Close())
	h.Listener = l
	h.Start()
	t.Cleanup(h.Close)
	cli, sc := said(commands...)
	return slurm.NewREST(slurm.Endpoint{Socket: socket}, cli), s, sc
}

const fine = `{"meta":{},"errors":[],"warnings":[]}`

// running24 is a job as 24.11 tells it: numbers that may be unset or infinite, states with flags.
const running24 = `{"jobs":[{"account":"digimed","admin_comment":"JS1:Ab enclave={\"v\":\"simulated\"}","allocating_node":"login",
 "batch_flag":true,"job_id":4,"job_state":["RUNNING"],"name":"na|me\n4|x","comment":"the user's","nodes":"n[1-2]","partition":"cpu-sev","requeue":true,"restart_cnt":1,
 "time_limit":{"set":true,"infinite":false,"number":10},"user_id":2001,"a_field_of_tomorrow":{"x":[1,2]},
 "exit_code":{"status":["SUCCESS"],"return_code":{"set":true,"infinite":false,"number":0},"signal":{"id":{"set":false,"infinite":false,"number":0},"name":""}}}],
 "last_backfill":{"set":true},"errors":[],"warnings":[]}`

func TestRESTVersions(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		version string
		command []slurm.Duty
	}{
		"22.05": {"v0.0.38", []slurm.Duty{slurm.DutyJob, slurm.DutyComment, slurm.DutyStore, slurm.DutyNodeState, slurm.DutyRequeue, slurm.DutyNotify}},
		"24.11": {"v0.0.42", []slurm.Duty{slurm.DutyStore, slurm.DutyRequeue, slurm.DutyNotify}},
		"26.05": {"v0.0.45", []slurm.Duty{slurm.DutyNotify}},
	} {
		t.Run("the document of "+name+" says what goes by command", func(t *testing.T) {
			t.Parallel()
			r, _, _ := release(t, name, nil)
			v, err := r.Version(t.Context())
			require.NoError(t, err)
			assert.Equal(t, want.version, v)
			got, err := r.ByCommand(t.Context())
			require.NoError(t, err)
			assert.Equal(t, want.command, got)
		})
	}
	version := func(t *testing.T, edit func(string) string) (string, error) {
		t.Helper()
		r, s, _ := release(t, "26.05", nil)
		s.document = edit(s.document)
		return r.Version(t.Context())
	}
	t.Run("of newer versions beside a known one the known one is used", func(t *testing.T) {
		t.Parallel()
		v, err := version(t, strings.NewReplacer("v0.0.45", "v0.0.46", "v0.0.44", "v0.0.47").Replace)
		require.NoError(t, err)
		assert.Equal(t, "v0.0.43", v)
	})
	t.Run("of newer versions alone the nearest is used", func(t *testing.T) {
		t.Parallel()
		v, err := version(t, strings.NewReplacer("v0.0.42", "v0.0.62", "v0.0.43", "v0.0.63", "v0.0.44", "v0.0.64", "v0.0.45", "v0.0.165").Replace)
		require.NoError(t, err)
		assert.Equal(t, "v0.0.62", v)
	})
	t.Run("older versions alone are refused", func(t *testing.T) {
		t.Parallel()
		_, err := version(t, strings.NewReplacer("v0.0.42", "v0.0.35", "v0.0.43", "v0.0.34", "v0.0.44", "v0.0.33", "v0.0.45", "v0.0.9").Replace)
		require.ErrorIs(t, err, slurm.ErrVersion)
	})
	t.Run("what is no document is refused", func(t *testing.T) {
		t.Parallel()
		for _, text := range []string{"", "{}", "[]", "<html>", `{"paths":{"/slurm/v0.0.x/job":{}}}`, `{"paths":{"/slurm/v0.0.42/diag":{"get":{}}}}`} {
			_, err := version(t, func(string) string { return text })
			require.Error(t, err, text)
		}
	})
	t.Run("a call whose field is gone goes by command", func(t *testing.T) {
		t.Parallel()
		r, s, _ := release(t, "24.11", nil)
		s.document = strings.ReplaceAll(s.document, `"allocating_node"`, `"allocating_host"`)
		got, err := r.ByCommand(t.Context())
		require.NoError(t, err)
		assert.Contains(t, got, slurm.DutyJob)
	})
	t.Run("a slurmrestd that was exchanged is asked anew", func(t *testing.T) {
		t.Parallel()
		r, s, _ := release(t, "24.11", map[string]reply{"GET /slurm/v0.0.45/job/4": {body: running24}})
		v, err := r.Version(t.Context())
		require.NoError(t, err)
		require.Equal(t, "v0.0.42", v)
		s.mu.Lock()
		s.document = recorded(t, "openapi-26.05")
		s.mu.Unlock()
		_, err = r.Job(t.Context(), 4)
		require.NoError(t, err)
		assert.Equal(t, []string{"GET /slurm/v0.0.42/job/4", "GET /slurm/v0.0.45/job/4"}, s.asked)
	})
}

func TestRESTReads(t *testing.T) {
	t.Parallel()
	t.Run("a running job of 24.11", func(t *testing.T) {
		t.Parallel()
		r, s, sc := release(t, "24.11", map[string]reply{"GET /slurm/v0.0.42/job/4": {body: running24}})
		j, err := r.Job(t.Context(), 4)
		require.NoError(t, err)
		assert.Equal(t, slurm.Job{
			ID: 4, State: "RUNNING", Restarts: 1, Requeue: true, Batch: true, UID: 2001, TimeLimit: 10 * time.Minute,
			Partition: "cpu-sev", Account: "digimed", Nodes: "n[1-2]", AllocNode: "login",
		}, j)
		text, finished, err := r.AdminComment(t.Context(), 4)
		require.NoError(t, err)
		assert.False(t, finished)
		assert.Equal(t, `JS1:Ab enclave={"v":"simulated"}`, text)
		assert.Equal(t, []string{"GET /slurm/v0.0.42/job/4", "GET /slurm/v0.0.42/job/4"}, s.asked)
		assert.Empty(t, sc.asked)
	})
	t.Run("22.05 does not tell the submit host, so the job is read by command", func(t *testing.T) {
		t.Parallel()
		r, s, sc := release(t, "22.05", map[string]reply{"GET /slurm/v0.0.38/job/2": {body: recorded(t, "22.05-job-2")}}, answer{out: running})
		j, err := r.Job(t.Context(), 4)
		require.NoError(t, err)
		assert.Equal(t, "n0", j.AllocNode)
		assert.Empty(t, s.asked)
		assert.Len(t, sc.asked, 1)
	})
	t.Run("every spelling of a version means the same", func(t *testing.T) {
		t.Parallel()
		for old, now := range map[string]string{
			`["RUNNING"]`: `"RUNNING"`, `{"set":true,"infinite":false,"number":10}`: `10`, `"batch_flag":true`: `"batch_flag":1`,
			`"user_id":2001`: `"user_id":{"set":true,"infinite":false,"number":2001}`, `"job_id":4`: `"job_id":"4"`,
			`"restart_cnt":1`: `"restart_cnt":{"set":true,"infinite":false,"number":1}`,
		} {
			require.Contains(t, running24, old)
			r, _, _ := release(t, "24.11", map[string]reply{"GET /slurm/v0.0.42/job/4": {body: strings.Replace(running24, old, now, 1)}})
			j, err := r.Job(t.Context(), 4)
			require.NoError(t, err, now)
			assert.Equal(t, "RUNNING", j.State)
			assert.Equal(t, 10*time.Minute, j.TimeLimit)
			assert.EqualValues(t, 2001, j.UID)
			assert.EqualValues(t, 1, j.Restarts)
		}
	})
	t.Run("an exit code is the wait status that squeue prints", func(t *testing.T) {
		t.Parallel()
		_, code, _ := strings.Cut(running24, `"exit_code":`)
		code = strings.TrimSuffix(strings.SplitN(code, "}],", 2)[0], "")
		for text, want := range map[string]uint32{
			`{"status":["ERROR"],"return_code":{"set":true,"infinite":false,"number":1},"signal":{"id":{"set":false,"number":0}}}`:     1 << 8,
			`{"status":["SIGNALED"],"return_code":{"set":false,"infinite":false,"number":0},"signal":{"id":{"set":true,"number":15}}}`: 15,
			`{"status":"SIGNALED","return_code":0,"signal":{"signal_id":9,"name":"KILL"}}`:                                             9,
			`256`: 1 << 8, `null`: 0,
		} {
			require.Contains(t, running24, code)
			r, _, _ := release(t, "24.11", map[string]reply{"GET /slurm/v0.0.42/job/4": {body: strings.Replace(running24, code, text, 1)}})
			j, err := r.Job(t.Context(), 4)
			if text == "null" {
				require.Error(t, err)
				continue
			}
			require.NoError(t, err, text)
			assert.Equal(t, want, j.ExitCode, text)
		}
	})
	t.Run("a state with flags is the one word of squeue", func(t *testing.T) {
		t.Parallel()
		for words, want := range map[string]string{
			`["COMPLETED","COMPLETING"]`: "COMPLETING", `["RUNNING","CONFIGURING"]`: "CONFIGURING", `["PENDING","REQUEUED"]`: "REQUEUED",
			`["NODE_FAIL"]`: "NODE_FAIL", `["A_STATE_OF_TOMORROW"]`: "A_STATE_OF_TOMORROW", `["RUNNING","A_FLAG_OF_TOMORROW"]`: "RUNNING",
		} {
			r, _, _ := release(t, "24.11", map[string]reply{"GET /slurm/v0.0.42/job/4": {body: strings.Replace(running24, `["RUNNING"]`, words, 1)}})
			j, err := r.Job(t.Context(), 4)
			require.NoError(t, err)
			assert.Equal(t, want, j.State, words)
		}
	})
	t.Run("a node list of a thousand names with domains comes whole", func(t *testing.T) {
		t.Parallel()
		names := make([]string, 1000)
		for i := range names {
			names[i] = fmt.Sprintf("cpu-sev-%04d.muc1.example.org", i*7%9973)
		}
		list := strings.Join(names, ",")
		r, _, _ := release(t, "24.11", map[string]reply{"GET /slurm/v0.0.42/job/4": {body: strings.Replace(running24, "n[1-2]", list, 1)}})
		j, err := r.Job(t.Context(), 4)
		require.NoError(t, err)
		assert.Equal(t, list, j.Nodes)
	})
}

func TestRESTNode(t *testing.T) {
	t.Parallel()
	drained := slurm.Node{Name: "n1", State: []string{"allocated", "drain"}, Reason: `enclave:E207 "x" y`}
	t.Run("a drained node of 22.05", func(t *testing.T) {
		t.Parallel()
		r, _, sc := release(t, "22.05", map[string]reply{"GET /slurm/v0.0.38/node/n1": {body: recorded(t, "22.05-node-drain")}})
		n, err := r.Node(t.Context(), "n1")
		require.NoError(t, err)
		assert.Equal(t, drained, n)
		assert.True(t, n.Drained())
		assert.Empty(t, sc.asked)
	})
	t.Run("a drained node of 24.11", func(t *testing.T) {
		t.Parallel()
		body := `{"nodes":[{"name":"n1","state":["ALLOCATED","DRAIN"],"reason":"enclave:E207 \"x\" y","weight":1}],"errors":[]}`
		r, _, _ := release(t, "24.11", map[string]reply{"GET /slurm/v0.0.42/node/n1": {body: body}})
		n, err := r.Node(t.Context(), "n1")
		require.NoError(t, err)
		assert.Equal(t, drained, n)
	})
	t.Run("an unknown node", func(t *testing.T) {
		t.Parallel()
		r, _, _ := release(t, "22.05", map[string]reply{"GET /slurm/v0.0.38/node/n99": {http.StatusInternalServerError, recorded(t, "22.05-node99")}})
		_, err := r.Node(t.Context(), "n99")
		require.ErrorIs(t, err, slurm.ErrNoNode)
	})
	t.Run("a name that is none reaches neither server nor command", func(t *testing.T) {
		t.Parallel()
		r, s, sc := release(t, "24.11", nil)
		for _, name := range []string{"", "n1,n2", "n[1-9]", "../job/4", "n1?x", "n1/../n2", "-n1"} {
			_, err := r.Node(t.Context(), name)
			require.Error(t, err, name)
			require.Error(t, r.Drain(t.Context(), name, "enclave:E220 x"), name)
			require.Error(t, r.Resume(t.Context(), name), name)
		}
		assert.Empty(t, s.asked)
		assert.Empty(t, sc.asked)
	})
}

func TestRESTStoredComment(t *testing.T) {
	t.Parallel()
	t.Run("of a requeued job it is the latest start's", func(t *testing.T) {
		t.Parallel()
		over := strings.Replace(running, "RUNNING", "COMPLETED", 1)
		r, _, _ := release(t, "22.05", map[string]reply{"GET /slurmdb/v0.0.38/job/1": {body: recorded(t, "22.05-db-1")}},
			answer{out: strings.Replace(over, "4|", "1|", 1)})
		text, finished, err := r.AdminComment(t.Context(), 1)
		require.NoError(t, err)
		assert.True(t, finished)
		assert.Empty(t, text, "the first start has a text, the second none")
	})
	t.Run("of a job that nobody knows there is none", func(t *testing.T) {
		t.Parallel()
		r, _, _ := release(t, "22.05", map[string]reply{"GET /slurmdb/v0.0.38/job/99": {body: recorded(t, "22.05-db-99")}},
			answer{stderr: "slurm_load_jobs error: Invalid job id specified"})
		_, _, err := r.AdminComment(t.Context(), 99)
		require.ErrorIs(t, err, slurm.ErrNoJob)
	})
}

func TestRESTWrites(t *testing.T) {
	t.Parallel()
	evil := `enclave={"v":"refused","t":"it's; $(reboot)"}` + "\nline"
	t.Run("26.05 takes every act but one", func(t *testing.T) {
		t.Parallel()
		r, s, sc := release(t, "26.05", map[string]reply{
			"POST /slurm/v0.0.45/node/n1": {body: fine}, "POST /slurm/v0.0.45/job/4": {body: fine}, "DELETE /slurm/v0.0.45/job/4": {body: fine},
			"POST /slurm/v0.0.45/jobs/requeue": {body: `{"status":[{"job_id":4,"error_code":0,"error":"No error"}],"errors":[]}`}, "POST /slurmdb/v0.0.45/job/4": {body: fine},
		})
		ctx := t.Context()
		require.NoError(t, r.Drain(ctx, "n1", "enclave:E220 report\nState=RESUME"))
		require.NoError(t, r.Resume(ctx, "n1"))
		require.NoError(t, r.SetAdminComment(ctx, 4, evil))
		require.NoError(t, r.SetStoredComment(ctx, 4, evil))
		require.NoError(t, r.Requeue(ctx, 4))
		require.NoError(t, r.Cancel(ctx, 4))
		require.NoError(t, r.Notify(ctx, 4, "enclave: E102"))
		assert.Equal(t, []string{
			`POST /slurm/v0.0.45/node/n1 {"state":["DRAIN"],"reason":"enclave:E220 report?State=RESUME"}`,
			`POST /slurm/v0.0.45/node/n1 {"state":["RESUME"]}`,
			`POST /slurm/v0.0.45/job/4 {"admin_comment":"enclave={\"v\":\"refused\",\"t\":\"it's; $(reboot)\"}\nline"}`,
			`POST /slurmdb/v0.0.45/job/4 {"comment":{"administrator":"enclave={\"v\":\"refused\",\"t\":\"it's; $(reboot)\"}\nline"}}`,
			`POST /slurm/v0.0.45/jobs/requeue {"jobs":["4"]}`,
			`DELETE /slurm/v0.0.45/job/4`,
		}, s.asked)
		assert.Equal(t, []string{`scontrol ["notify" "4" "enclave: E102"]`}, sc.asked)
	})
	t.Run("22.05 takes one", func(t *testing.T) {
		t.Parallel()
		r, s, sc := release(t, "22.05", map[string]reply{"DELETE /slurm/v0.0.38/job/4": {body: fine}})
		ctx := t.Context()
		require.NoError(t, r.Drain(ctx, "n1", "enclave:E220 x"))
		require.NoError(t, r.Resume(ctx, "n1"))
		require.NoError(t, r.SetAdminComment(ctx, 4, "x"))
		require.ErrorIs(t, r.SetStoredComment(ctx, 4, evil), slurm.ErrLossy)
		require.NoError(t, r.Requeue(ctx, 4))
		require.NoError(t, r.Cancel(ctx, 4))
		assert.Equal(t, []string{"DELETE /slurm/v0.0.38/job/4"}, s.asked)
		assert.Len(t, sc.asked, 4)
	})
	t.Run("an error in an answer with status 200 is one", func(t *testing.T) {
		t.Parallel()
		r, _, _ := release(t, "24.11", map[string]reply{"POST /slurm/v0.0.42/job/4": {body: recorded(t, "22.05-post-comment")}})
		err := r.SetAdminComment(t.Context(), 4, "x")
		require.ErrorContains(t, err, "Failure during parsing")
	})
	t.Run("answers have names", func(t *testing.T) {
		t.Parallel()
		say := func(n int) reply {
			return reply{http.StatusInternalServerError, fmt.Sprintf(`{"errors":[{"error_number":%d,"error":"x","description":"y","source":"z"}]}`, n)}
		}
		r, _, _ := release(t, "26.05", map[string]reply{
			"POST /slurm/v0.0.45/job/4": say(2084), "DELETE /slurm/v0.0.45/job/4": say(2021), "DELETE /slurm/v0.0.45/job/5": say(2017),
			"POST /slurm/v0.0.45/node/n9":      say(2018),
			"POST /slurm/v0.0.45/jobs/requeue": {body: `{"status":[{"job_id":4,"error_code":2039,"error":"Only batch"}],"errors":[]}`}, "POST /slurm/v0.0.45/node/n1": say(2002),
			"POST /slurmdb/v0.0.45/job/4": say(9003),
		})
		ctx := t.Context()
		require.ErrorIs(t, r.SetAdminComment(ctx, 4, "x"), slurm.ErrFinished)
		require.NoError(t, r.Cancel(ctx, 4), "a job that is over already")
		require.ErrorIs(t, r.Cancel(ctx, 5), slurm.ErrNoJob)
		require.ErrorIs(t, r.Drain(ctx, "n9", "enclave:E220 x"), slurm.ErrNoNode)
		require.ErrorIs(t, r.Requeue(ctx, 4), slurm.ErrInteractive)
		require.ErrorIs(t, r.SetStoredComment(ctx, 4, "x"), slurm.ErrNoJob)
		require.ErrorContains(t, r.Drain(ctx, "n1", "enclave:E220 x"), "(2002)")
	})
}

func TestRESTFailsClosed(t *testing.T) {
	t.Parallel()
	const path = "GET /slurm/v0.0.42/job/4"
	for name, a := range map[string]reply{
		"a job list that is missing":        {body: fine},
		"a job list that is null":           {body: `{"jobs":null,"errors":[]}`},
		"an error without a number":         {http.StatusInternalServerError, `{"jobs":[],"errors":[{"error":"Unable to contact slurm controller"}]}`},
		"an error with another number":      {http.StatusInternalServerError, `{"jobs":[],"errors":[{"error_number":1800,"error":"Unable to contact slurm controller"}]}`},
		"status 500 with an empty job list": {status: http.StatusInternalServerError, body: `{"jobs":[]}`},
		"status 401":                        {http.StatusUnauthorized, "Authentication failure"},
		"a page of HTML":                    {body: "<html>"},
		"nothing":                           {},
		"half an answer":                    {body: running24[:200]},
		"a job without a state":             {body: strings.Replace(running24, `"job_state"`, `"x"`, 1)},
		"a job without a restart count":     {body: strings.Replace(running24, `"restart_cnt"`, `"x"`, 1)},
		"a job without its user":            {body: strings.Replace(running24, `"user_id"`, `"x"`, 1)},
		"a job without its partition":       {body: strings.Replace(running24, `"partition"`, `"x"`, 1)},
		"a job without an exit code":        {body: strings.Replace(running24, `"exit_code"`, `"x"`, 1)},
		"a user that is not set":            {body: strings.Replace(running24, `"user_id":2001`, `"user_id":{"set":false,"number":0}`, 1)},
		"a negative user":                   {body: strings.Replace(running24, `2001`, `-1`, 1)},
		"a fraction":                        {body: strings.Replace(running24, `2001`, `1.5`, 1)},
		"a user over 32 bits":               {body: strings.Replace(running24, `2001`, `4294967296`, 1)},
		"a state with a space":              {body: strings.Replace(running24, `["RUNNING"]`, `["RUNNING x"]`, 1)},
		"a redirect":                        {http.StatusFound, ""},
	} {
		t.Run(name+" is an error, not a job that is gone", func(t *testing.T) {
			t.Parallel()
			r, _, sc := release(t, "24.11", map[string]reply{path: a})
			_, err := r.Job(t.Context(), 4)
			require.Error(t, err)
			require.NotErrorIs(t, err, slurm.ErrNoJob)
			assert.Empty(t, sc.asked, "the commands are not asked instead")
		})
	}
	t.Run("a job that slurm forgot has a name of its own", func(t *testing.T) {
		t.Parallel()
		r, _, _ := release(t, "24.11", map[string]reply{
			"GET /slurm/v0.0.42/job/99": {http.StatusInternalServerError, recorded(t, "22.05-job-99")}, path: {body: `{"jobs":[],"errors":[]}`},
		})
		_, err := r.Job(t.Context(), 99)
		require.ErrorIs(t, err, slurm.ErrNoJob)
		_, err = r.Job(t.Context(), 4)
		require.ErrorIs(t, err, slurm.ErrNoJob)
	})
	t.Run("a job that is told twice is an error", func(t *testing.T) {
		t.Parallel()
		_, one, _ := strings.Cut(strings.TrimPrefix(running24, `{"jobs":[`), "")
		one, _, _ = strings.Cut(one, "],\n")
		r, _, _ := release(t, "24.11", map[string]reply{path: {body: `{"jobs":[` + one + "," + one + `],"errors":[]}`}})
		_, err := r.Job(t.Context(), 4)
		require.ErrorContains(t, err, "2 times")
	})
	t.Run("a submit host that is no host name is unknown, not passed on", func(t *testing.T) {
		t.Parallel()
		r, _, _ := release(t, "24.11", map[string]reply{path: {body: strings.Replace(running24, `"login"`, `"-x;reboot"`, 1)}})
		j, err := r.Job(t.Context(), 4)
		require.NoError(t, err)
		assert.Empty(t, j.AllocNode)
	})
	t.Run("an answer without end is given up", func(t *testing.T) {
		t.Parallel()
		r, _, _ := release(t, "24.11", map[string]reply{path: {body: `{"jobs":[` + strings.Repeat(" ", 33<<20)}})
		_, err := r.Job(t.Context(), 4)
		require.ErrorContains(t, err, "over")
	})
	t.Run("a server that is away is an error and no command", func(t *testing.T) {
		t.Parallel()
		cli, sc := said(answer{out: running})
		r := slurm.NewREST(slurm.Endpoint{Socket: filepath.Join(t.TempDir(), "none")}, cli)
		_, err := r.Job(t.Context(), 4)
		require.Error(t, err)
		require.NotErrorIs(t, err, slurm.ErrNoJob)
		require.Error(t, r.Drain(t.Context(), "n1", "enclave:E220 x"))
		assert.Empty(t, sc.asked)
	})
}

func TestRESTToken(t *testing.T) {
	t.Parallel()
	const secret = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0.xyz"
	s := &restd{document: recorded(t, "openapi-24.11"), answers: map[string]reply{
		"GET /slurm/v0.0.42/job/4": {body: running24}, "GET /slurm/v0.0.42/job/5": {http.StatusUnauthorized, "Authentication failure"},
	}}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	read := 0
	cli, _ := said()
	r := slurm.NewREST(slurm.Endpoint{URL: h.URL + "/", User: "enclave", Token: func() (enclave.Secret, error) {
		read++
		return enclave.NewSecret([]byte(secret)), nil
	}}, cli)
	_, err := r.Job(t.Context(), 4)
	require.NoError(t, err)
	assert.Equal(t, "enclave", s.headers[0].Get("X-SLURM-USER-NAME"))
	assert.Equal(t, secret, s.headers[0].Get("X-SLURM-USER-TOKEN"))
	assert.Equal(t, 2, read, "once for each request, the document's included")
	_, err = r.Job(t.Context(), 5)
	require.ErrorContains(t, err, "token must be valid")
	assert.NotContains(t, fmt.Sprintf("%+v %#v", err, err), secret)
	assert.NotContains(t, fmt.Sprintf("%+v %#v", r, r), secret)
	t.Run("a redirect does not carry it away", func(t *testing.T) {
		thief := &restd{}
		other := httptest.NewServer(thief)
		t.Cleanup(other.Close)
		front := httptest.NewServer(http.RedirectHandler(other.URL+"/x", http.StatusTemporaryRedirect))
		t.Cleanup(front.Close)
		away := slurm.NewREST(slurm.Endpoint{URL: front.URL, User: "enclave", Token: func() (enclave.Secret, error) {
			return enclave.NewSecret([]byte(secret)), nil
		}}, cli)
		_, err := away.Job(t.Context(), 4)
		require.Error(t, err)
		assert.Empty(t, thief.asked)
	})
}

func FuzzREST(f *testing.F) {
	for _, name := range []string{"22.05-job-2", "22.05-node-drain", "22.05-node99", "22.05-job-99", "22.05-db-1", "22.05-db-99", "22.05-post-comment"} {
		f.Add(recorded(f, name), recorded(f, "openapi-24.11"))
	}
	f.Add(running24, recorded(f, "openapi-26.05"))
	f.Add(`{"status":[{"error_code":2039}]}`, recorded(f, "openapi-22.05"))
	f.Fuzz(func(t *testing.T, body, document string) {
		slurm.Judge(t, body, document)
	})
}
