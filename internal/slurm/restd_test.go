package slurm_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

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
