package mount_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/mount"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	found := []string{}
	for _, e := range entries {
		found = append(found, e.Name())
	}
	return found
}

// TestView is what a job sees, and what it must not see.
func TestView(t *testing.T) {
	if inNamespace(t) {
		return
	}
	c := site(t)
	before := text(t)
	require.NoError(t, room().Up(t.Context(), plan(t, c, nil)))

	t.Run("the public path is the tenant's subtree and nothing else", func(t *testing.T) {
		assert.Equal(t, []string{"home", "mine"}, names(t, c.Public))
		assert.Equal(t, "alice's", as(t, alice, "/bin/cat", c.Public+"/mine"))
		assert.Contains(t, as(t, alice, "/bin/sh", "-c", "echo text > "+c.Public+"/new && cat "+c.Public+"/new"), "text")
	})
	t.Run("the other tenant is on no path", func(t *testing.T) {
		for _, path := range []string{c.Public + "/../proj/tenb/secret", c.Public + "/../tenb/secret", c.Root + "/proj/tenb/secret", base + "/home/bob/secret"} {
			out := as(t, alice, "/bin/cat", path)
			assert.NotContains(t, out, "bob's", path)
		}
		out := as(t, alice, "/bin/sh", "-c", "cd "+c.Public+"; cat ../proj/tenb/secret ../tenb/secret; find /mnt -name secret -exec cat {} +; true")
		assert.NotContains(t, out, "bob's")
	})
	t.Run("a user namespace uncovers nothing", func(t *testing.T) {
		out := as(t, alice, "/usr/bin/unshare", "-Urm", "/bin/sh", "-c",
			"umount "+base+"/home; umount -l "+c.Public+"; mount -o remount,bind,suid,dev "+c.Public+
				"; cat "+base+"/home/bob/secret "+c.Public+"/../secret; ls "+c.Public)
		assert.NotContains(t, out, "bob's")
		assert.Contains(t, out, "mine", "the view still stands: %s", out)
	})
	t.Run("temporary directories are empty, the job's own, and bound in size", func(t *testing.T) {
		for _, dir := range c.Temps {
			assert.Empty(t, names(t, dir.Path))
			info, err := os.Stat(dir.Path)
			require.NoError(t, err)
			assert.Equal(t, os.ModeDir|os.ModeSticky|0o777, info.Mode())
			assert.Contains(t, as(t, alice, "/bin/dd", "if=/dev/zero", "of="+dir.Path+"/big", "bs=65536", "count=64"), "No space left")
			assert.Contains(t, as(t, alice, "/bin/sh", "-c", "i=0; while [ $i -lt 2000 ]; do : > "+dir.Path+"/$i || exit 1; i=$((i+1)); done"), "exit status")
		}
	})
	t.Run("of the homes only the user's own is there", func(t *testing.T) {
		assert.Equal(t, []string{"alice"}, names(t, c.Home))
		assert.Contains(t, as(t, alice, "/bin/mkdir", c.Home+"/bob"), "exit status")
		assert.NotContains(t, as(t, alice, "/bin/touch", c.Home+"/alice/file"), "exit status")
	})
	t.Run("devices of a fast network are covered", func(t *testing.T) {
		assert.Empty(t, names(t, base+"/infiniband"))
		assert.Contains(t, as(t, 0, "/bin/touch", base+"/infiniband/uverbs0"), "Read-only")
	})
	t.Run("down leaves the table as it was, and the files", func(t *testing.T) {
		require.NoError(t, room().Down(t.Context(), plan(t, c, nil)))
		assert.Equal(t, before, text(t))
		assert.Equal(t, []string{"home", "mine", "new"}, names(t, c.Root+"/proj/tena"))
		assert.Equal(t, []string{"file"}, names(t, c.Home+"/alice"))
		assert.Empty(t, names(t, base+"/tmp"))
	})
	t.Run("the next job finds nothing of this one in its temporary directories", func(t *testing.T) {
		p := plan(t, c, func(r *subtree.Request) { r.Job.Job, r.Subtree, r.UID, r.HomeKeep = 4712, "proj/tenb", bob, "bob" })
		require.NoError(t, room().Up(t.Context(), p))
		assert.Empty(t, names(t, base+"/tmp"))
		assert.Equal(t, []string{"secret"}, names(t, c.Public))
		require.NoError(t, room().Down(t.Context(), p))
	})
	t.Run("a tenant's homes stand at the home path", func(t *testing.T) {
		p := plan(t, c, func(r *subtree.Request) { r.HomeTree, r.HomeKeep = "home", "" })
		require.NoError(t, room().Up(t.Context(), p))
		assert.Empty(t, names(t, c.Home))
		require.NoError(t, room().Down(t.Context(), p))
		assert.Equal(t, before, text(t))
	})
}

