package family

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestFabrics(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not root")
		}
		t.Skip("not root: can't make devices")
	}
	dir := t.TempDir()
	for name, mode := range map[string]uint32{"hfi1_0": 0o666, "cxi0": 0o600, "cxi1": 0o660, "cxi2": 0o604, "null": 0o666} {
		require.NoError(t, unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR|mode, int(unix.Mkdev(1, 3))))
		require.NoError(t, unix.Chmod(filepath.Join(dir, name), mode))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "hfi1_file"), nil, 0o600))
	open, err := Fabrics(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{dir + "/cxi1", dir + "/cxi2", dir + "/hfi1_0"}, open)
	require.NoError(t, os.Chown(filepath.Join(dir, "cxi0"), 2001, 0))
	open, err = Fabrics(dir)
	require.NoError(t, err)
	assert.Contains(t, open, dir+"/cxi0", "its owner may open it")
	_, err = Fabrics(dir + "/gone")
	require.Error(t, err, "not being able to look is no answer")
}
