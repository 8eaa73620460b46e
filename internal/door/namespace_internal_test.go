package door

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

func TestWhatIsHeardFromInside(t *testing.T) {
	t.Run("a level is a view", func(t *testing.T) {
		level, err := heardInside([]byte(`{"assurance":"L1"}`), nil)
		require.NoError(t, err)
		assert.Equal(t, "L1", level)
	})
	t.Run("a refusal keeps its code and whose fault it is", func(t *testing.T) {
		var out strings.Builder
		status := viewInside(t.Context(), strings.NewReader("no plan"), &out)
		assert.Equal(t, exitBroken, status)
		_, err := heardInside([]byte(out.String()), errors.New("exit status 1"))
		r, ok := enclave.AsRefusal(err)
		require.True(t, ok)
		assert.Equal(t, subtree.CodeMake, r.Code)
		assert.Equal(t, enclave.FaultNode, r.Fault)
	})
	for name, c := range map[string]struct {
		out string
		err error
	}{
		"silence":                                 {"", nil},
		"silence and a death":                     {"", errors.New("signal: killed")},
		"half a word":                             {`{"assurance":`, nil},
		"a level of a program that failed":        {`{"assurance":"L1"}`, errors.New("exit status 1")},
		"a level, and then something that is not": {`{"assurance":"L1"}x`, nil},
	} {
		t.Run(name+" is no view", func(t *testing.T) {
			_, err := heardInside([]byte(c.out), c.err)
			r, ok := enclave.AsRefusal(err)
			require.True(t, ok)
			assert.Equal(t, subtree.CodeMake, r.Code)
		})
	}
}
