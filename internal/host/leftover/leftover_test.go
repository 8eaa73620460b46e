package leftover_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/leftover"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

const alice, bob = 2001, 2002

var job = leftover.Owner{UIDs: []enclave.UIDRange{{Start: alice, Count: 1}, {Start: 100000, Count: 10}}, Name: "alice"}

func root(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("not root")
	}
	t.Skip("not root: files of other users can't be made")
}

// place is a directory as /run/lock, with files of several users.
func place(t *testing.T) string {
	t.Helper()
	root(t)
	dir := t.TempDir()
	for _, f := range []struct {
		name string
		uid  int
	}{
		{"a", alice},
		{"s", 100005},
		{"b", bob},
		{"r", 0},
		{"tree/", alice},
		{"tree/x", alice},
		{"tree/deep/", alice},
		{"tree/deep/y", alice},
		{"mixed/", alice},
		{"mixed/a", alice},
		{"mixed/b", bob},
		{"roots/", 0},
		{"roots/a", alice},
		{"roots/r", 0},
	} {
		name := filepath.Join(dir, f.name)
		if f.name[len(f.name)-1] == '/' {
			require.NoError(t, os.Mkdir(name, 0o700))
		} else {
			require.NoError(t, os.WriteFile(name, nil, 0o600))
		}
		require.NoError(t, os.Lchown(name, f.uid, f.uid))
	}
	return dir
}

func tree(t *testing.T, dir string) []string {
	t.Helper()
	names := []string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if name != dir {
			rel, _ := filepath.Rel(dir, name)
			names = append(names, rel)
		}
		return err
	}))
	return names
}

func TestRemove(t *testing.T) {
	t.Run("what is the job's goes, what is others' stays with the way to it", func(t *testing.T) {
		dir := place(t)
		require.NoError(t, leftover.Remove(t.Context(), []string{dir}, job, nil))
		assert.Equal(t, []string{"b", "mixed", "mixed/b", "r", "roots", "roots/r"}, tree(t, dir))
		require.NoError(t, leftover.Remove(t.Context(), []string{dir}, job, nil), "again")
	})
	t.Run("what was there when the node was closed stays", func(t *testing.T) {
		dir := place(t)
		keep, err := leftover.List(t.Context(), []string{dir}, job)
		require.NoError(t, err)
		assert.Contains(t, keep, dir+"/roots/a of uid 2001")
		assert.Len(t, keep, 9)
		all := tree(t, dir)
		require.NoError(t, os.WriteFile(dir+"/tree/new", nil, 0o600))
		require.NoError(t, os.Lchown(dir+"/tree/new", alice, alice))
		require.NoError(t, leftover.Remove(t.Context(), []string{dir}, job, keep))
		assert.Equal(t, all, tree(t, dir))
	})
	t.Run("a symlink goes, and what it points to stays", func(t *testing.T) {
		dir, other := place(t), t.TempDir()
		precious := filepath.Join(other, "precious")
		require.NoError(t, os.WriteFile(precious, nil, 0o600))
		require.NoError(t, os.Lchown(precious, alice, alice))
		require.NoError(t, os.Symlink(other, dir+"/link"))
		require.NoError(t, os.Lchown(dir+"/link", alice, alice))
		require.NoError(t, leftover.Remove(t.Context(), []string{dir, dir + "/link"}, job, nil))
		assert.NoFileExists(t, dir+"/link")
		assert.FileExists(t, precious)
		t.Run("a place that is a symlink is none", func(t *testing.T) {
			require.NoError(t, os.Symlink(other, dir+"/place"))
			require.NoError(t, leftover.Remove(t.Context(), []string{dir + "/place", dir + "/none"}, job, nil))
			assert.FileExists(t, precious)
		})
	})
	t.Run("a mount within a place is not entered", func(t *testing.T) {
		dir := place(t)
		mounted := dir + "/tree/deep"
		require.NoError(t, unix.Mount("x", mounted, "tmpfs", 0, ""))
		defer func() { require.NoError(t, unix.Unmount(mounted, 0)) }()
		require.NoError(t, os.WriteFile(mounted+"/tenant", nil, 0o600))
		require.NoError(t, os.Lchown(mounted+"/tenant", alice, alice))
		_ = leftover.Remove(t.Context(), []string{dir}, job, nil) // its folder is busy
		assert.FileExists(t, mounted+"/tenant")
		assert.NoFileExists(t, dir+"/tree/x")
	})
	t.Run("a tree that is deeper than there are descriptors, and closed to its owner, goes", func(t *testing.T) {
		dir := place(t)
		was := tree(t, dir)
		fd, err := unix.Open(dir, unix.O_DIRECTORY, 0)
		require.NoError(t, err)
		for range 3000 {
			require.NoError(t, unix.Mkdirat(fd, "d", 0o000))
			require.NoError(t, unix.Fchownat(fd, "d", alice, alice, 0))
			next, openErr := unix.Openat(fd, "d", unix.O_DIRECTORY, 0)
			require.NoError(t, openErr)
			require.NoError(t, unix.Close(fd))
			fd = next
		}
		require.NoError(t, unix.Close(fd))
		var limit syscall.Rlimit
		require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
		low := syscall.Rlimit{Cur: 256, Max: limit.Max}
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low))
		defer func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)) }()
		require.NoError(t, leftover.Remove(t.Context(), []string{dir}, job, nil))
		assert.Less(t, len(tree(t, dir)), len(was))
		left, err := leftover.List(t.Context(), []string{dir}, job)
		require.NoError(t, err)
		assert.Equal(t, []string{dir + "/mixed of uid 2001"}, left)
	})
	t.Run("more files than are read at once go, and those to be kept stay", func(t *testing.T) {
		dir := place(t)
		before := tree(t, dir)
		keep, err := leftover.List(t.Context(), []string{dir}, job)
		require.NoError(t, err)
		for i := range 5000 {
			name := fmt.Sprintf("%s/roots/%d", dir, i)
			require.NoError(t, os.WriteFile(name, nil, 0o600))
			require.NoError(t, os.Lchown(name, alice+i%2, alice))
		}
		left, err := leftover.List(t.Context(), []string{dir}, job)
		require.NoError(t, err)
		assert.Len(t, left, len(keep)+2500, "each is listed, and once")
		require.NoError(t, leftover.Remove(t.Context(), []string{dir}, job, keep))
		assert.Len(t, tree(t, dir), len(before)+2500, "the other half is bob's")
	})
	t.Run("nobody's files are nobody's", func(t *testing.T) {
		dir := place(t)
		was := tree(t, dir)
		require.NoError(t, leftover.Remove(t.Context(), []string{dir}, leftover.Owner{}, nil))
		assert.Equal(t, was, tree(t, dir))
	})
}

