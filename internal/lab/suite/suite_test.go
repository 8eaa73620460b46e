package suite_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/lab/suite"
)

func TestSuites(t *testing.T) {
	t.Run("every suite has a root of its own", func(t *testing.T) {
		seen := map[string]bool{}
		for _, name := range suite.Names() {
			require.NoError(t, suite.Check(name))
			path := suite.Path(name)
			assert.Equal(t, suite.Directory, filepath.Dir(path))
			assert.False(t, seen[path], path)
			seen[path] = true
		}
	})
	t.Run("a name that would lead elsewhere is refused before anything runs", func(t *testing.T) {
		for _, bad := range []string{"", "../trixie", "trixie/..", "jessie", "trixie;true"} {
			_, err := suite.Build(t.Context(), bad, nil)
			require.ErrorContains(t, err, "there are bookworm, trixie, forky, sid", bad)
		}
	})
}
