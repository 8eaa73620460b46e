package mount_test

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/mount"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

// killer is the machine, until the n-th change: then its process is killed as by the OOM killer,
// before or after the change.
type killer struct {
	mount.Host
	left  int
	after bool
}

func (k *killer) change(f func() error) error {
	k.left--
	if k.left == 0 && !k.after {
		k.die()
	}
	err := f()
	if k.left == 0 && k.after {
		k.die()
	}
	return err
}

func (k *killer) die() {
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}

func (k *killer) Bind(ctx context.Context, b subtree.Bind) error {
	return k.change(func() error { return k.Host.Bind(ctx, b) })
}

func (k *killer) Tmpfs(ctx context.Context, f subtree.Tmpfs) error {
	return k.change(func() error { return k.Host.Tmpfs(ctx, f) })
}

func (k *killer) Unmount(ctx context.Context, point string) error {
	return k.change(func() error { return k.Host.Unmount(ctx, point) })
}

// TestDying is the process that is killed. It runs in the namespace of the test that starts it.
func TestDying(t *testing.T) {
	what := os.Getenv("MOUNT_TEST_DIE")
	if what == "" {
		return // only TestKilled gives it work
	}
	p, err := subtree.ParseDetail(os.Getenv("MOUNT_TEST_PLAN"))
	require.NoError(t, err)
	words := strings.Fields(what) // "up 3 before"
	left, err := strconv.Atoi(words[1])
	require.NoError(t, err)
	r := room()
	r.Mounter = &killer{left: left, after: words[2] == "after"}
	if words[0] == "up" {
		require.NoError(t, r.Up(t.Context(), p))
		return
	}
	require.NoError(t, r.Down(t.Context(), p))
}

func die(t *testing.T, p subtree.Plan, what string) (killed bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestDying$")
	cmd.Env = append(os.Environ(), "MOUNT_TEST_DIE="+what, "MOUNT_TEST_PLAN="+p.Detail())
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	require.False(t, cmd.ProcessState.Exited(), "it was killed: %s", out)
	return true
}

func TestKilled(t *testing.T) {
	if inNamespace(t) {
		return
	}
	c := site(t)
	p := plan(t, c, nil)
	before := text(t)
	require.NoError(t, room().Up(t.Context(), p))
	view := text(t)
	require.NoError(t, room().Down(t.Context(), p))

	for _, when := range []string{"before", "after"} {
		n := 1
		for ; die(t, p, "up "+strconv.Itoa(n)+" "+when); n++ {
			require.NoError(t, room().Down(t.Context(), c.Leftovers()), "up killed %s change %d", when, n)
			require.Equal(t, before, text(t), "up killed %s change %d", when, n)
			require.True(t, die(t, p, "up "+strconv.Itoa(n)+" "+when))
			require.NoError(t, room().Up(t.Context(), p), "up goes on where it was killed")
			require.Len(t, strings.Split(text(t), "\n"), strings.Count(view, "\n")+1)
			require.NoError(t, room().Down(t.Context(), p))
			require.Equal(t, before, text(t))
		}
		assert.Equal(t, 7, n, "each of the six changes was a place to die")
		require.NoError(t, room().Check(t.Context(), p))
		n = 1
		for ; die(t, p, "down "+strconv.Itoa(n)+" "+when); n++ {
			require.NoError(t, room().Down(t.Context(), p))
			require.Equal(t, before, text(t), "down killed %s change %d", when, n)
			require.NoError(t, room().Up(t.Context(), p))
		}
		assert.Equal(t, 8, n, "each of the seven mounts was a place to die")
		require.Equal(t, before, text(t))
	}
}

func TestTwice(t *testing.T) {
	if inNamespace(t) {
		return
	}
	c := site(t)
	p := plan(t, c, nil)
	before := text(t)
	require.NoError(t, room().Down(t.Context(), p), "down without up")
	require.NoError(t, room().Up(t.Context(), p))
	view := text(t)
	require.NoError(t, room().Up(t.Context(), p))
	assert.Equal(t, view, text(t))

	t.Run("mounts in double and the job's own within all go", func(t *testing.T) {
		for range 2 {
			require.NoError(t, mount.Host{}.Tmpfs(t.Context(), subtree.Tmpfs{Target: base + "/tmp", Label: p.Label, Size: 1 << 20}))
			mkdir(t, base+"/tmp/a/b", 0, 0o755)
			require.NoError(t, unix.Mount("own", base+"/tmp/a/b", "tmpfs", 0, ""))
			require.NoError(t, unix.Mount("own", base+"/tmp/a", "tmpfs", 0, ""))
		}
		require.NoError(t, room().Down(t.Context(), p))
		assert.Equal(t, before, text(t))
	})
	require.NoError(t, room().Down(t.Context(), p))
	assert.Equal(t, before, text(t))
}

