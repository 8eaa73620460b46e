package gate_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
)

const boot = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"

const goText = `slurm-enclave-go 1
job 4711
restart 0
boot 1b4e28ba-2fa1-11d2-883f-0016d3cca427
expires 86523
env ENCLAVE_VERDICT=simulated
env SLURM_PMIX_DIRECT_CONN=false
end
`

const denyText = `slurm-enclave-deny 1
job 4711
code E220
reason n2: the report is stale (boot again)
end
`

func admission() gate.Go {
	return gate.Go{Job: 4711, Boot: boot, Expires: 86523, Env: []gate.Variable{
		{Name: "ENCLAVE_VERDICT", Value: "simulated"}, {Name: "SLURM_PMIX_DIRECT_CONN", Value: "false"},
	}}
}

func TestGo(t *testing.T) {
	b, err := admission().MarshalText()
	require.NoError(t, err)
	assert.Equal(t, goText, string(b))
	var g gate.Go
	require.NoError(t, g.UnmarshalText(b))
	assert.Equal(t, admission(), g)

	bad := map[string]func(*gate.Go){
		"job 0":                            func(g *gate.Go) { g.Job = 0 },
		"no boot id":                       func(g *gate.Go) { g.Boot = "" },
		"a boot id in capitals":            func(g *gate.Go) { g.Boot = strings.ToUpper(boot) },
		"a variable of the loader":         func(g *gate.Go) { g.Env[0].Name = "LD_PRELOAD" },
		"a bare prefix":                    func(g *gate.Go) { g.Env[0].Name = "ENCLAVE_" },
		"a name in small letters":          func(g *gate.Go) { g.Env[0].Name = "ENCLAVE_a" },
		"a name that is too long":          func(g *gate.Go) { g.Env[0].Name = "ENCLAVE_" + strings.Repeat("A", 56) },
		"the same name twice":              func(g *gate.Go) { g.Env[1].Name = "ENCLAVE_VERDICT" },
		"a value with a new line":          func(g *gate.Go) { g.Env[0].Value = "a\nend" },
		"a value with a quote":             func(g *gate.Go) { g.Env[0].Value = `a"` },
		"a value with a backslash":         func(g *gate.Go) { g.Env[0].Value = `a\` },
		"a value that is too long":         func(g *gate.Go) { g.Env[0].Value = strings.Repeat("a", 201) },
		"a value that is not ASCII":        func(g *gate.Go) { g.Env[0].Value = "ä" },
		"seventeen variables in one file":  func(g *gate.Go) { g.Env = many(17, "x") },
		"more than 4096 bytes in one file": func(g *gate.Go) { g.Env = many(16, strings.Repeat("x", 200)); lengthen(g.Env) },
	}
	for name, change := range bad {
		t.Run(name+" is not written", func(t *testing.T) {
			g := admission()
			change(&g)
			_, err := g.MarshalText()
			require.Error(t, err)
		})
	}
}

func many(n int, value string) []gate.Variable {
	var v []gate.Variable
	for i := range n {
		v = append(v, gate.Variable{Name: "ENCLAVE_" + string(rune('A'+i)), Value: value})
	}
	return v
}

func lengthen(v []gate.Variable) {
	for i := range v {
		v[i].Name += strings.Repeat("X", 50)
	}
}

func TestParseRefuses(t *testing.T) {
	change := map[string][2]string{
		"another version":        {"go 1", "go 2"},
		"a leading zero":         {"job 4711", "job 04711"},
		"a sign":                 {"restart 0", "restart +0"},
		"a number that is large": {"job 4711", "job 4294967296"},
		"two spaces":             {"expires 8", "expires  8"},
		"a carriage return":      {"restart 0\n", "restart 0\r\n"},
		"another order":          {"job 4711\nrestart 0", "restart 0\njob 4711"},
		"a missing line":         {"restart 0\n", ""},
		"text after the end":     {"end\n", "end\nenv ENCLAVE_A=b\n"},
		"no end":                 {"end\n", ""},
		"an unknown line":        {"end\n", "user root\nend\n"},
		"no new line at the end": {"end\n", "end"},
		"an empty line":          {"end\n", "\nend\n"},
		"a NUL":                  {"simulated", "simu\x00ated"},
	}
	for name, c := range change {
		t.Run(name, func(t *testing.T) {
			var g gate.Go
			text := strings.Replace(goText, c[0], c[1], 1)
			require.NotEqual(t, goText, text)
			require.Error(t, g.UnmarshalText([]byte(text)))
			assert.Zero(t, g)
		})
	}
}

func TestDeny(t *testing.T) {
	d := gate.DenyOf(4711, &enclave.Refusal{Code: "E220", Node: "n2", Reason: "the report is stale", Fix: "boot again"})
	b, err := d.MarshalText()
	require.NoError(t, err)
	assert.Equal(t, denyText, string(b))
	var again gate.Deny
	require.NoError(t, again.UnmarshalText(b))
	assert.Equal(t, d, again)

	t.Run("a reason of any bytes becomes one printable line", func(t *testing.T) {
		for _, reason := range []string{"", "a\nend\njob 1", "ä\x00%s", strings.Repeat("x", 9000)} {
			_, err := gate.DenyOf(1, enclave.Refuse("E220", enclave.FaultNode, "%s", reason)).MarshalText()
			require.NoError(t, err, reason)
		}
	})
	t.Run("a code that is no code is not written", func(t *testing.T) {
		for _, code := range []enclave.Code{"", "E22", "X220", "E2x0", "E2200"} {
			_, err := gate.Deny{Job: 1, Code: code, Reason: "a"}.MarshalText()
			require.Error(t, err)
		}
	})
	t.Run("lines after the reason are refused", func(t *testing.T) {
		require.Error(t, again.UnmarshalText([]byte(strings.Replace(denyText, "end\n", "reason b\nend\n", 1))))
	})
}

func TestFiles(t *testing.T) {
	open := func(t *testing.T) gate.Directory {
		t.Helper()
		path := filepath.Join(t.TempDir(), "gate")
		require.NoError(t, os.Mkdir(path, 0o700))
		return gate.Directory{Path: path, Owner: uint32(os.Getuid())}
	}
	list := func(t *testing.T, d gate.Directory) []string {
		t.Helper()
		entries, err := os.ReadDir(d.Path)
		require.NoError(t, err)
		names := []string{}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	t.Run("a file is written whole, read-only, and replaced", func(t *testing.T) {
		d := open(t)
		require.NoError(t, d.WriteGo(admission()))
		require.NoError(t, d.WriteGo(admission()))
		require.NoError(t, d.WriteDeny(gate.Deny{Job: 4711, Code: "E220", Reason: "a"}))
		assert.Equal(t, []string{"4711.deny", "4711.go"}, list(t, d))
		info, err := os.Stat(filepath.Join(d.Path, "4711.go"))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o400), info.Mode())
	})
	t.Run("a half-written file of a crash does not stop the next writer", func(t *testing.T) {
		d := open(t)
		require.NoError(t, os.WriteFile(filepath.Join(d.Path, "4711+.go"), []byte("slurm"), 0o400))
		require.NoError(t, d.WriteGo(admission()))
		assert.Equal(t, []string{"4711.go"}, list(t, d))
	})
	t.Run("a symlink at the file's place is replaced, not followed", func(t *testing.T) {
		d := open(t)
		victim := filepath.Join(t.TempDir(), "victim")
		require.NoError(t, os.WriteFile(victim, []byte("keep"), 0o600))
		for _, name := range []string{"4711.go", "4711+.go"} {
			require.NoError(t, os.Symlink(victim, filepath.Join(d.Path, name)))
		}
		require.NoError(t, d.WriteGo(admission()))
		b, err := os.ReadFile(victim)
		require.NoError(t, err)
		assert.Equal(t, "keep", string(b))
		info, err := os.Lstat(filepath.Join(d.Path, "4711.go"))
		require.NoError(t, err)
		assert.True(t, info.Mode().IsRegular())
	})
	t.Run("all files of a job id go, those of another stay", func(t *testing.T) {
		d := open(t)
		other := admission()
		other.Job = 471
		require.NoError(t, d.WriteGo(other))
		require.NoError(t, d.WriteGo(admission()))
		require.NoError(t, d.WriteDeny(gate.Deny{Job: 4711, Code: "E220", Reason: "a"}))
		require.NoError(t, d.RemoveGo(4711))
		assert.Equal(t, []string{"471.go", "4711.deny"}, list(t, d))
		require.NoError(t, d.Remove(4711))
		require.NoError(t, d.Remove(4711))
		assert.Equal(t, []string{"471.go"}, list(t, d))
	})
	t.Run("a missing directory holds no file", func(t *testing.T) {
		require.NoError(t, gate.Directory{Path: filepath.Join(t.TempDir(), "none")}.Remove(1))
	})
	t.Run("a directory in which others may write is refused", func(t *testing.T) {
		d := open(t)
		require.NoError(t, os.Chmod(d.Path, 0o770))
		require.Error(t, d.WriteGo(admission()))
		require.NoError(t, os.Chmod(d.Path, 0o700))
		d.Owner++
		require.Error(t, d.WriteGo(admission()))
	})
	t.Run("a symlinked directory is refused", func(t *testing.T) {
		d := open(t)
		link := filepath.Join(t.TempDir(), "link")
		require.NoError(t, os.Symlink(d.Path, link))
		d.Path = link
		require.Error(t, d.WriteGo(admission()))
	})
}

func FuzzGo(f *testing.F) {
	f.Add([]byte(goText))
	f.Add([]byte(strings.Replace(goText, "env", "end", 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		var g gate.Go
		if g.UnmarshalText(text) != nil {
			return
		}
		b, err := g.MarshalText()
		require.NoError(t, err)
		require.Equal(t, string(text), string(b), "there is one spelling")
	})
}

func FuzzDeny(f *testing.F) {
	f.Add([]byte(denyText))
	f.Fuzz(func(t *testing.T, text []byte) {
		var d gate.Deny
		if d.UnmarshalText(text) != nil {
			return
		}
		b, err := d.MarshalText()
		require.NoError(t, err)
		require.Equal(t, string(text), string(b), "there is one spelling")
	})
}

// Unlinking GO is how an enclave is closed: a process without a descriptor left must be able to.
func TestGoIsRemovedWithoutADescriptorLeft(t *testing.T) {
	d := gate.Directory{Path: filepath.Join(t.TempDir(), "gate"), Owner: uint32(os.Geteuid())}
	require.NoError(t, os.Mkdir(d.Path, 0o700))
	require.NoError(t, d.WriteGo(admission()))
	var was syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: was.Max}))
	control := d.WriteGo(admission())
	err := d.RemoveGo(4711)
	d.Owner++
	foreign := d.RemoveGo(4711)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was))
	require.ErrorIs(t, control, syscall.EMFILE)
	require.NoError(t, err)
	require.ErrorContains(t, foreign, "is not a directory with mode 0700")
	assert.NoFileExists(t, filepath.Join(d.Path, "4711.go"))
}
