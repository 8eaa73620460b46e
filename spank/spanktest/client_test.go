//go:build cgo

package spanktest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	st "github.com/slurm-enclave/slurm-enclave/spank/spanktest"
)

// stub builds a submit library in C that answers with the words of its build.
func stub(t *testing.T, answer, text string) string {
	t.Helper()
	so := filepath.Join(t.TempDir(), "libstub.so")
	out, err := exec.CommandContext(t.Context(), "cc", "-Wall", "-Werror", "-shared", "-fPIC", "-I..",
		"-DANSWER="+answer, `-DTEXT="`+text+`"`, "-o", so, "testdata/stub.c").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return so
}

// client resets the fake to a submit client whose user set the option by its variable.
func client(t *testing.T, context st.Context, option string) {
	t.Helper()
	for _, name := range []string{"SBATCH_PARTITION", "SALLOC_PARTITION", "SLURM_PARTITION", "SLURM_JOB_ID"} {
		t.Setenv(name, "")
		require.NoError(t, os.Unsetenv(name))
	}
	if option != "" {
		t.Setenv("SLURM_SPANK__SLURM_SPANK_OPTION_enclave_enclave", option)
	}
	st.Host{Context: context}.Install()
}

func partition(t *testing.T, name, want string) {
	t.Helper()
	got, _ := st.ClientEnv(name)
	assert.Equal(t, want, got)
}

func TestClients(t *testing.T) {
	t.Run("sbatch asks for the partition until it has read it", func(t *testing.T) {
		client(t, st.Allocator, "digimed")
		require.Zero(t, st.Init("submit="+stub(t, "ENCLAVE_ROUTE_SET", "cpu-sev")))
		partition(t, "SBATCH_PARTITION", "cpu-sev")
		require.Zero(t, st.PostOpt(""))
		partition(t, "SBATCH_PARTITION", "")
		assert.Contains(t, st.Usage(), "[enclave]")
	})
	t.Run("srun has a variable of its own", func(t *testing.T) {
		client(t, st.Local, "digimed")
		require.Zero(t, st.Init("submit="+stub(t, "ENCLAVE_ROUTE_SET", "cpu-sev")))
		partition(t, "SLURM_PARTITION", "cpu-sev")
		require.Zero(t, st.PostOpt(""))
		partition(t, "SLURM_PARTITION", "")
	})
	t.Run("the user's own partition variable is neither changed nor forgotten", func(t *testing.T) {
		client(t, st.Allocator, "digimed")
		t.Setenv("SBATCH_PARTITION", "cpu")
		require.Zero(t, st.Init("submit="+stub(t, "ENCLAVE_ROUTE_NONE", "")))
		require.Zero(t, st.PostOpt(""))
		partition(t, "SBATCH_PARTITION", "cpu")
	})
	t.Run("a refusal ends the submission with its reason", func(t *testing.T) {
		client(t, st.Allocator, "digimed")
		assert.Equal(t, -1, st.Init("submit="+stub(t, "ENCLAVE_ROUTE_REFUSED", "E101: 100%n")))
		assert.Equal(t, "enclave: E101: 100%n\n", st.Errors())
	})
	t.Run("a job that asks for nothing never loads the library", func(t *testing.T) {
		client(t, st.Allocator, "")
		assert.Zero(t, st.Init("submit="+stub(t, "ENCLAVE_ROUTE_REFUSED", "E101: asked")))
		assert.Empty(t, st.Errors())
	})
	t.Run("an #SBATCH line is in time", func(t *testing.T) {
		client(t, st.Allocator, "")
		require.Zero(t, st.Init("submit="+stub(t, "ENCLAVE_ROUTE_SET", "cpu-sev")))
		assert.Zero(t, st.Option(nil, false))
		partition(t, "SBATCH_PARTITION", "cpu-sev")
		require.Zero(t, st.PostOpt(""))
	})
	t.Run("a library that is not there stops nobody", func(t *testing.T) {
		client(t, st.Allocator, "digimed")
		assert.Zero(t, st.Init("submit="+filepath.Join(t.TempDir(), "none.so")))
		assert.Empty(t, st.Errors())
	})
	t.Run("a library without the symbol stops nobody", func(t *testing.T) {
		client(t, st.Allocator, "digimed")
		assert.Zero(t, st.Init("submit=libc.so.6"))
		assert.Empty(t, st.Errors())
	})
	t.Run("an answer of another version is no answer", func(t *testing.T) {
		client(t, st.Allocator, "digimed")
		assert.Zero(t, st.Init("submit="+stub(t, "99", "x")))
		partition(t, "SBATCH_PARTITION", "")
	})
	t.Run("an unknown argument of plugstack.conf is said and stops nobody", func(t *testing.T) {
		client(t, st.Allocator, "")
		assert.Zero(t, st.Init("sumbit=/x", "partition=cpu-sev"))
		assert.Contains(t, st.Errors(), "sumbit=/x")
	})
}

func TestOption(t *testing.T) {
	str := func(s string) *string { return &s }
	client(t, st.Allocator, "")
	require.Zero(t, st.Init("submit=/nowhere"))
	for _, bad := range []string{"Digimed", "a b", "../a", "-a", "%n"} {
		assert.Equal(t, -1, st.Option(str(bad), false), bad)
		assert.Zero(t, st.Option(str(bad), true), "slurmstepd never fails for an option")
	}
	assert.NotContains(t, st.Errors(), "%", "the user's text is not printed")
	for _, good := range []*string{nil, str(""), str("(null)"), str("digimed")} {
		assert.Zero(t, st.Option(good, false))
		assert.Zero(t, st.Option(good, true))
	}
}

func TestOtherContexts(t *testing.T) {
	for _, c := range []st.Context{st.Slurmd, st.JobScript, st.Unknown} {
		n := newNode(t)
		n.Context = c
		n.Install()
		assert.Zero(t, st.Init("submit=/nowhere", "wrong"))
		assert.Zero(t, st.PostOpt(""))
		assert.Empty(t, st.Errors())
		assert.Empty(t, st.Usage(), "no option is registered")
	}
	t.Run("slurmstepd does not read the clients' arguments", func(t *testing.T) {
		n := newNode(t)
		n.Install()
		assert.Zero(t, st.Init("wrong"))
		assert.Empty(t, st.Errors())
		assert.Contains(t, st.Usage(), "[enclave]")
	})
}
