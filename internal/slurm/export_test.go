package slurm

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Judge reads body as every kind of answer and document as slurmrestd's, and holds what comes out to
// what callers rely on.
func Judge(t *testing.T, body, document string) {
	t.Helper()
	a, err := parseAnswer([]byte(body))
	if err != nil && named(err) {
		require.NotEmpty(t, err.Error())
	}
	if found, err := a.job(4); err == nil {
		if j, err := found.value(); err == nil {
			require.Equal(t, uint32(4), j.ID)
			require.NotEmpty(t, j.State)
			require.NotContains(t, j.State, " ")
			require.NotContains(t, j.AllocNode, "\n")
			require.GreaterOrEqual(t, j.TimeLimit, j.TimeLimit.Abs())
		}
	}
	_, _ = a.latest(4)
	if n, err := a.node("n1"); err == nil {
		require.Equal(t, "n1", n.Name)
		require.NotEmpty(t, n.State)
	}
	if o, err := parseOffer([]byte(document)); err == nil {
		require.Regexp(t, `^v0\.0\.[0-9]+$`, o.version)
		require.NotEmpty(t, o.paths)
	}
}