// TestPlanted puts a setuid program and a device into the tenant's tree, as an admin of the file
// system or another client could. The control is a plain bind mount, where both work.
func TestPlanted(t *testing.T) {
	if inNamespace(t) {
		return
	}
	c := site(t)
	tree := c.Root + "/proj/tena"
	program, err := os.ReadFile("/usr/bin/id")
	require.NoError(t, err)
	write(t, tree+"/id", string(program), 0, 0o755|os.ModeSetuid)
	require.NoError(t, unix.Mknod(tree+"/zero", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
	require.NoError(t, os.Chmod(tree+"/zero", 0o666))

	plain := base + "/plain"
	mkdir(t, plain, 0, 0o755)
	require.NoError(t, unix.Mount(tree, plain, "", unix.MS_BIND, ""))
	assert.Contains(t, as(t, alice, plain+"/id"), "euid=0", "control")
	assert.NotContains(t, as(t, alice, "/usr/bin/head", "-c", "1", plain+"/zero"), "exit status", "control")
	require.NoError(t, unix.Unmount(plain, 0))

	require.NoError(t, room().Up(t.Context(), plan(t, c, nil)))
	out := as(t, alice, c.Public+"/id")
	assert.Contains(t, out, "uid=42001")
	assert.NotContains(t, out, "euid=0")
	assert.Contains(t, as(t, alice, "/usr/bin/head", "-c", "1", c.Public+"/zero"), "Permission denied")
}

// TestTenantPath tries names that lead elsewhere; each has its control, where they do.
func TestTenantPath(t *testing.T) {
	if inNamespace(t) {
		return
	}
	c := site(t)
	bind := func(path string) error {
		return mount.Host{}.Bind(t.Context(), subtree.Bind{
			Root: c.Root, FSType: c.FSType, Magic: c.Magic, Subtree: path, Owners: []uint32{0, alice}, Target: c.Public,
		})
	}
	t.Run("a symlink as tenant", func(t *testing.T) {
		require.NoError(t, unix.Mount(c.Root+"/proj/evil", c.Public, "", unix.MS_BIND, ""))
		assert.Equal(t, []string{"secret"}, names(t, c.Public), "control: a plain bind follows it")
		require.NoError(t, unix.Unmount(c.Public, 0))
		require.ErrorIs(t, bind("proj/evil"), subtree.ErrTenant)
		refused(t, room().Up(t.Context(), plan(t, c, func(r *subtree.Request) { r.Subtree = "proj/evil" })), subtree.CodeTenant)
		require.NoError(t, room().Down(t.Context(), c.Leftovers()))
	})
	t.Run("a way through the parent", func(t *testing.T) {
		root, err := unix.Open(c.Root, unix.O_PATH|unix.O_DIRECTORY, 0)
		require.NoError(t, err)
		fd, err := unix.Openat2(root, "proj/tena/../tenb", &unix.OpenHow{Flags: unix.O_PATH, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		require.NoError(t, err, "control: the kernel's beneath alone lets it through")
		require.NoError(t, unix.Close(fd))
		require.NoError(t, unix.Close(root))
		for _, path := range []string{"proj/tena/../tenb", "../../etc", "proj//tena", "./proj", ""} {
			require.ErrorIs(t, bind(path), subtree.ErrTenant, path)
		}
	})
	t.Run("a symlink on the way, a file, a missing directory", func(t *testing.T) {
		require.NoError(t, os.Symlink("proj", c.Root+"/link"))
		defer func() { _ = os.Remove(c.Root + "/link") }()
		write(t, c.Root+"/file", "", 0, 0o644)
		for _, path := range []string{"link/tena", "file", "proj/none"} {
			require.ErrorIs(t, bind(path), subtree.ErrTenant, path)
		}
	})
	t.Run("another file system mounted over the tenant", func(t *testing.T) {
		require.NoError(t, unix.Mount("tmpfs", c.Root+"/proj/tena", "tmpfs", 0, "uid=42001"))
		defer func() { _ = unix.Unmount(c.Root+"/proj/tena", 0) }()
		require.ErrorIs(t, bind("proj/tena"), subtree.ErrTenant)
	})
	t.Run("another file system below the tenant is not carried along", func(t *testing.T) {
		require.NoError(t, unix.Mount("tmpfs", c.Root+"/proj/tena/home", "tmpfs", 0, ""))
		defer func() { _ = unix.Unmount(c.Root+"/proj/tena/home", 0) }()
		write(t, c.Root+"/proj/tena/home/hidden", "", 0, 0o644)
		require.NoError(t, bind("proj/tena"))
		assert.Empty(t, names(t, c.Public+"/home"))
		require.NoError(t, unix.Unmount(c.Public, 0))
	})
	t.Run("owners", func(t *testing.T) {
		require.ErrorIs(t, bind("proj/tenb"), subtree.ErrOwner, "another tenant's directory")
		require.NoError(t, os.Chmod(c.Root+"/proj", 0o777))
		require.ErrorIs(t, bind("proj/tena"), subtree.ErrOwner, "whoever writes the way chooses where it leads")
		require.NoError(t, os.Chmod(c.Root+"/proj", 0o755))
		require.NoError(t, bind("proj/tena"), "control")
		require.NoError(t, unix.Unmount(c.Public, 0))
	})
	t.Run("a target that is a symlink is not followed", func(t *testing.T) {
		require.NoError(t, os.Remove(c.Public))
		require.NoError(t, os.Symlink("/etc", c.Public))
		require.ErrorIs(t, bind("proj/tena"), subtree.ErrTarget)
		require.NoError(t, os.Remove(c.Public))
		mkdir(t, c.Public, 0, 0o755)
	})
	t.Run("a symlink on the way to the target or to a home is not followed", func(t *testing.T) {
		mkdir(t, base+"/real/lustre", 0, 0o755)
		mkdir(t, base+"/real/alice", alice, 0o755)
		require.NoError(t, os.Symlink(base+"/real", base+"/link"))
		require.NoError(t, os.Symlink("../real", c.Home+"/link"))
		h := mount.Host{}
		require.ErrorIs(t, h.Tmpfs(t.Context(), subtree.Tmpfs{Target: base + "/link/lustre", Label: subtree.Label}), subtree.ErrTarget)
		keep := subtree.Tmpfs{Target: c.Home, Label: subtree.Label, ReadOnly: true, Keep: "link/alice", Owner: alice}
		require.ErrorIs(t, h.Tmpfs(t.Context(), keep), subtree.ErrTenant)
	})
}

// TestGround takes the node's own protection away, one at a time.
func TestGround(t *testing.T) {
	if inNamespace(t) {
		return
	}
	c := site(t)
	up := func() error { return room().Up(t.Context(), plan(t, c, nil)) }
	down := func() { require.NoError(t, room().Down(t.Context(), c.Leftovers())) }
	hidden := strings.TrimSuffix(c.Root, "/fs")

	t.Run("the hidden directory lets others in", func(t *testing.T) {
		for _, mode := range []os.FileMode{0o755, 0o711, 0o750} {
			require.NoError(t, os.Chmod(hidden, mode))
			refused(t, up(), subtree.CodeExposed)
			down()
		}
		require.NoError(t, os.Chmod(hidden, 0o700))
	})
	t.Run("the hidden directory is somebody else's", func(t *testing.T) {
		require.NoError(t, os.Chown(hidden, alice, 0))
		refused(t, up(), subtree.CodeExposed)
		down()
		require.NoError(t, os.Chown(hidden, 0, 0))
	})
	t.Run("another magic number or type than expected", func(t *testing.T) {
		other := c
		other.Magic = 0x0BD00BD0
		refused(t, room().Up(t.Context(), plan(t, other, nil)), subtree.CodeType)
		down()
		other = c
		other.FSType = "lustre"
		refused(t, room().Up(t.Context(), plan(t, other, nil)), subtree.CodeType)
	})
	t.Run("nothing mounted where the file system should be", func(t *testing.T) {
		other := c
		other.Root = hidden + "/none"
		mkdir(t, other.Root, 0, 0o755)
		refused(t, room().Up(t.Context(), plan(t, other, nil)), subtree.CodeType)
		require.ErrorIs(t, mount.Host{}.Bind(t.Context(), subtree.Bind{
			Root: c.Root + "/proj", FSType: c.FSType, Magic: c.Magic, Subtree: "tena", Owners: []uint32{alice}, Target: c.Public,
		}), subtree.ErrExposed, "a plain directory is no root, nor is its parent closed")
	})
	t.Run("a directory of the file system is no root of it", func(t *testing.T) {
		mkdir(t, c.Root+"/closed/fs/proj/tena", alice, 0o755)
		mkdir(t, c.Root+"/closed/fs", 0, 0o755)
		mkdir(t, c.Root+"/closed", 0, 0o700)
		require.ErrorIs(t, mount.Host{}.Bind(t.Context(), subtree.Bind{
			Root: c.Root + "/closed/fs", FSType: c.FSType, Magic: c.Magic, Subtree: "proj/tena", Owners: []uint32{alice}, Target: c.Public,
		}), subtree.ErrType)
	})
	t.Run("the file system seen a second time", func(t *testing.T) {
		mkdir(t, base+"/second", 0, 0o755)
		require.NoError(t, unix.Mount(c.Root, base+"/second", "", unix.MS_BIND, ""))
		refused(t, up(), subtree.CodeSecond)
		require.NoError(t, unix.Unmount(base+"/second", 0))
	})
	t.Run("something else at the public path", func(t *testing.T) {
		require.NoError(t, unix.Mount("tmpfs", c.Public, "tmpfs", 0, ""))
		refused(t, up(), subtree.CodeTarget)
		down()
		require.NoError(t, unix.Unmount(c.Public, 0), "it is not ours, so it stays")
	})
	t.Run("a home that is somebody else's", func(t *testing.T) {
		refused(t, room().Up(t.Context(), plan(t, c, func(r *subtree.Request) { r.HomeKeep = "bob" })), subtree.CodeOwner)
		down()
	})
	t.Run("control: with all protections the view comes up", func(t *testing.T) {
		require.NoError(t, up())
	})
}
