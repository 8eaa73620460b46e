package cli_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/cli"
)

// spelled is how a code stands in the sources: as a string of Go, C or Lua.
var spelled = regexp.MustCompile(`"(E[0-9]{3})["\s:]`)

func TestEveryCodeIsExplained(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, e := range cli.Explanations() {
		assert.False(t, known[string(e.Code)], "%s twice", e.Code)
		known[string(e.Code)] = true
		assert.Regexp(t, `^E[0-9]{3}$`, string(e.Code))
		for _, text := range []string{e.Cause, e.Effect, e.Fix} {
			assert.Regexp(t, `^[ -~]+[.?]$`, text, "%s: want sentences in ASCII", e.Code)
		}
	}
	used := map[string]string{}
	for _, dir := range []string{"internal", "cmd", "prolog", "epilog", "spank", "etc"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) || err == nil && (d.IsDir() || !isSource(path)) {
				return nil
			}
			if err != nil {
				return err
			}
			b, err := os.ReadFile(path)
			for line := range strings.Lines(string(b)) {
				code, _, _ := strings.Cut(line, "//")
				for _, m := range spelled.FindAllStringSubmatch(code, -1) {
					used[m[1]] = path
				}
			}
			return err
		})
		require.NoError(t, err)
	}
	require.Greater(t, len(used), 20, "the search found too little to mean anything")
	for code, path := range used {
		assert.True(t, known[code], "%s of %s has no explanation", code, path)
	}
}

func isSource(path string) bool {
	if strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/internal/cli/") || strings.Contains(path, "test/") {
		return false
	}
	switch filepath.Ext(path) {
	case ".go", ".c", ".h", ".lua":
		return true
	}
	return false
}