func TestBusy(t *testing.T) {
	if inNamespace(t) {
		return
	}
	c := site(t)
	p := plan(t, c, nil)
	before := text(t)
	up := func(t *testing.T) { t.Helper(); require.NoError(t, room().Up(t.Context(), p)) }
	down := func(t *testing.T) {
		t.Helper()
		require.NoError(t, room().Down(t.Context(), p))
		require.Equal(t, before, text(t))
	}
	t.Run("the job's processes that hold it are killed", func(t *testing.T) {
		up(t)
		background(t, alice, c.Public, "/bin/sleep", "1000")
		background(t, alice, "/", "/bin/sh", "-c", "exec 5>"+base+"/tmp/open; exec sleep 1000")
		require.Eventually(t, func() bool { return len(names(t, base+"/tmp")) == 1 }, 10*time.Second, 10*time.Millisecond)
		down(t)
	})
	t.Run("root's process is named and left alone; when it is gone the way is free", func(t *testing.T) {
		up(t)
		cmd := background(t, 0, c.Public, "/bin/sleep", "1000")
		err := room().Down(t.Context(), p)
		refused(t, err, subtree.CodeBusy)
		require.ErrorContains(t, err, "pid "+strconv.Itoa(cmd.Process.Pid)+` "sleep" uid 0`)
		assert.DirExists(t, c.Public+"/home", "not detached lazily")
		require.NoError(t, cmd.Process.Kill())
		require.Eventually(t, func() bool { return room().Down(t.Context(), p) == nil }, 10*time.Second, 10*time.Millisecond)
		assert.Equal(t, before, text(t))
	})
	t.Run("a namespace that the job's user made goes with its process", func(t *testing.T) {
		up(t)
		cmd := background(t, alice, "/", "/usr/bin/unshare", "-Urm", "/bin/sleep", "1000")
		unshared(t, cmd.Process.Pid, c.Public)
		down(t)
	})
	t.Run("a namespace of root's that was copied meanwhile is told", func(t *testing.T) {
		up(t)
		cmd := background(t, 0, "/", "/usr/bin/unshare", "-m", "/bin/sleep", "1000")
		unshared(t, cmd.Process.Pid, c.Public)
		err := room().Down(t.Context(), p)
		refused(t, err, subtree.CodeStray)
		require.ErrorContains(t, err, "pid "+strconv.Itoa(cmd.Process.Pid))
		require.NoError(t, cmd.Process.Kill())
		require.Eventually(t, func() bool { return room().Down(t.Context(), p) == nil }, 10*time.Second, 10*time.Millisecond)
	})
}

func unshared(t *testing.T, pid int, point string) {
	t.Helper()
	require.Eventually(t, func() bool {
		own, _ := os.Readlink("/proc/self/ns/mnt")
		ns, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/mnt")
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/mountinfo")
		return err == nil && ns != own && strings.Contains(string(b), point)
	}, 10*time.Second, 10*time.Millisecond)
}

// TestShared is a machine with systemd: / is shared, and daemons have slave namespaces in which the
// view appears. It must go from there when it goes from here.
func TestShared(t *testing.T) {
	if inNamespace(t) {
		return
	}
	c := site(t)
	p := plan(t, c, nil)
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
	defer func() { require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")) }()
	before := text(t)
	daemon := background(t, 0, "/", "/usr/bin/unshare", "-m", "--propagation", "slave", "/bin/sleep", "1000")
	unshared(t, daemon.Process.Pid, c.Root)
	table := func() string {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(daemon.Process.Pid) + "/mountinfo")
		require.NoError(t, err)
		return string(b)
	}
	require.NoError(t, room().Up(t.Context(), p))
	require.NoError(t, room().Up(t.Context(), p))
	require.Contains(t, table(), " "+c.Public+" ", "control: it appears there")
	require.NoError(t, room().Down(t.Context(), p))
	assert.NotContains(t, table(), " "+c.Public+" ")
	assert.NotContains(t, table(), subtree.Label)
	assert.Equal(t, before, text(t))
}

func TestSync(t *testing.T) {
	if inNamespace(t) {
		return
	}
	c := site(t)
	require.NoError(t, mount.Host{}.Sync(t.Context(), c.Root))
	require.Error(t, mount.Host{}.Sync(t.Context(), base+"/none"))
	there, err := mount.Host{}.Exists(t.Context(), base+"/none")
	require.NoError(t, err)
	assert.False(t, there)
}
