package server_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

func TestEvidenceIsReadWhenItsTurnHasCome(t *testing.T) {
	t.Parallel()
	s := start(t)
	k := s.register(7, "n1")
	leave := s.server.Occupy()
	done := make(chan error, 1)
	go func() { done <- s.run(k, "n1") }()
	select {
	case err := <-done:
		require.Fail(t, "a node went by those before it", "%v", err)
	case <-time.After(300 * time.Millisecond):
	}
	t.Run("calls of other kinds do not wait for it", func(t *testing.T) {
		other := s.register(8, "n2")
		_, err := s.node("n2").Leaves(t.Context(), api.NodeRequest{Job: other, Node: "n2", Epoch: 1})
		assert.Equal(t, "E502", code(err), "it was answered: there is no roster yet")
	})
	leave()
	require.NoError(t, <-done, "and then it comes through both barriers")
}
