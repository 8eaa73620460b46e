package lab

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestName(t *testing.T) {
	t.Run("labs with different names keep apart", func(t *testing.T) {
		t.Setenv(NameVariable, "")
		assert.Equal(t, "/run/enclave-lab", Directory())
		t.Setenv(NameVariable, "two2")
		require.NoError(t, CheckName())
		assert.Equal(t, "/run/enclave-lab-two2", Directory())
	})
	t.Run("a name that would lead elsewhere is refused", func(t *testing.T) {
		for _, bad := range []string{"../x", "A", "a b", "a/b", "12345678901234567"} {
			t.Setenv(NameVariable, bad)
			assert.ErrorContains(t, CheckName(), "at most 16 small letters and digits", bad)
		}
	})
}
