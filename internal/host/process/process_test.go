package process_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/againtest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
)

// alone: no process of the machine's can be met.
const alone = unix.CLONE_NEWNS | unix.CLONE_NEWPID

const (
	alice = 42001
	bob   = 42002
	least = 1000
)

func ids(uid uint32) []enclave.UIDRange { return []enclave.UIDRange{{Start: uid, Count: 1}} }

// A program's first thread ends while another goes on: the kernel then shows a zombie.
func init() {
	if os.Getenv("PROCESS_TEST_LEADERLESS") == "" {
		return
	}
	runtime.LockOSThread() // init runs on the first thread
	go func() { select {} }()
	for {
		if tasks, err := os.ReadDir("/proc/self/task"); err == nil && len(tasks) > 2 {
			break
		}
		runtime.Gosched()
	}
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
}

func start(t *testing.T, uid uint32, env string, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(cmd.Env, "PATH=/usr/bin:/bin", env)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{}}}
	require.NoError(t, cmd.Start())
	go func() { _ = cmd.Wait() }() // reaps
	return cmd
}

func living(t *testing.T, uid uint32) []process.Process {
	t.Helper()
	list, err := process.List()
	require.NoError(t, err)
	return process.Users(list, ids(uid))
}

func kill(t *testing.T, ranges []enclave.UIDRange) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return process.Kill(ctx, ranges, least)
}

func TestKill(t *testing.T) {
	if againtest.Outer(t, alone) {
		return
	}
	t.Run("all of a user's processes end, nobody else's does", func(t *testing.T) {
		start(t, alice, "", "/bin/sleep", "1000")
		start(t, alice, "", "/bin/sh", "-c", "trap '' TERM INT HUP; (setsid sleep 1000 &); sleep 1000; true")
		other := start(t, bob, "", "/bin/sleep", "1000")
		root := start(t, 0, "", "/bin/sleep", "1000")
		require.Eventually(t, func() bool { return len(living(t, alice)) >= 4 }, 10*time.Second, 10*time.Millisecond)
		require.NoError(t, kill(t, ids(alice)))
		assert.Empty(t, living(t, alice))
		assert.Len(t, living(t, bob), 1)
		require.NoError(t, root.Process.Signal(syscall.Signal(0)))
		require.NoError(t, other.Process.Kill())
		require.NoError(t, root.Process.Kill())
	})
	t.Run("a stopped process ends", func(t *testing.T) {
		cmd := start(t, alice, "", "/bin/sleep", "1000")
		require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
		require.NoError(t, kill(t, ids(alice)))
		assert.Empty(t, living(t, alice))
	})
	t.Run("ids of a subordinate range end with their user", func(t *testing.T) {
		start(t, 165000, "", "/bin/sleep", "1000")
		require.NoError(t, kill(t, append(ids(alice), enclave.UIDRange{Start: 100000, Count: 65536})))
		assert.Empty(t, living(t, 165000))
	})
	t.Run("a chain in which each process forks and ends is caught", func(t *testing.T) {
		// The reaper takes the dead away as a node's init does; it is root's and stays. The chain
		// is lucky only sometimes, so it gets many chances.
		for range 15 {
			reaper := start(t, 0, "", "/usr/bin/perl", "-e", fmt.Sprintf(`
				syscall(%d, %d, 1, 0, 0, 0); $SIG{CHLD} = "IGNORE";
				if (fork()) { sleep 1 while 1 }
				$) = $( = %d; $< = $> = %d;
				while (1) { my $p = fork(); exit 0 if $p; }`, unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, alice, alice))
			require.Eventually(t, func() bool { return len(living(t, alice)) > 0 }, 10*time.Second, time.Millisecond)
			require.NoError(t, kill(t, ids(alice)))
			for range 20 {
				require.Empty(t, living(t, alice), "one look may miss the chain, not twenty")
			}
			require.NoError(t, reaper.Process.Kill())
		}
	})
	t.Run("a process whose first thread has ended is seen and ended", func(t *testing.T) {
		cmd := start(t, alice, "PROCESS_TEST_LEADERLESS=1", "/proc/self/exe")
		status := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/status"
		require.Eventually(t, func() bool {
			b, err := os.ReadFile(status)
			return err == nil && strings.Contains(string(b), "State:\tZ")
		}, 10*time.Second, time.Millisecond, "the kernel shows a zombie")
		require.Len(t, living(t, alice), 1)
		require.NoError(t, kill(t, ids(alice)))
		assert.Empty(t, living(t, alice))
	})
	t.Run("chosen processes end, if they are who they were", func(t *testing.T) {
		one := start(t, alice, "", "/bin/sleep", "1000")
		two := start(t, alice, "", "/bin/sleep", "1000")
		require.NoError(t, process.KillThese(t.Context(), []process.Process{
			{PID: one.Process.Pid, UID: alice}, {PID: two.Process.Pid, UID: bob}, {PID: 99999, UID: alice},
		}))
		left := living(t, alice)
		require.Len(t, left, 1)
		assert.Equal(t, two.Process.Pid, left[0].PID)
		require.NoError(t, kill(t, ids(alice)))
	})
	t.Run("programs of one's own end by what they were started with", func(t *testing.T) {
		one := start(t, 0, "PROCESS_TEST_JOB=7", "/bin/sleep", "1000")
		two := start(t, 0, "PROCESS_TEST_JOB=77", "/bin/sleep", "1000")
		require.NoError(t, one.Process.Signal(syscall.SIGSTOP))
		mine := func(p process.Process) bool {
			return p.Name == "sleep" && slices.Contains(process.Environment(p.PID), "PROCESS_TEST_JOB=7")
		}
		require.Eventually(t, func() bool { // a program that is only beginning shows nothing yet
			list, err := process.List()
			return err == nil && slices.ContainsFunc(list, mine)
		}, 10*time.Second, time.Millisecond)
		require.NoError(t, process.KillPrograms(t.Context(), mine))
		list, err := process.List()
		require.NoError(t, err)
		assert.False(t, slices.ContainsFunc(list, mine))
		assert.True(t, slices.ContainsFunc(list, func(p process.Process) bool { return p.PID == two.Process.Pid }))
		assert.Nil(t, process.Environment(one.Process.Pid), "it is gone")
	})
	t.Run("foreign is who is no daemon, no system user and not allowed", func(t *testing.T) {
		start(t, alice, "", "/bin/sleep", "1000")
		start(t, bob, "", "/bin/sleep", "1000")
		start(t, 65534, "", "/bin/sleep", "1000")
		start(t, 100, "", "/bin/sleep", "1000")
		list, err := process.List()
		require.NoError(t, err)
		foreign := process.Foreign(list, least, append(process.Daemons(), ids(bob)...))
		require.Len(t, foreign, 1)
		assert.Equal(t, uint32(alice), foreign[0].UID)
	})
}

