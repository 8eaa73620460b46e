package slurm_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

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
