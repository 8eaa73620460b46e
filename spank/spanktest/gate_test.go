//go:build cgo

package spanktest_test

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	st "github.com/slurm-enclave/slurm-enclave/spank/spanktest"
)

const (
	job  = 4711
	boot = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
	far  = "18446744073709551615" // never, on the boot clock
)

// node is an enclave node with a GO for the job; tests then break one thing.
type node struct {
	st.Host
	gate string // the directory of the gate files
}

func newNode(t *testing.T) *node {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.Chmod(root, 0o755))
	n := &node{gate: filepath.Join(root, "run/slurm-enclave/gate")}
	n.Host = st.Host{
		Context: st.Remote, Root: root, Job: job,
		Marker: filepath.Join(root, "enclave-node"), BootID: filepath.Join(root, "boot_id"),
		DirOwner: uint32(os.Geteuid()), FileOwner: uint32(os.Geteuid()), Group: uint32(os.Getegid()),
	}
	require.NoError(t, os.MkdirAll(n.gate, 0o755))
	write(t, n.Marker, "", 0o644)
	write(t, n.BootID, boot+"\n", 0o444)
	write(t, n.file("go"), admission(), 0o400)
	return n
}

func (n *node) file(kind string) string {
	return filepath.Join(n.gate, fmt.Sprintf("%d.%s", job, kind))
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	_ = os.Remove(path)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	require.NoError(t, os.Chmod(path, mode))
}

func admission(env ...string) string {
	s := fmt.Sprintf("slurm-enclave-go 1\njob %d\nrestart 0\nboot %s\nexpires %s\n", job, boot, far)
	for _, e := range env {
		s += "env " + e + "\n"
	}
	return s + "end\n"
}

func denial(reason string) string {
	return fmt.Sprintf("slurm-enclave-deny 1\njob %d\ncode E220\nreason %s\nend\n", job, reason)
}

func view(space string) string {
	return fmt.Sprintf("slurm-enclave-view 1\njob %d\nboot %s\nnamespace %s\nend\n", job, boot, space)
}

// own is the number of this process's mount namespace.
func own(t *testing.T) string {
	t.Helper()
	var s syscall.Stat_t
	require.NoError(t, syscall.Stat("/proc/self/ns/mnt", &s))
	return fmt.Sprint(s.Ino)
}

func TestGateLooksWhereTheTaskIs(t *testing.T) {
	t.Run("where the view is, a task starts", func(t *testing.T) {
		n := newNode(t)
		write(t, n.file("view"), view(own(t)), 0o400)
		assert.Equal(t, st.Outcome{Dropped: true, Left: true}, n.Step(nil))
	})
	for name, text := range map[string]string{
		"no task starts in another namespace":        view("4026531840999"),
		"no task starts before the view is made":     view("0"),
		"a view of another job is none":              strings.Replace(view(own(t)), "job 4711", "job 4712", 1),
		"a view of an earlier boot is none":          strings.Replace(view(own(t)), "boot 1", "boot 2", 1),
		"a view that is not well formed is none":     view(own(t)) + "\n",
		"a view without a word is none":              "",
		"a view that says less than it must is none": strings.Replace(view(own(t)), "end\n", "", 1),
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			write(t, n.file("view"), text, 0o400)
			o := n.Step(nil)
			assert.Equal(t, -1, o.Gate)
			assert.Contains(t, o.Errors, "E325")
		})
	}
	t.Run("a view that others could have written is none", func(t *testing.T) {
		n := newNode(t)
		write(t, n.file("view"), view(own(t)), 0o644)
		o := n.Step(nil)
		assert.Equal(t, -1, o.Gate)
		assert.Contains(t, o.Errors, "E325")
	})
	t.Run("a view admits nobody", func(t *testing.T) {
		n := newNode(t)
		write(t, n.file("view"), view(own(t)), 0o400)
		require.NoError(t, os.Remove(n.file("go")))
		o := n.Step(nil)
		assert.Equal(t, -1, o.Gate)
		assert.Contains(t, o.Errors, "E110")
	})
}