func TestKillRefuses(t *testing.T) {
	for name, r := range map[string]enclave.UIDRange{
		"root":          {Start: 0, Count: 1},
		"a system user": {Start: 999, Count: 1},
		"nobody at all": {Start: 1000, Count: 0},
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, process.Kill(t.Context(), []enclave.UIDRange{r}, least))
		})
	}
	require.Error(t, process.Kill(t.Context(), ids(1000), 0), "no least id is no protection")
}

func TestBegan(t *testing.T) {
	mine, err := process.Began(os.Getpid())
	require.NoError(t, err)
	one := start(t, 0, "", "/bin/sleep", "1000")
	its, err := process.Began(one.Process.Pid)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, its, mine, "a child begins after its parent")
	require.NoError(t, one.Process.Kill())
	require.Eventually(t, func() bool {
		_, ended := process.Began(one.Process.Pid)
		return errors.Is(ended, os.ErrProcessDone)
	}, 10*time.Second, time.Millisecond, "nobody has waited for it")
	_, err = process.Began(1 << 30)
	require.ErrorIs(t, err, os.ErrProcessDone)
}

func TestParseStat(t *testing.T) {
	const rest = " S 1 7 7 0 -1 4194560 100 0 0 0 5 6 0 0 20 0 1 0 4711 1000 100"
	for name, program := range map[string]string{
		"a plain name":               "7 (sleep)",
		"brackets and blanks in it":  "7 (a) Z 1 (b)",
		"a line's end in it":         "7 (a\n) R)",
		"a name that is a field":     "7 () 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19)",
		"a bracket at the very last": "7 (a))",
	} {
		t.Run(name, func(t *testing.T) {
			state, began, err := process.ParseStat(program + rest)
			require.NoError(t, err)
			assert.Equal(t, byte('S'), state)
			assert.Equal(t, uint64(4711), began)
		})
	}
	for name, text := range map[string]string{
		"nothing":            "",
		"a name alone":       "7 (sleep)",
		"cut off":            "7 (sleep)" + strings.TrimSuffix(rest, " 4711 1000 100"),
		"a begin before all": "7 (sleep)" + strings.Replace(rest, "4711", "-1", 1),
		"a state of two":     "7 (sleep)" + strings.Replace(rest, "S", "SS", 1),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := process.ParseStat(text)
			require.ErrorContains(t, err, "parse process stat")
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("7 (sleep) S 1 7 7 0 -1 4194560 100 0 0 0 5 6 0 0 20 0 1 0 4711 1000 100")
	f.Fuzz(func(t *testing.T, text string) {
		if state, _, err := process.ParseStat(text); err == nil {
			require.NotZero(t, state)
		}
	})
}

func TestKernel(t *testing.T) {
	id, err := process.BootID()
	require.NoError(t, err)
	assert.Len(t, id, 36)
	a, err := process.Boottime()
	require.NoError(t, err)
	b, err := process.Boottime()
	require.NoError(t, err)
	assert.Positive(t, a)
	assert.GreaterOrEqual(t, b, a)
}

func TestParseSubuid(t *testing.T) {
	const text = "# subordinate ids\nalice:100000:65536\nbob:x:y\n2001:300000:10\nalice:400000:0\nalicea:1:1\n"
	ranges, err := process.ParseSubuid(strings.NewReader(text), "alice", 2001, 1000)
	require.NoError(t, err)
	assert.Equal(t, []enclave.UIDRange{{Start: 100000, Count: 65536}, {Start: 300000, Count: 10}}, ranges)
	for _, bad := range []string{"alice", "alice:0x10000:5", "alice:5:5", "alice:0:1", "alice:4294967290:10", "alice:100000", "alice:-1:5"} {
		_, err := process.ParseSubuid(strings.NewReader(bad), "alice", 2001, 1000)
		require.Error(t, err, bad)
	}
}

func FuzzParseSubuid(f *testing.F) {
	f.Add("alice:100000:65536\n2001:1000:1\n")
	f.Fuzz(func(t *testing.T, text string) {
		ranges, err := process.ParseSubuid(strings.NewReader(text), "alice", 2001, 1000)
		if err != nil {
			return
		}
		for _, r := range ranges {
			require.NoError(t, r.Check())
			require.GreaterOrEqual(t, r.Start, uint32(1000))
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add("Name:\tsleep\nState:\tS (sleeping)\nUid:\t1\t0\t0\t0\n")
	f.Add("Name:\ta\\nUid:\t0\nState:\tZ (zombie)\nUid:\t2001\t2001\t2001\t2001\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := process.ParseStatus(strings.NewReader(text))
		if err == nil {
			require.NotZero(t, p.State)
		}
	})
}
