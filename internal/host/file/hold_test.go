package file_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
)

func TestHold(t *testing.T) {
	dir := t.TempDir()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	release, err := file.Hold(over, dir)
	require.NoError(t, err, "who is alone need not wait")
	_, err = file.Hold(over, dir)
	require.ErrorIs(t, err, file.ErrHeld)
	t.Run("who waits gets it when it is let go", func(t *testing.T) {
		time.AfterFunc(10*time.Millisecond, release)
		again, err := file.Hold(t.Context(), dir)
		require.NoError(t, err)
		again()
	})
	t.Run("a directory that is not there can't be held", func(t *testing.T) {
		_, err := file.Hold(t.Context(), filepath.Join(dir, "none"))
		require.Error(t, err)
		assert.NotErrorIs(t, err, file.ErrHeld)
	})
}