func TestGateOpens(t *testing.T) {
	t.Run("with a GO of this job", func(t *testing.T) {
		o := newNode(t).Step(nil)
		assert.Equal(t, st.Outcome{Dropped: true, Left: true}, o)
	})
	t.Run("without a marker, whatever else there is", func(t *testing.T) {
		n := newNode(t)
		require.NoError(t, os.Remove(n.Marker))
		require.NoError(t, os.RemoveAll(n.gate))
		n.Env = []string{"ENCLAVE_VERDICT=mine"}
		o := n.Step(nil)
		assert.Equal(t, st.Outcome{Env: n.Env}, o, "an ordinary node leaves the job alone")
	})
	t.Run("where the marker's directory does not exist", func(t *testing.T) {
		n := newNode(t)
		n.Marker = filepath.Join(n.BootID, "enclave-node") // ENOTDIR
		require.NoError(t, os.Remove(n.file("go")))
		assert.Zero(t, n.Step(nil).Gate)
	})
	t.Run("for a requeued job, whose restart count SPANK does not tell", func(t *testing.T) {
		n := newNode(t)
		write(t, n.file("go"), strings.Replace(admission(), "restart 0", "restart 3", 1), 0o400)
		assert.Zero(t, n.Step(nil).Gate)
	})
	t.Run("when the keeper has replaced GO meanwhile", func(t *testing.T) {
		n := newNode(t)
		assert.Zero(t, n.Step(func() {
			next := filepath.Join(n.gate, "next")
			write(t, next, admission(), 0o400)
			require.NoError(t, os.Rename(next, n.file("go")))
		}).Gate)
	})
}

