package spawn_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/host/againtest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/keepertest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/spawn"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
)

// TestMain is the keeper when a test started the program as one.
func TestMain(m *testing.M) {
	keepertest.Play()
	os.Exit(m.Run())
}

func boottime(t *testing.T) uint64 {
	t.Helper()
	var ts unix.Timespec
	require.NoError(t, unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts))
	return uint64(ts.Sec)
}

func config(t *testing.T, job uint32) keeper.Config {
	t.Helper()
	againtest.Root(t)
	key := enclave.JobKey{Cluster: "c", Job: job}
	dir := filepath.Join(t.TempDir(), key.Directory())
	require.NoError(t, os.Mkdir(dir, 0o700))
	g := gate.Directory{Path: filepath.Join(t.TempDir(), "gate")}
	require.NoError(t, os.Mkdir(g.Path, 0o700))
	require.NoError(t, g.WriteGo(goOf(t, job, 3600)))
	t.Cleanup(func() {
		if err := spawn.StopKeeper(context.Background(), dir); err != nil {
			t.Errorf("clean up: %s", err)
		}
	})
	return keeper.Config{
		Key: key, Node: "n1", Device: fmt.Sprintf("enc%d", job), MTU: 1420, Directory: dir, Gate: g, Expires: boottime(t) + 3600,
		Verifier: "127.0.0.1:1", Epoch: 1, Peers: []enclave.Peer{{Node: "n1"}},
		Keys: enclave.NewSecret([]byte(strings.Repeat("0123456789abcdef", 6))),
	}
}

func goOf(t *testing.T, job uint32, seconds uint64) gate.Go {
	t.Helper()
	return gate.Go{Job: job, Boot: "01234567-89ab-cdef-0123-456789abcdef", Expires: boottime(t) + seconds}
}

func goFile(c keeper.Config) string {
	return filepath.Join(c.Gate.Path, fmt.Sprintf("%d.go", c.Key.Job))
}

func start(t *testing.T, c keeper.Config) int {
	t.Helper()
	h := handle(t, c)
	require.NoError(t, h.Leave())
	return h.PID
}

// handle is a keeper whose prolog is still there.
func handle(t *testing.T, c keeper.Config) *spawn.Handle {
	t.Helper()
	h, err := spawn.Keeper(t.Context(), "/proc/self/exe", c)
	require.NoError(t, err)
	return h
}

// alive says whether a process runs; a zombie does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func proc(t *testing.T, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	require.NoError(t, err)
	return string(b)
}

