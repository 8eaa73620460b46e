package journal_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/journal"
)

var key = enclave.JobKey{Cluster: "c", Job: 4711, Restart: 1}

func header() journal.Header {
	return journal.Header{JobKey: key, UID: 2001, User: "alice", Boot: "boot-1"}
}

func clock() int64 { return 42 }

func path(base string) string { return filepath.Join(base, "4711.1", "journal") }

func stages(lines []journal.Line) string {
	var s []string
	for _, l := range lines {
		s = append(s, l.Stage+"="+l.Detail)
	}
	return strings.Join(s, " ")
}

func TestJournal(t *testing.T) {
	base := t.TempDir()
	j, err := journal.Create(base, header(), clock)
	require.NoError(t, err)
	require.NoError(t, j.Intent("mesh", "enc4711"))
	require.NoError(t, j.Done("mesh"))
	require.NoError(t, j.Intent("fence", "a"))
	require.NoError(t, j.Intent("subtree", "/lustre"))
	require.NoError(t, j.Intent("fence", "b"))
	require.NoError(t, j.Undone("subtree"))
	require.NoError(t, j.Leave())

	t.Run("the lines are plain text, one per act", func(t *testing.T) {
		b, err := os.ReadFile(path(base))
		require.NoError(t, err)
		want := `{"version":"slurm-enclave-journal/1","cluster":"c","job":4711,"restart":1,"uid":2001,"user":"alice","boot":"boot-1"}
{"seq":1,"boottime_ns":42,"stage":"mesh","act":"intent","detail":"enc4711"}
{"seq":2,"boottime_ns":42,"stage":"mesh","act":"done"}
{"seq":3,"boottime_ns":42,"stage":"fence","act":"intent","detail":"a"}
{"seq":4,"boottime_ns":42,"stage":"subtree","act":"intent","detail":"/lustre"}
{"seq":5,"boottime_ns":42,"stage":"fence","act":"intent","detail":"b"}
{"seq":6,"boottime_ns":42,"stage":"subtree","act":"undone"}
`
		assert.Equal(t, want, string(b))
	})
	t.Run("only root may read it", func(t *testing.T) {
		for name, want := range map[string]fs.FileMode{path(base): 0o600, filepath.Dir(path(base)): 0o700} {
			info, err := os.Stat(name)
			require.NoError(t, err)
			assert.Equal(t, want, info.Mode().Perm())
		}
	})
	t.Run("what may be left on the node is what was meant and not undone", func(t *testing.T) {
		r, err := journal.Load(base, key)
		require.NoError(t, err)
		assert.Equal(t, "mesh=enc4711 fence=b", stages(r.Open()))
		assert.Equal(t, uint32(2001), r.UID)
		assert.False(t, r.Closed())
	})
	t.Run("a second prolog of the same start is told so", func(t *testing.T) {
		_, err := journal.Create(base, header(), clock)
		require.ErrorIs(t, err, fs.ErrExist)
	})
	t.Run("the epilog goes on with the next number and closes", func(t *testing.T) {
		j, r, err := journal.Open(base, key, clock)
		require.NoError(t, err)
		require.Len(t, r.Lines, 6)
		require.NoError(t, j.Undone("fence"))
		require.NoError(t, j.Close("clean"))
		again, err := journal.Load(base, key)
		require.NoError(t, err)
		assert.True(t, again.Closed())
		assert.Equal(t, "mesh=enc4711", stages(again.Open()))
	})
	t.Run("it is listed until it is removed, and removing twice is fine", func(t *testing.T) {
		keys, err := journal.List(base, "c")
		require.NoError(t, err)
		assert.Equal(t, []enclave.JobKey{key}, keys)
		require.NoError(t, journal.Remove(base, key))
		require.NoError(t, journal.Remove(base, key))
		keys, err = journal.List(base, "c")
		require.NoError(t, err)
		assert.Empty(t, keys)
	})
}