func TestGateRefuses(t *testing.T) {
	text := func(old, now string) func(*testing.T, *node) {
		return func(t *testing.T, n *node) {
			t.Helper()
			require.Contains(t, admission(), old)
			write(t, n.file("go"), strings.Replace(admission(), old, now, 1), 0o400)
		}
	}
	raw := func(s string) func(*testing.T, *node) {
		return func(t *testing.T, n *node) { t.Helper(); write(t, n.file("go"), s, 0o400) }
	}
	for _, c := range []struct {
		name, code string
		do         func(*testing.T, *node)
	}{
		{"no GO", "E110", func(t *testing.T, n *node) { require.NoError(t, os.Remove(n.file("go"))) }},
		{"no gate directory", "E110", func(t *testing.T, n *node) { require.NoError(t, os.RemoveAll(n.gate)) }},
		{"another job's GO only", "E110", func(t *testing.T, n *node) {
			require.NoError(t, os.Rename(n.file("go"), filepath.Join(n.gate, "4712.go")))
		}},
		{"another job's GO under this job's name", "E112", text("job 4711", "job 4712")},
		{"a GO of an earlier boot", "E112", text("boot 1", "boot 2")},
		{"an unreadable boot id", "E112", func(t *testing.T, n *node) { require.NoError(t, os.Remove(n.BootID)) }},
		{"a truncated boot id", "E112", func(t *testing.T, n *node) { write(t, n.BootID, boot[:35]+"\n", 0o444) }},
		{"an empty boot id", "E112", func(t *testing.T, n *node) { write(t, n.BootID, "", 0o444) }},
		{"a GO whose time is over", "E113", text("expires "+far, "expires 0")},
		{"a symbolic link as GO", "E111", func(t *testing.T, n *node) {
			write(t, filepath.Join(n.gate, "real"), admission(), 0o400)
			require.NoError(t, os.Remove(n.file("go")))
			require.NoError(t, os.Symlink("real", n.file("go")))
		}},
		{"a hard link to GO", "E111", func(t *testing.T, n *node) {
			require.NoError(t, os.Link(n.file("go"), filepath.Join(n.gate, "second")))
		}},
		{"a symbolic link as gate directory", "E111", func(t *testing.T, n *node) {
			require.NoError(t, os.Rename(n.gate, n.gate+".real"))
			require.NoError(t, os.Symlink("gate.real", n.gate))
		}},
		{"a symbolic link above it", "E111", func(t *testing.T, n *node) {
			run := filepath.Join(n.Root, "run")
			require.NoError(t, os.Rename(run, run+".real"))
			require.NoError(t, os.Symlink("run.real", run))
		}},
		{"a gate directory that others can write", "E111", func(t *testing.T, n *node) { require.NoError(t, os.Chmod(n.gate, 0o757)) }},
		{"a gate directory that its group can write", "E111", func(t *testing.T, n *node) { require.NoError(t, os.Chmod(n.gate, 0o770)) }},
		{"a directory above it that others can write", "E111", func(t *testing.T, n *node) {
			require.NoError(t, os.Chmod(filepath.Dir(n.gate), 0o777))
		}},
		{"a directory of somebody else's", "E111", func(_ *testing.T, n *node) { n.DirOwner++ }},
		{"a GO of somebody else's", "E111", func(_ *testing.T, n *node) { n.FileOwner++ }},
		{"a GO of another group", "E111", func(_ *testing.T, n *node) { n.Group++ }},
		{"a writable GO", "E111", func(t *testing.T, n *node) { require.NoError(t, os.Chmod(n.file("go"), 0o600)) }},
		{"a GO that others read", "E111", func(t *testing.T, n *node) { require.NoError(t, os.Chmod(n.file("go"), 0o404)) }},
		{"a set-uid GO", "E111", func(t *testing.T, n *node) {
			require.NoError(t, os.Chmod(n.file("go"), 0o400|os.ModeSetuid))
		}},
		{"a directory as GO", "E111", func(t *testing.T, n *node) {
			require.NoError(t, os.Remove(n.file("go")))
			require.NoError(t, os.Mkdir(n.file("go"), 0o400))
		}},
		{"a FIFO as GO, without waiting for a writer", "E111", func(t *testing.T, n *node) {
			require.NoError(t, os.Remove(n.file("go")))
			require.NoError(t, syscall.Mkfifo(n.file("go"), 0o400))
		}},
		{"an empty GO", "E111", raw("")},
		{"a truncated GO", "E111", text("end\n", "")},
		{"a GO without its last line feed", "E111", text("end\n", "end")},
		{"a GO beyond its size", "E111", raw(admission() + strings.Repeat("x", 4096))},
		{"a GO with bytes after its end", "E111", text("end\n", "end\nend\n")},
		{"a GO with a NUL in it", "E111", text("restart 0", "restart 0\x00")},
		{"garbage", "E111", raw("\x7fELF\x02\x01\x01")},
		{"a GO of another format", "E111", text("slurm-enclave-go 1", "slurm-enclave-go 2")},
		{"a GO with its lines swapped", "E111", text("job 4711\nrestart 0", "restart 0\njob 4711")},
		{"a job number spelled another way", "E111", text("job 4711", "job 04711")},
		{"a GO that sets LD_PRELOAD", "E111", raw(admission("LD_PRELOAD=/tmp/x.so"))},
		{"a GO with too many variables", "E111", raw(admission(many(17)...))},
		{"a GO beside a DENY", "E220", func(t *testing.T, n *node) { write(t, n.file("deny"), denial("no report"), 0o400) }},
		{"a GO beside a DENY that nobody can read", "E111", func(t *testing.T, n *node) { write(t, n.file("deny"), "", 0o400) }},
		{"a GO beside a DENY of another job", "E111", func(t *testing.T, n *node) {
			write(t, n.file("deny"), strings.Replace(denial("x"), "4711", "4712", 1), 0o400)
		}},
		{"a GO beside a dangling link as DENY", "E111", func(t *testing.T, n *node) {
			require.NoError(t, os.Symlink("nowhere", n.file("deny")))
		}},
		{"a job whose number Slurm does not say", "E115", func(_ *testing.T, n *node) { n.JobUnknown = true }},
		{"job 0", "E115", func(_ *testing.T, n *node) { n.Job = 0 }},
		{"a marker that is a dangling link", "E110", func(t *testing.T, n *node) {
			require.NoError(t, os.Remove(n.file("go")))
			require.NoError(t, os.Remove(n.Marker))
			require.NoError(t, os.Symlink("nowhere", n.Marker))
		}},
		{"a marker that can't be looked at", "E110", func(t *testing.T, n *node) {
			require.NoError(t, os.Remove(n.file("go")))
			loop := filepath.Join(n.Root, "loop")
			require.NoError(t, os.Symlink("loop", loop))
			n.Marker = filepath.Join(loop, "enclave-node") // ELOOP, as good as EACCES
		}},
		{"an environment that could not be set", "E115", func(t *testing.T, n *node) {
			write(t, n.file("go"), admission("SLURM_PMIX_DIRECT_CONN=false"), 0o400)
			n.SetenvFail = true
		}},
		{"an environment that Slurm does not show", "E115", func(_ *testing.T, n *node) { n.EnvFail = true }},
		{"a user's variable too long to be unset", "E115", func(_ *testing.T, n *node) {
			n.Env = []string{"ENCLAVE_" + strings.Repeat("X", 300) + "=1"}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			c.do(t, n)
			o := n.Step(nil)
			assert.Equal(t, -1, o.Gate)
			assert.Zero(t, o.Init, "only the gate may veto on a node")
			assert.Zero(t, o.PostOpt, "only the gate may veto on a node")
			assert.Regexp(t, "^enclave: gate: "+c.code+": [ -~]+\n$", o.Errors)
		})
	}
}

