package slurm_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

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
	t.Run("an unknown node since 24.11 is error number 0", func(t *testing.T) {
		t.Parallel()
		body := `{"errors":[{"description":"Failure to query node n99","error_number":0,"error":"No error","source":"x"}]}`
		r, _, _ := release(t, "26.05", map[string]reply{
			"GET /slurm/v0.0.45/node/n99": {http.StatusInternalServerError, body}, "GET /slurm/v0.0.45/node/n98": {http.StatusInternalServerError, strings.Replace(body, ":0", ":1800", 1)},
			"GET /slurm/v0.0.45/node/n97": {http.StatusInternalServerError, strings.Replace(body, `"error_number":0,`, "", 1)},
		})
		_, err := r.Node(t.Context(), "n99")
		require.ErrorIs(t, err, slurm.ErrNoNode)
		for _, name := range []string{"n98", "n97"} {
			_, err = r.Node(t.Context(), name)
			require.Error(t, err)
			require.NotErrorIs(t, err, slurm.ErrNoNode, name)
		}
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
			"GET /slurm/v0.0.45/job/4": {body: lone}, "GET /slurmdb/v0.0.45/job/4": {body: storedLone}, "POST /slurm/v0.0.45/node/n1": {body: fine}, "POST /slurm/v0.0.45/job/4": {body: fine}, "DELETE /slurm/v0.0.45/job/4": {body: fine},
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
			`GET /slurm/v0.0.45/job/4`,
			`POST /slurm/v0.0.45/job/4 {"admin_comment":"enclave={\"v\":\"refused\",\"t\":\"it's; $(reboot)\"}\nline"}`,
			`GET /slurmdb/v0.0.45/job/4`,
			`GET /slurm/v0.0.45/job/4`,
			`POST /slurmdb/v0.0.45/job/4 {"comment":{"administrator":"enclave={\"v\":\"refused\",\"t\":\"it's; $(reboot)\"}\nline"}}`,
			`GET /slurm/v0.0.45/job/4`,
			`POST /slurm/v0.0.45/jobs/requeue {"jobs":["4"]}`,
			`GET /slurm/v0.0.45/job/4`,
			`DELETE /slurm/v0.0.45/job/4`,
		}, s.asked)
		assert.Equal(t, []string{`scontrol ["notify" "4" "enclave: E102"]`}, sc.asked)
	})
	t.Run("22.05 takes one", func(t *testing.T) {
		t.Parallel()
		r, s, sc := release(t, "22.05", map[string]reply{"DELETE /slurm/v0.0.38/job/4": {body: fine}},
			answer{}, answer{}, answer{out: single}, answer{}, answer{out: single}, answer{}, answer{out: single})
		ctx := t.Context()
		require.NoError(t, r.Drain(ctx, "n1", "enclave:E220 x"))
		require.NoError(t, r.Resume(ctx, "n1"))
		require.NoError(t, r.SetAdminComment(ctx, 4, "x"))
		require.ErrorIs(t, r.SetStoredComment(ctx, 4, evil), slurm.ErrLossy)
		require.NoError(t, r.Requeue(ctx, 4))
		require.NoError(t, r.Cancel(ctx, 4))
		assert.Equal(t, []string{"DELETE /slurm/v0.0.38/job/4"}, s.asked)
		assert.Len(t, sc.asked, 7, "four acts, and three questions which element of an array the job is")
	})
	t.Run("an error in an answer with status 200 is one", func(t *testing.T) {
		t.Parallel()
		r, _, _ := release(t, "24.11", map[string]reply{
			"GET /slurm/v0.0.42/job/4": {body: lone}, "POST /slurm/v0.0.42/job/4": {body: recorded(t, "22.05-post-comment")},
		})
		err := r.SetAdminComment(t.Context(), 4, "x")
		require.ErrorContains(t, err, "Failure during parsing")
	})
	t.Run("answers have names", func(t *testing.T) {
		t.Parallel()
		say := func(n int) reply {
			return reply{http.StatusInternalServerError, fmt.Sprintf(`{"errors":[{"error_number":%d,"error":"x","description":"y","source":"z"}]}`, n)}
		}
		killed := func(code int) reply {
			return reply{0, fmt.Sprintf(`{"errors":[],"status":[{"error":{"string":"x","code":%d,"message":"m"},"step_id":"4","job_id":{"set":true,"number":4}}]}`, code)}
		}
		known := func(answers map[string]reply) map[string]reply {
			for id := 4; id <= 8; id++ {
				answers[fmt.Sprintf("GET /slurm/v0.0.45/job/%d", id)] = reply{body: strings.Replace(lone, `"job_id":4`, fmt.Sprintf(`"job_id":%d`, id), 1)}
				answers[fmt.Sprintf("GET /slurmdb/v0.0.45/job/%d", id)] = reply{body: strings.Replace(storedLone, `"job_id":4`, fmt.Sprintf(`"job_id":%d`, id), 1)}
			}
			return answers
		}
		again, _, _ := release(t, "26.05", known(map[string]reply{
			"DELETE /slurm/v0.0.45/job/4": killed(2021), "DELETE /slurm/v0.0.45/job/5": killed(2017), "DELETE /slurm/v0.0.45/job/6": killed(2002), "DELETE /slurm/v0.0.45/job/7": killed(0),
			"DELETE /slurm/v0.0.45/job/8": {body: `{"errors":[],"status":[{"error":{"string":"x"}}]}`},
			"POST /slurm/v0.0.45/job/4":   {body: `{"errors":[],"results":[{"job_id":4,"error_code":2084,"error":"finished"}]}`},
		}))
		require.NoError(t, again.Cancel(t.Context(), 4))
		require.ErrorIs(t, again.Cancel(t.Context(), 5), slurm.ErrNoJob)
		require.ErrorContains(t, again.Cancel(t.Context(), 6), "(2002)")
		require.NoError(t, again.Cancel(t.Context(), 7))
		require.ErrorContains(t, again.Cancel(t.Context(), 8), "without a code")
		require.ErrorIs(t, again.SetAdminComment(t.Context(), 4, "x"), slurm.ErrFinished)
		r, _, _ := release(t, "26.05", known(map[string]reply{
			"POST /slurm/v0.0.45/job/4": say(2084), "DELETE /slurm/v0.0.45/job/4": say(2021), "DELETE /slurm/v0.0.45/job/5": say(2017),
			"POST /slurm/v0.0.45/node/n9":      say(2018),
			"POST /slurm/v0.0.45/jobs/requeue": {body: `{"status":[{"job_id":4,"error_code":2039,"error":"Only batch"}],"errors":[]}`}, "POST /slurm/v0.0.45/node/n1": say(2002),
			"POST /slurmdb/v0.0.45/job/4": say(9003), "POST /slurmdb/v0.0.45/job/5": {status: http.StatusNotModified},
		}))
		ctx := t.Context()
		require.ErrorIs(t, r.SetAdminComment(ctx, 4, "x"), slurm.ErrFinished)
		require.NoError(t, r.Cancel(ctx, 4), "a job that is over already")
		require.ErrorIs(t, r.Cancel(ctx, 5), slurm.ErrNoJob)
		require.ErrorIs(t, r.Drain(ctx, "n9", "enclave:E220 x"), slurm.ErrNoNode)
		require.ErrorIs(t, r.Requeue(ctx, 4), slurm.ErrInteractive)
		require.ErrorIs(t, r.SetStoredComment(ctx, 4, "x"), slurm.ErrNoJob)
		require.ErrorIs(t, r.SetStoredComment(ctx, 5, "x"), slurm.ErrNoJob)
		require.ErrorContains(t, r.Drain(ctx, "n1", "enclave:E220 x"), "(2002)")
	})
}
