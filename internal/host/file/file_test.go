package file_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/againtest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
)

// trust begins at a directory of the test's, because /tmp above it is writable by everybody.
func trust(t *testing.T) (file.Trust, string) {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(top, "a"), 0o755))
	return file.Trust{Owner: uint32(os.Getuid()), Top: top}, filepath.Join(top, "a")
}

func TestSecure(t *testing.T) {
	tr, dir := trust(t)
	sub := filepath.Join(dir, "sub")
	path := filepath.Join(sub, "f")
	require.NoError(t, os.Mkdir(sub, 0o755))
	require.NoError(t, os.WriteFile(path, []byte("text"), 0o644))

	t.Run("owned and writable by root alone is secure", func(t *testing.T) {
		require.NoError(t, tr.Secure(path))
		b, err := tr.Read(path, 4)
		require.NoError(t, err)
		assert.Equal(t, "text", string(b))
	})
	t.Run("a file longer than the limit is refused", func(t *testing.T) {
		_, err := tr.Read(path, 3)
		require.Error(t, err)
	})
	t.Run("a directory on the way that others may write is not", func(t *testing.T) {
		for _, mode := range []fs.FileMode{0o775, 0o757, 0o777 | fs.ModeSticky} {
			require.NoError(t, os.Chmod(sub, mode))
			require.ErrorIs(t, tr.Secure(path), file.ErrInsecure)
		}
		require.NoError(t, os.Chmod(sub, 0o755))
	})
	t.Run("a file that others may write is not", func(t *testing.T) {
		require.NoError(t, os.Chmod(path, 0o664))
		require.ErrorIs(t, tr.Secure(path), file.ErrInsecure)
		require.NoError(t, os.Chmod(path, 0o644))
	})
	t.Run("a symlink is as secure as the way it leads", func(t *testing.T) {
		link := filepath.Join(dir, "link")
		require.NoError(t, os.Symlink("sub", link))
		require.NoError(t, tr.Secure(filepath.Join(link, "f")))
		open := filepath.Join(dir, "open")
		require.NoError(t, os.Mkdir(open, 0o755))
		require.NoError(t, os.Symlink(path, filepath.Join(open, "to")))
		require.NoError(t, tr.Secure(filepath.Join(open, "to")))
		require.NoError(t, os.Chmod(open, 0o777))
		through := filepath.Join(dir, "through")
		require.NoError(t, os.Symlink(filepath.Join(open, "to"), through))
		require.ErrorIs(t, tr.Secure(through), file.ErrInsecure, "the open directory on the way could have been changed")
	})
	t.Run("a link that leads to itself ends", func(t *testing.T) {
		loop := filepath.Join(dir, "loop")
		require.NoError(t, os.Symlink("loop", loop))
		require.ErrorIs(t, tr.Secure(loop), file.ErrInsecure)
	})
	t.Run("a missing path is missing, a relative one refused", func(t *testing.T) {
		require.ErrorIs(t, tr.Secure(filepath.Join(dir, "none")), fs.ErrNotExist)
		require.ErrorIs(t, tr.Secure("etc/passwd"), file.ErrInsecure)
	})
	t.Run("a pipe at the file's place does not hang the reader", func(t *testing.T) {
		pipe := filepath.Join(dir, "pipe")
		require.NoError(t, unix.Mkfifo(pipe, 0o600))
		_, err := tr.Read(pipe, 10)
		require.ErrorIs(t, err, file.ErrInsecure)
	})
	t.Run("an owner who is not trusted is refused", func(t *testing.T) {
		againtest.Root(t)
		require.NoError(t, os.Chown(path, 2001, 0))
		require.ErrorIs(t, tr.Secure(path), file.ErrInsecure)
	})
}

func TestDirectory(t *testing.T) {
	tr, dir := trust(t)
	path := filepath.Join(dir, "run")
	require.NoError(t, tr.Directory(path))
	require.NoError(t, tr.Directory(path), "a second time is fine")
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o700)|fs.ModeDir, info.Mode())

	t.Run("one with another mode is not repaired", func(t *testing.T) {
		require.NoError(t, os.Chmod(path, 0o755))
		require.ErrorIs(t, tr.Directory(path), file.ErrInsecure)
	})
	t.Run("a symlink at its place is refused", func(t *testing.T) {
		link := filepath.Join(dir, "link")
		require.NoError(t, os.Symlink(path, link))
		require.ErrorIs(t, tr.Directory(link), file.ErrInsecure)
	})
	t.Run("a parent that others may write is refused", func(t *testing.T) {
		require.NoError(t, os.Chmod(dir, 0o777))
		require.ErrorIs(t, tr.Directory(filepath.Join(dir, "b")), file.ErrInsecure)
	})
}

func TestVolatile(t *testing.T) {
	tr := file.Trust{Owner: uint32(os.Getuid()), Top: "/dev/shm"}
	path := "/dev/shm/slurm-enclave-test-volatile"
	t.Cleanup(func() { _ = os.Remove(path) })
	require.NoError(t, tr.Volatile(path))
	var st unix.Statfs_t
	onDisk, dir := trust(t)
	require.NoError(t, unix.Statfs(dir, &st))
	if st.Type == unix.TMPFS_MAGIC {
		return // the machine's /tmp is a tmpfs itself, the control cannot be made here
	}
	require.ErrorIs(t, onDisk.Volatile(filepath.Join(dir, "b")), file.ErrInsecure)
}

func TestReplace(t *testing.T) {
	tr, dir := trust(t)
	path := filepath.Join(dir, "closed.json")
	victim := filepath.Join(dir, "victim")
	require.NoError(t, os.WriteFile(victim, []byte("keep"), 0o600))
	require.NoError(t, os.Symlink(victim, path))
	require.NoError(t, os.WriteFile(path+"+", []byte("half"), 0o600))
	require.NoError(t, tr.Replace(path, []byte("new")))
	b, err := os.ReadFile(victim)
	require.NoError(t, err)
	assert.Equal(t, "keep", string(b), "a symlink is replaced, not followed")
	b, err = os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "new", string(b))
	names, err := file.Tree(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{"closed.json", "victim"}, names)
}

func TestTree(t *testing.T) {
	_, dir := trust(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "x/y"), 0o755))
	require.NoError(t, os.Symlink("/etc", filepath.Join(dir, "etc")))
	names, err := file.Tree(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{"etc", "x/", "x/y/"}, names)
	names, err = file.Tree(filepath.Join(dir, "none"))
	require.NoError(t, err)
	assert.Empty(t, names)
}