func TestGateChangesItsMind(t *testing.T) {
	t.Run("a GO that goes away before the task starts", func(t *testing.T) {
		n := newNode(t)
		o := n.Step(func() { require.NoError(t, os.Remove(n.file("go"))) })
		assert.Equal(t, -1, o.Gate)
	})
	t.Run("a DENY that comes before the task starts, with its reason", func(t *testing.T) {
		n := newNode(t)
		o := n.Step(func() { write(t, n.file("deny"), denial("n2 shows an old firmware"), 0o400) })
		assert.Equal(t, -1, o.Gate)
		assert.Equal(t, "enclave: gate: E220: n2 shows an old firmware\n", o.Errors)
	})
	t.Run("a GO that comes after the environment was prepared does not help", func(t *testing.T) {
		n := newNode(t)
		require.NoError(t, os.Remove(n.file("go")))
		o := n.Step(func() { write(t, n.file("go"), admission(), 0o400) })
		assert.Equal(t, -1, o.Gate)
		assert.Contains(t, o.Errors, "E115")
	})
	t.Run("a marker that the job's own mount namespace hides still counts", func(t *testing.T) {
		n := newNode(t)
		o := n.Step(func() {
			require.NoError(t, os.Remove(n.Marker))
			require.NoError(t, os.Remove(n.file("go")))
		})
		assert.Equal(t, -1, o.Gate)
	})
	t.Run("a percent sign in a reason is text", func(t *testing.T) {
		n := newNode(t)
		write(t, n.file("deny"), denial("100%n of %s"), 0o400)
		assert.Equal(t, "enclave: gate: E220: 100%n of %s\n", n.Step(nil).Errors)
	})
}

func many(n int) []string {
	var env []string
	for i := range n {
		env = append(env, fmt.Sprintf("ENCLAVE_%d=x", i))
	}
	return env
}

func TestEnvironment(t *testing.T) {
	t.Run("GO's variables are set over the user's, and the user's others under our prefix go", func(t *testing.T) {
		n := newNode(t)
		n.Env = []string{
			"PATH=/bin", "ENCLAVE_VERDICT=protected", "ENCLAVE_=1", "ENCLAVE_NODES=9", "ENCLAVE_X",
			"SLURM_PMIX_DIRECT_CONN=true", "XENCLAVE_Y=kept", "ENCLAVE_NODES=8",
		}
		write(t, n.file("go"), admission("ENCLAVE_VERDICT=simulated", "SLURM_PMIX_DIRECT_CONN=false",
			"ENCLAVE_TENANT="), 0o400)
		o := n.Step(nil)
		assert.Zero(t, o.Gate, o.Errors)
		assert.Equal(t, []string{
			"PATH=/bin", "ENCLAVE_VERDICT=simulated", "ENCLAVE_X",
			"SLURM_PMIX_DIRECT_CONN=false", "XENCLAVE_Y=kept", "ENCLAVE_TENANT=",
		}, o.Env)
	})
	t.Run("a job that wants its user's login environment gets what a login without a profile has", func(t *testing.T) {
		n := newNode(t)
		n.Env = []string{"SLURM_GET_USER_ENV=enclave", "USER=kept"}
		env := n.Step(nil).Env
		me, err := user.Current()
		require.NoError(t, err)
		assert.Equal(t, []string{"SLURM_GET_USER_ENV=1", "USER=kept", "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + me.HomeDir}, env[:4])
		assert.Contains(t, env, "LOGNAME="+me.Username)
		n.Env = []string{"SLURM_GET_USER_ENV=enclaves"}
		assert.Equal(t, n.Env, n.Step(nil).Env, "another value is none of ours")
	})
	t.Run("without a GO nothing is set and the user's claims go", func(t *testing.T) {
		n := newNode(t)
		n.Env = []string{"ENCLAVE_VERDICT=protected", "HOME=/root"}
		require.NoError(t, os.Remove(n.file("go")))
		o := n.Step(nil)
		assert.Equal(t, -1, o.Gate)
		assert.Equal(t, []string{"HOME=/root"}, o.Env)
	})
	t.Run("the extern step, which has no tasks, is left in peace", func(t *testing.T) {
		n := newNode(t)
		require.NoError(t, os.Remove(n.file("go")))
		n.Install()
		assert.Zero(t, st.Init())
		assert.Zero(t, st.PostOpt(""))
		assert.Empty(t, st.Errors())
	})
}