func TestNoJournal(t *testing.T) {
	base := t.TempDir()
	_, _, err := journal.Open(base, key, clock)
	require.ErrorIs(t, err, fs.ErrNotExist)
	keys, err := journal.List(filepath.Join(base, "missing"), "c")
	require.NoError(t, err)
	assert.Empty(t, keys)
	require.NoError(t, os.Mkdir(filepath.Join(base, "gate"), 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(base, "07.1"), 0o700))
	keys, err = journal.List(base, "c")
	require.NoError(t, err)
	assert.Empty(t, keys, "only canonical job directories are journals")
}

func TestDamage(t *testing.T) {
	write := func(t *testing.T, change func(string) string) string {
		t.Helper()
		base := t.TempDir()
		j, err := journal.Create(base, header(), clock)
		require.NoError(t, err)
		require.NoError(t, j.Intent("mesh", ""))
		require.NoError(t, j.Intent("fence", ""))
		require.NoError(t, j.Leave())
		b, err := os.ReadFile(path(base))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path(base), []byte(change(string(b))), 0o600))
		return base
	}
	t.Run("a torn last line is cut off and writing goes on", func(t *testing.T) {
		base := write(t, func(s string) string { return s[:len(s)-7] })
		j, r, err := journal.Open(base, key, clock)
		require.NoError(t, err)
		assert.True(t, r.Torn)
		assert.Equal(t, "mesh=", stages(r.Open()))
		require.NoError(t, j.Intent("subtree", ""))
		require.NoError(t, j.Leave())
		again, err := journal.Load(base, key)
		require.NoError(t, err)
		assert.False(t, again.Torn)
		assert.Equal(t, "mesh= subtree=", stages(again.Open()))
	})
	t.Run("a torn header means that nothing was begun", func(t *testing.T) {
		for _, n := range []int{0, 10} {
			r, err := journal.Load(write(t, func(s string) string { return s[:n] }), key)
			require.NoError(t, err)
			assert.True(t, r.Torn)
			assert.Equal(t, key, r.JobKey)
			assert.Empty(t, r.Open())
		}
	})
	damage := map[string]func(string) string{
		"a line in the middle that cannot be read": func(s string) string { return strings.Replace(s, `"mesh"`, `"me`, 1) },
		"an unknown field":                         func(s string) string { return strings.Replace(s, `"seq":2`, `"x":1,"seq":2`, 1) },
		"an unknown act":                           func(s string) string { return strings.Replace(s, `intent`, `maybe`, 1) },
		"a missing line":                           func(s string) string { return strings.Replace(s, `"seq":2`, `"seq":3`, 1) },
		"another version":                          func(s string) string { return strings.Replace(s, `journal/1`, `journal/2`, 1) },
		"another job's journal":                    func(s string) string { return strings.Replace(s, `"job":4711`, `"job":4712`, 1) },
		"two values in a line":                     func(s string) string { return strings.Replace(s, "}\n", "} {}\n", 1) },
	}
	for name, change := range damage {
		t.Run(name+" is damage", func(t *testing.T) {
			base := write(t, change)
			_, err := journal.Load(base, key)
			require.ErrorIs(t, err, journal.ErrDamaged)
			_, _, err = journal.Open(base, key, clock)
			require.ErrorIs(t, err, journal.ErrDamaged)
		})
	}
	t.Run("what stands before the damage is kept", func(t *testing.T) {
		r, err := journal.Load(write(t, func(s string) string { return strings.Replace(s, `"seq":2`, `"seq":7`, 1) }), key)
		require.ErrorIs(t, err, journal.ErrDamaged)
		assert.Equal(t, "mesh=", stages(r.Open()))
	})
}

func TestRefusedLines(t *testing.T) {
	j, err := journal.Create(t.TempDir(), header(), clock)
	require.NoError(t, err)
	require.Error(t, j.Intent("mesh", strings.Repeat("x", 70<<10)), "a line that could not be read again is not written")
	require.Error(t, j.Intent("", "x"))
	require.NoError(t, j.Intent("mesh", "a\nb"), "a newline in a detail is escaped")
	require.NoError(t, j.Close(""))
	_, err = journal.Create(t.TempDir(), journal.Header{JobKey: key}, clock)
	require.Error(t, err, "a journal names its boot")
}

