//go:build e2e

package e2e_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// compatibility is the page whose table of releases is held against the daemons.
const compatibility = "../../../docs/compatibility.md"

// column is what the page says of a release, by row.
func column(t *testing.T, release string) map[string]string {
	t.Helper()
	page, err := os.ReadFile(compatibility)
	require.NoError(t, err)
	_, section, found := strings.Cut(string(page), "\n## What differs by release of Slurm\n")
	require.True(t, found)
	cells, at := map[string]string{}, 0
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "## ") {
			break
		}
		if !strings.HasPrefix(line, "|") {
			continue
		}
		fields := strings.Split(strings.TrimSpace(line), "|")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		switch {
		case at == 0:
			at = slices.IndexFunc(fields, func(f string) bool { return strings.HasPrefix(f, release) })
			require.Positive(t, at, "no column for %s", release)
		case !strings.HasPrefix(fields[1], "---"):
			require.Greater(t, len(fields), at, line)
			assert.NotContains(t, cells, fields[1], "two rows of one name")
			cells[fields[1]] = fields[at]
		}
	}
	require.NotEmpty(t, cells)
	return cells
}

// TestWhatDiffersByRelease holds every row of the table of releases against the running daemons. make matrix runs it on
// each release, so each column is.
func TestWhatDiffersByRelease(t *testing.T) {
	idle(t)
	cells := column(t, release(t))
	checks := releaseRows(t)
	// Rows with a test of their own, which is the same on all releases or asks for the release itself.
	elsewhere := map[string]func(*testing.T){
		"a plugin of another release":                       TestP1APluginOfAnotherReleaseOfSlurmLetsNothingRun,
		"`sbatch --stepmgr`":                                TestP1StepsOfAStepManagerOnTheNode,
		"AdminComment after the job's end keeps every byte": TestDriversKeepOneContract,
	}
	for row, want := range cells {
		t.Run(row, func(t *testing.T) {
			if check := checks[row]; check != nil {
				assert.Equal(t, want, check(t))
				return
			}
			assert.NotNil(t, elsewhere[row], "a row that no test looks at")
		})
	}
	for row := range checks {
		assert.Contains(t, cells, row, "a check without a row")
	}
	idle(t)
}
