package gate_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/gate"
)

const viewText = `slurm-enclave-view 1
job 4711
boot 1b4e28ba-2fa1-11d2-883f-0016d3cca427
namespace 4026532000
end
`

func TestView(t *testing.T) {
	good := gate.View{Job: 4711, Boot: boot, Namespace: 4026532000}
	b, err := good.MarshalText()
	require.NoError(t, err)
	assert.Equal(t, viewText, string(b))
	var v gate.View
	require.NoError(t, v.UnmarshalText(b))
	assert.Equal(t, good, v)

	for name, c := range map[string][2]string{
		"another version":                  {"view 1", "view 2"},
		"job 0":                            {"job 4711", "job 0"},
		"a leading zero":                   {"namespace 4", "namespace 04"},
		"a sign":                           {"namespace 4", "namespace -4"},
		"a number beyond 64 bits":          {"4026532000", "18446744073709551616"},
		"another boot id":                  {"boot 1b", "boot 1B"},
		"lines after it":                   {"end\n", "namespace 1\nend\n"},
		"no end":                           {"end\n", ""},
		"a line that is missing":           {"job 4711\n", ""},
		"text after the end of everything": {"end\n", "end\nx"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			text := strings.Replace(viewText, c[0], c[1], 1)
			require.NotEqual(t, viewText, text)
			var v gate.View
			require.Error(t, v.UnmarshalText([]byte(text)))
			assert.Zero(t, v)
		})
	}
	for _, bad := range []gate.View{{Boot: boot}, {Job: 1}, {Job: 1, Boot: strings.ToUpper(boot)}} {
		_, err := bad.MarshalText()
		require.Error(t, err)
	}
}

func TestViewFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gate")
	require.NoError(t, os.Mkdir(path, 0o700))
	d := gate.Directory{Path: path, Owner: uint32(os.Getuid())}
	_, err := d.ReadView(4711)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, d.WriteView(gate.View{Job: 4711, Boot: boot}))
	require.NoError(t, d.WriteView(gate.View{Job: 4711, Boot: boot, Namespace: 7}))
	v, err := d.ReadView(4711)
	require.NoError(t, err)
	assert.Equal(t, uint64(7), v.Namespace)

	t.Run("a view under another job's name is refused", func(t *testing.T) {
		require.NoError(t, os.Rename(filepath.Join(path, "4711.view"), filepath.Join(path, "4712.view")))
		_, err := d.ReadView(4712)
		require.Error(t, err)
		require.NoError(t, os.Rename(filepath.Join(path, "4712.view"), filepath.Join(path, "4711.view")))
	})
	t.Run("admission is seen by the file", func(t *testing.T) {
		assert.False(t, d.Admitted(4711))
		require.NoError(t, d.WriteGo(admission()))
		assert.True(t, d.Admitted(4711))
	})
	t.Run("withdrawing GO leaves the view, removing all does not", func(t *testing.T) {
		require.NoError(t, d.RemoveGo(4711))
		_, err := d.ReadView(4711)
		require.NoError(t, err)
		require.NoError(t, d.Remove(4711))
		_, err = d.ReadView(4711)
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
}

func FuzzView(f *testing.F) {
	f.Add([]byte(viewText))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v gate.View
		if v.UnmarshalText(b) != nil {
			return
		}
		again, err := v.MarshalText()
		require.NoError(t, err)
		require.Equal(t, string(b), string(again))
	})
}