func TestSearch(t *testing.T) {
	root(t)
	dir, err := os.MkdirTemp("/opt", "search") //nolint:usetesting // the test's own lies in a known place, /tmp
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	for name, mode := range map[string]uint32{
		"open": 0o1777, "open/within": 0o1777, "usr": 0o755, "usr/drop": 0o1733, "shut": 0o700, "shut/open": 0o1777, "mnt": 0o755, "skip": 0o1777,
	} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, name), 0o700))
		defer func() { require.NoError(t, unix.Chmod(filepath.Join(dir, name), mode)) }()
	}
	for name, mode := range map[string]uint32{"open": 0o1777, "open/within": 0o1777, "usr": 0o755, "usr/drop": 0o1733, "shut/open": 0o1777, "skip": 0o1777} {
		require.NoError(t, unix.Chmod(filepath.Join(dir, name), mode))
	}
	mounts := []subtree.Mount{
		{Point: dir, FSType: "ext4"},
		{Point: dir + "/none", FSType: "xfs"},
		{Point: dir + "/usr", FSType: "nfs4"},
		{Point: dir + "/shut", FSType: "proc"},
		{Point: dir + "/usr", FSType: "ext4", Options: []string{"ro"}},
	}
	places, err := leftover.Search(t.Context(), mounts, dir+"/skip")
	require.NoError(t, err)
	assert.Subset(t, places, []string{dir + "/open", dir + "/usr/drop", "/tmp", "/var/spool/cron"})
	for _, no := range []string{"/open/within", "/shut/open", "/skip", "/usr"} {
		assert.NotContains(t, places, dir+no, fmt.Sprint(places))
	}
}

func TestWith(t *testing.T) {
	assert.Equal(t, []string{"/a", "/b"}, leftover.With([]string{"/a"}, "/b"))
	assert.Equal(t, []string{"/a"}, leftover.With([]string{"/a"}, "/a/b"))
	assert.Equal(t, []string{"/a", "/b"}, leftover.With([]string{"/a", "/b/c"}, "/b"))
}
