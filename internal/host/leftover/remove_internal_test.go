package leftover

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestADirectoryThatIsDeletedMeanwhileHoldsNothing(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/place"
	require.NoError(t, os.Mkdir(path, 0o700))
	fd, err := unix.Open(path, openDir, 0)
	require.NoError(t, err)
	defer func() { _ = unix.Close(fd) }()
	require.NoError(t, os.Remove(path))
	_, err = unix.ReadDirent(fd, make([]byte, 4096))
	require.ErrorIs(t, err, unix.ENOENT, "the kernel says so of such a directory")
	w := walk{}
	require.NoError(t, w.place(t.Context(), fd, path))
}
