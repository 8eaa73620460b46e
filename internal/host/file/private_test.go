package file_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
)

func TestPrivate(t *testing.T) {
	t.Parallel()
	write := func(t *testing.T, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "token")
		require.NoError(t, os.WriteFile(path, []byte("abc"), 0o600))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
	for _, mode := range []os.FileMode{0o400, 0o600} {
		b, err := file.Private(write(t, mode), 16)
		require.NoError(t, err)
		assert.Equal(t, "abc", string(b))
	}
	for _, mode := range []os.FileMode{0o440, 0o404, 0o420, 0o444, 0o601} {
		_, err := file.Private(write(t, mode), 16)
		require.ErrorIs(t, err, file.ErrInsecure, "mode %04o", mode)
		assert.NotContains(t, err.Error(), "abc")
	}
	t.Run("a link is not followed", func(t *testing.T) {
		t.Parallel()
		link := filepath.Join(t.TempDir(), "link")
		require.NoError(t, os.Symlink(write(t, 0o400), link))
		_, err := file.Private(link, 16)
		require.Error(t, err)
	})
	t.Run("a file over the limit is refused", func(t *testing.T) {
		t.Parallel()
		_, err := file.Private(write(t, 0o400), 2)
		require.Error(t, err)
	})
	t.Run("a file of somebody else is refused", func(t *testing.T) {
		t.Parallel()
		if os.Geteuid() != 0 {
			return // only root can give a file away, and root's tests run as well
		}
		path := write(t, 0o400)
		require.NoError(t, os.Chown(path, 12345, 12345))
		_, err := file.Private(path, 16)
		require.ErrorIs(t, err, file.ErrInsecure)
	})
}
