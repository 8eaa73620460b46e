package verifier_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
)

func TestParseCursor(t *testing.T) {
	t.Parallel()
	c, err := verifier.ParseCursor("1795338316123.4711.2")
	require.NoError(t, err)
	assert.EqualValues(t, 1795338316123, c.At.UnixMilli())
	assert.EqualValues(t, 4711, c.Job)
	assert.EqualValues(t, 2, c.Restart)
	c, err = verifier.ParseCursor("0")
	require.NoError(t, err)
	assert.Zero(t, c.At.UnixMilli())
	for _, bad := range []string{"", "x", "-1", "1.2", "1.2.3.4", "1.2.3 ", "1.-2.3", "+1.2.3", "1.4294967296.0", "99999999999999999999", "01", "1 "} {
		_, err = verifier.ParseCursor(bad)
		assert.Error(t, err, bad)
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add("1795338316123.4711.2")
	f.Add("1")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := verifier.ParseCursor(s)
		if err == nil {
			require.GreaterOrEqual(t, c.At.UnixMilli(), int64(0))
		}
	})
}