// A symlink where the directory should be must not lead the writer elsewhere.
func TestSymlinkedDirectory(t *testing.T) {
	base, elsewhere := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(elsewhere, filepath.Join(base, "4711.1")))
	_, err := journal.Create(base, header(), clock)
	require.Error(t, err)
	entries, err := os.ReadDir(elsewhere)
	require.NoError(t, err)
	assert.Empty(t, entries)
}

// TestKilled kills a writer in the middle of its work; what it had said stays readable.
func TestKilled(t *testing.T) {
	if base := os.Getenv("JOURNAL_TEST_BASE"); base != "" {
		j, err := journal.Create(base, header(), clock)
		require.NoError(t, err)
		require.NoError(t, j.Intent("mesh", ""))
		self, err := os.FindProcess(os.Getpid())
		require.NoError(t, err)
		require.NoError(t, self.Kill())
		select {}
	}
	base := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), "JOURNAL_TEST_BASE="+base)
	require.Error(t, cmd.Run())
	r, err := journal.Load(base, key)
	require.NoError(t, err)
	assert.Equal(t, "mesh=", stages(r.Open()))
}

func FuzzParse(f *testing.F) {
	f.Add(`{"version":"slurm-enclave-journal/1","cluster":"c","job":4711,"restart":1,"uid":2001,"boot":"b"}
{"seq":1,"boottime_ns":42,"stage":"mesh","act":"intent","detail":"enc4711"}
{"seq":2,"boottime_ns":43,"stage":"journal","act":"closed"}
`)
	f.Add("{\"version\":\"slurm-enclave-journal/1\",\"job\":1,\"boot\":\"b\"}\n{\"seq\":1,\"stage\":\"m\",\"act\":\"in")
	f.Add("\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := journal.Parse(strings.NewReader(text))
		for i, l := range r.Lines {
			require.Equal(t, uint64(i+1), l.Seq)
			require.NotEmpty(t, l.Stage)
		}
		if err != nil {
			require.ErrorIs(t, err, journal.ErrDamaged)
			return
		}
		whole := text[:strings.LastIndexByte(text, '\n')+1]
		require.Equal(t, whole != text || whole == "", r.Torn)
		again, err := journal.Parse(strings.NewReader(whole))
		require.NoError(t, err, "cutting a torn line off leaves a readable journal")
		require.Equal(t, r.Lines, again.Lines)
	})
}

// full lets no file of this process grow beyond so many bytes until the test's end: what a full file system
// does, a part of the last write included.
func full(t *testing.T, bytes uint64) {
	t.Helper()
	var was syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was))
	free := func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was)) }
	t.Cleanup(free)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: bytes, Max: was.Max}))
}

func TestFullFileSystem(t *testing.T) {
	t.Run("a line of which a part was written is taken back, and the journal goes on when there is space", func(t *testing.T) {
		base := t.TempDir()
		j, err := journal.Create(base, header(), clock)
		require.NoError(t, err)
		require.NoError(t, j.Intent("mesh", ""))
		before, err := os.ReadFile(path(base))
		require.NoError(t, err)
		t.Run("full", func(t *testing.T) {
			full(t, uint64(len(before))+20)
			require.ErrorContains(t, j.Done("mesh"), "write journal")
		})
		after, err := os.ReadFile(path(base))
		require.NoError(t, err)
		assert.Equal(t, string(before), string(after))
		require.NoError(t, j.Done("mesh"))
		require.NoError(t, j.Undone("mesh"))
		require.NoError(t, j.Leave())
		r, err := journal.Load(base, key)
		require.NoError(t, err)
		assert.Len(t, r.Lines, 3)
	})
	t.Run("a journal that can't be begun is not there", func(t *testing.T) {
		base := t.TempDir()
		t.Run("full", func(t *testing.T) {
			full(t, 20)
			_, err := journal.Create(base, header(), clock)
			require.Error(t, err)
		})
		entries, err := os.ReadDir(base)
		require.NoError(t, err)
		assert.Empty(t, entries)
	})
}