func TestKeeperIsOnItsOwn(t *testing.T) {
	c := config(t, 990001)
	leak, err := unix.Open("/etc/hostname", unix.O_RDONLY, 0) // as slurmd may leave one open
	require.NoError(t, err)
	defer func() { _ = unix.Close(leak) }()
	pid := start(t, c)
	t.Run("a session and process group of its own", func(t *testing.T) {
		sid, err := unix.Getsid(pid)
		require.NoError(t, err)
		pgid, err := unix.Getpgid(pid)
		require.NoError(t, err)
		assert.Equal(t, []int{pid, pid}, []int{sid, pgid})
	})
	t.Run("standard streams on /dev/null and nothing inherited", func(t *testing.T) {
		var fds []string
		require.Eventually(t, func() bool { // it closes the readiness pipe after its last word
			var targets []string
			fds, _ = filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
			for _, fd := range fds {
				to, _ := os.Readlink(fd)
				targets = append(targets, to)
			}
			return len(fds) > 3 && !strings.Contains(strings.Join(targets, " "), "pipe:")
		}, 5*time.Second, 5*time.Millisecond)
		for _, fd := range fds {
			to, err := os.Readlink(fd)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			require.NoError(t, err)
			switch filepath.Base(fd) {
			case "0", "1", "2":
				assert.Equal(t, "/dev/null", to)
			default:
				// Its own two, by which the kernel tells it of changes.
				if inode := strings.Trim(strings.TrimPrefix(to, "socket:"), "[]"); slices.Contains(strings.Fields(proc(t, pid, "net/netlink")), inode) {
					continue
				}
				// The Go runtime's own: its poller, and the cgroup's share of the processors.
				assert.Regexp(t, `^anon_inode:|^/sys/fs/cgroup/`, to, "descriptor %s", fd)
			}
		}
	})
	t.Run("the kernel kills others first, where it may be told so", func(t *testing.T) {
		const sysResource = 24
		caps := regexp.MustCompile(`CapEff:\s+([0-9a-f]+)`).FindStringSubmatch(proc(t, os.Getpid(), "status"))
		effective, err := strconv.ParseUint(caps[1], 16, 64)
		require.NoError(t, err)
		want := "-900\n"
		if effective>>sysResource&1 == 0 {
			want = proc(t, os.Getpid(), "oom_score_adj") // nobody may lower it here; the keeper runs all the same
		}
		assert.Equal(t, want, proc(t, pid, "oom_score_adj"))
	})
	t.Run("no core file, no other process looks into it", func(t *testing.T) {
		assert.Regexp(t, `Max core file size\s+0\s+0`, proc(t, pid, "limits"))
	})
	t.Run("the key is neither in arguments nor in the environment", func(t *testing.T) {
		assert.NotContains(t, proc(t, pid, "cmdline"), "0123456789abcdef")
		assert.Empty(t, proc(t, pid, "environ"))
	})
	t.Run("a cgroup of its own in every hierarchy by which processes are killed", func(t *testing.T) {
		seen := 0
		for line := range strings.Lines(proc(t, pid, "cgroup")) {
			_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
			controllers, path, _ := strings.Cut(rest, ":")
			if controllers == "" || controllers == "freezer" || strings.HasPrefix(controllers, "name=") {
				assert.Regexp(t, `^slurm-enclave\.990001\.0\.\d+\.\d+$`, filepath.Base(path), line)
				seen++
			}
		}
		assert.Positive(t, seen, "the machine has no cgroups")
	})
	t.Run("its record is root's alone", func(t *testing.T) {
		info, err := os.Stat(filepath.Join(c.Directory, "keeper"))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode())
	})
	t.Run("stop ends it, closes the gate and leaves nothing", func(t *testing.T) {
		require.NoError(t, spawn.StopKeeper(t.Context(), c.Directory))
		assert.False(t, alive(pid))
		left, err := os.ReadDir(c.Directory)
		require.NoError(t, err)
		assert.Empty(t, left)
		cgroups, err := filepath.Glob("/sys/fs/cgroup/*/slurm-enclave.990001.0*")
		require.NoError(t, err)
		assert.Empty(t, cgroups)
		require.NoError(t, spawn.StopKeeper(t.Context(), c.Directory), "twice is as once")
	})
}

func TestKeeperOutlivesTheProlog(t *testing.T) {
	againtest.Root(t)
	// The prolog is this test in another process, in a group that is killed as slurmd does.
	if dir := os.Getenv("SPAWN_TEST_PROLOG"); dir != "" {
		c := config(t, 990002)
		c.Directory = dir
		pid := start(t, c)
		fmt.Println("keeper", pid)
		os.Exit(0)
	}
	dir := filepath.Join(t.TempDir(), "990002.0")
	require.NoError(t, os.Mkdir(dir, 0o700))
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKeeperOutlivesTheProlog$")
	cmd.Env = append(os.Environ(), "SPAWN_TEST_PROLOG="+dir)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	out, err := cmd.Output() // reads to the end, as slurmd does: a keeper that held stdout would block it
	require.NoError(t, err, string(out))
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	pid, err := strconv.Atoi(strings.TrimSpace(regexp.MustCompile(`keeper \d+`).FindString(string(out))[len("keeper "):]))
	require.NoError(t, err)
	assert.True(t, alive(pid))
	require.NoError(t, spawn.StopKeeper(t.Context(), dir))
	assert.False(t, alive(pid))
}

