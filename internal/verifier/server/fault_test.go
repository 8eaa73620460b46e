package server_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// failures is a log of what the server could not answer.
type failures struct {
	mu   sync.Mutex
	text strings.Builder
}

func (f *failures) add(call string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.text.WriteString(call + ": " + err.Error() + "\n")
}

func (f *failures) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text.String()
}

func TestWhatNobodyIsToldIsInTheLog(t *testing.T) {
	t.Parallel()
	s := start(t)
	t.Run("not what the caller is told", func(t *testing.T) {
		_, err := s.person(2001).LatestEvidence(t.Context(), "n1")
		assert.Equal(t, "E132", code(err))
		assert.Empty(t, s.failed.String())
	})
	t.Run("a call that panics, by its name and where", func(t *testing.T) {
		s.levels.panics.Store(true)
		_, err := s.person(2002).Jobs(t.Context())
		require.Error(t, err)
		s.levels.panics.Store(false)
		text := s.failed.String()
		assert.Contains(t, text, "GET "+api.PathJobs+": panic: the test wants it")
		assert.Contains(t, text, "levels).Rank")
		assert.Equal(t, uint64(1), s.server.Refused()["panic"])
		_, err = s.person(2003).Jobs(t.Context())
		require.NoError(t, err, "the next one is answered")
	})
	t.Run("an error that is no refusal", func(t *testing.T) {
		w := httptest.NewRecorder()
		s.server.Answering(errors.New("the disk is on fire")).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/x", nil))
		assert.Contains(t, w.Body.String(), "E517")
		assert.NotContains(t, w.Body.String(), "fire")
		assert.Contains(t, s.failed.String(), "POST /v1/x: the disk is on fire\n")
	})
	t.Run("not that a caller hung up", func(t *testing.T) {
		before := s.failed.String()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.server.Answering(ctx.Err()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/x", nil))
		assert.Equal(t, before, s.failed.String())
	})
}
