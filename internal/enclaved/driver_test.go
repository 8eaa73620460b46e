package enclaved

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

func TestDriver(t *testing.T) {
	t.Parallel()
	t.Run("commands are the default", func(t *testing.T) {
		t.Parallel()
		assert.IsType(t, &slurm.CLI{}, driver(config.Default().Slurm))
	})
	t.Run("slurmrestd is asked where the site says so", func(t *testing.T) {
		t.Parallel()
		assert.IsType(t, &slurm.REST{}, driver(config.Slurm{Driver: "rest", Rest: config.Rest{Socket: "/run/x"}}))
		assert.Nil(t, endpoint(config.Rest{Socket: "/run/x"}).Token, "on a socket nobody shows a token")
	})
	token := func(t *testing.T, text string, mode os.FileMode) (string, error) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "token")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.NoError(t, os.Chmod(path, mode))
		s, err := endpoint(config.Rest{URL: "https://a", TokenFile: path}).Token()
		assert.NotContains(t, fmt.Sprintf("%v %+v", s, err), "eyJ")
		return string(s.Bytes()), err
	}
	t.Run("a token is read as scontrol prints it, or bare", func(t *testing.T) {
		t.Parallel()
		for _, text := range []string{"SLURM_JWT=eyJ.a.b\n", "eyJ.a.b", " eyJ.a.b \n\n"} {
			got, err := token(t, text, 0o400)
			require.NoError(t, err)
			assert.Equal(t, "eyJ.a.b", got)
		}
	})
	t.Run("a file that is no token is refused without showing it", func(t *testing.T) {
		t.Parallel()
		for _, text := range []string{"", "SLURM_JWT=\n", "eyJ.a.b\neyJ.c.d\n", "eyJ\x00", "eyJ\r\nX-Forged: 1"} {
			_, err := token(t, text, 0o400)
			require.Error(t, err)
		}
	})
	t.Run("a token that others can read is refused", func(t *testing.T) {
		t.Parallel()
		_, err := token(t, "eyJ.a.b", 0o444)
		require.Error(t, err)
	})
}