func TestKeeperEnds(t *testing.T) {
	t.Run("at the end of the lifetime, with the gate closed", func(t *testing.T) {
		c := config(t, 990003)
		c.Expires = boottime(t) + 1
		pid := start(t, c)
		require.Eventually(t, func() bool { return !alive(pid) }, 10*time.Second, 20*time.Millisecond)
		assert.NoFileExists(t, goFile(c))
	})
	t.Run("when the time of its GO is over and no verifier was there", func(t *testing.T) {
		c := config(t, 990010)
		h := handle(t, c)
		require.NoError(t, h.Grant(keeper.Grant{Go: goOf(t, 990010, 2), Lifetime: 2, Renew: 1}))
		require.Eventually(t, func() bool { return !alive(h.PID) }, 10*time.Second, 20*time.Millisecond)
		assert.NoFileExists(t, goFile(c))
	})
	t.Run("a second prolog ends the keeper of the first", func(t *testing.T) {
		c := config(t, 990004)
		first := start(t, c)
		second := start(t, c)
		assert.False(t, alive(first))
		assert.True(t, alive(second))
	})
	t.Run("one that is stopped by a signal is killed", func(t *testing.T) {
		c := config(t, 990005)
		pid := start(t, c)
		require.NoError(t, unix.Kill(pid, unix.SIGSTOP))
		require.NoError(t, spawn.StopKeeper(t.Context(), c.Directory))
		assert.False(t, alive(pid))
	})
}

func TestStopKeeperEndsNobodyElse(t *testing.T) {
	againtest.Root(t)
	bystander := exec.Command("sleep", "60")
	require.NoError(t, bystander.Start())
	defer func() { _ = bystander.Process.Kill(); _ = bystander.Wait() }()
	pid := bystander.Process.Pid
	dir := filepath.Join(t.TempDir(), "990006.0")
	require.NoError(t, os.Mkdir(dir, 0o700))
	t.Run("where no keeper ever was", func(t *testing.T) {
		require.NoError(t, spawn.StopKeeper(t.Context(), dir))
	})
	t.Run("a process that got the keeper's pid", func(t *testing.T) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "keeper"), fmt.Appendf(nil, "pid %d start 1 exe 1:1\n", pid), 0o600))
		require.NoError(t, spawn.StopKeeper(t.Context(), dir))
		assert.True(t, alive(pid))
	})
	for _, torn := range []string{"", "pid", fmt.Sprintf("pid %d start 1 exe 1:1", pid)} {
		t.Run("a record that was not written to its end, for /run was full: "+torn, func(t *testing.T) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "keeper"), []byte(torn), 0o600))
			require.NoError(t, spawn.StopKeeper(t.Context(), dir))
			assert.NoFileExists(t, filepath.Join(dir, "keeper"), "or the journal's directory could not go")
			assert.True(t, alive(pid))
		})
	}
	t.Run("a record that says init", func(t *testing.T) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "keeper"), []byte("pid 1 start 1 exe 1:1\n"), 0o600))
		require.Error(t, spawn.StopKeeper(t.Context(), dir))
	})
}

func TestKeeperThatFailsToStart(t *testing.T) {
	for name, path := range map[string]string{"no program": "/nonexistent/enclave-keeper", "a program that says nothing": "/bin/true"} {
		t.Run(name, func(t *testing.T) {
			c := config(t, 990007)
			_, err := spawn.Keeper(t.Context(), path, c)
			refusal, ok := enclave.AsRefusal(err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, keeper.CodeStart, refusal.Code)
			assert.NotContains(t, err.Error(), "0123456789abcdef")
		})
	}
	t.Run("why is told", func(t *testing.T) {
		c := config(t, 990008)
		require.NoError(t, os.RemoveAll(c.Directory))
		_, err := spawn.Keeper(t.Context(), "/proc/self/exe", c)
		require.ErrorContains(t, err, "record keeper")
	})
	t.Run("a deadline ends it", func(t *testing.T) {
		c := config(t, 990009)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := spawn.Keeper(ctx, "/bin/sleep", c) // "sleep 990009.0" reads no config
		require.Error(t, err)
	})
	t.Run("a keeper that nobody started", func(t *testing.T) {
		out, err := exec.Command("/proc/self/exe", "4711.0").CombinedOutput()
		require.Error(t, err, string(out))
	})
}
