//go:build cgo

package spanktest_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// build makes the shared objects as the top Makefile does.
func build(t *testing.T, names ...string) string {
	t.Helper()
	bin := t.TempDir()
	args := []string{"-s", "-C", "../..", "BIN=" + bin}
	for _, n := range names {
		args = append(args, filepath.Join(bin, n))
	}
	out, err := exec.CommandContext(t.Context(), "make", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return bin
}

func TestObject(t *testing.T) {
	f, err := elf.Open(filepath.Join(build(t, "enclave.so"), "enclave.so"))
	require.NoError(t, err)
	defer func() { _ = f.Close() }()

	t.Run("it needs libc and nothing else", func(t *testing.T) {
		needed, importErr := f.ImportedLibraries()
		require.NoError(t, importErr)
		assert.Equal(t, []string{"libc.so.6"}, needed)
	})
	symbols, err := f.DynamicSymbols()
	require.NoError(t, err)
	t.Run("it exports the hooks it needs and nothing else", func(t *testing.T) {
		var exported []string
		for _, s := range symbols {
			if s.Section != elf.SHN_UNDEF {
				exported = append(exported, s.Name)
			}
		}
		slices.Sort(exported)
		assert.Equal(t, []string{
			"plugin_name", "plugin_type", "plugin_version",
			"slurm_spank_init", "slurm_spank_init_post_opt", "slurm_spank_task_init_privileged",
			"spank_plugin_version",
		}, exported)
	})
	t.Run("it starts no thread and no program, and writes to no stream", func(t *testing.T) {
		for _, s := range symbols {
			for _, never := range []string{
				"pthread_create", "fork", "exec", "system", "popen", "printf_chk", "fopen", "fputs",
				"puts", "fwrite", "malloc", "calloc", "mount", "setns", "socket",
			} {
				if s.Name != "__snprintf_chk" {
					assert.NotContains(t, s.Name, never)
				}
			}
		}
	})
	t.Run("it runs nothing when it is loaded but what the compiler brings", func(t *testing.T) {
		// One entry each: frame_dummy and __do_global_dtors_aux of crtbegin.
		for _, name := range []string{".init_array", ".fini_array"} {
			if s := f.Section(name); s != nil {
				assert.EqualValues(t, 8, s.Size, name)
			}
		}
	})
	t.Run("its relocations are read-only after loading and its stack is not executable", func(t *testing.T) {
		var relro, stack bool
		for _, p := range f.Progs {
			relro = relro || p.Type == elf.PT_GNU_RELRO
			stack = stack || p.Type == elf.PT_GNU_STACK && p.Flags&elf.PF_X == 0
		}
		flags, err := f.DynValue(elf.DT_FLAGS)
		require.NoError(t, err)
		require.Len(t, flags, 1)
		assert.True(t, relro)
		assert.True(t, stack)
		assert.NotZero(t, elf.DynFlag(flags[0])&elf.DF_BIND_NOW)
	})
	t.Run("it says its release", func(t *testing.T) {
		version, err := os.ReadFile("../../VERSION")
		require.NoError(t, err)
		section := f.Section(".enclave.release")
		require.NotNil(t, section)
		got, err := section.Data()
		require.NoError(t, err)
		assert.Equal(t, strings.TrimSpace(string(version))+"\x00", string(got))
	})
}

const slurmConf = `ClusterName=test
SlurmctldHost=localhost
AuthType=auth/none
NodeName=localhost CPUs=1
PartitionName=cpu Nodes=localhost
PlugStackConfig=`

// TestClientsOfSlurm loads both objects into the real sbatch, srun and salloc.
func TestClientsOfSlurm(t *testing.T) {
	if _, err := exec.LookPath("sbatch"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("no Slurm clients (Debian: slurm-client)")
		}
		t.Skip("no Slurm clients (Debian: slurm-client)")
	}
	bin := build(t, "enclave.so", "libenclave-submit.so")
	dir := t.TempDir()
	path := func(name, text string) string {
		p := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
		return p
	}
	tenants := path("tenants.yaml", "tenants:\n- {name: digimed, accounts: [digimed], subtree: t, policy: p}\n")
	plugstack := path("plugstack.conf", "required "+bin+"/enclave.so submit="+bin+
		"/libenclave-submit.so tenants="+tenants+"\n")
	t.Setenv("SLURM_CONF", path("slurm.conf", slurmConf+plugstack+"\n"))
	run := func(name string, args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		return string(out), err
	}
	for _, name := range []string{"sbatch", "srun", "salloc"} {
		t.Run(name+" --help shows the option", func(t *testing.T) {
			out, err := run(name, "--help")
			require.NoError(t, err, out)
			assert.Regexp(t, `--enclave=\[TENANT\] +\[enclave\]`, out)
		})
		t.Run(name+" refuses a tenant that can't be one, before it speaks to slurmctld", func(t *testing.T) {
			out, err := run(name, "--enclave=Bad!", "x")
			require.Error(t, err)
			assert.Contains(t, out, "enclave: E109: ")
		})
	}
	t.Run("an #SBATCH line is refused as well", func(t *testing.T) {
		out, err := run("sbatch", path("job.sh", "#!/bin/sh\n#SBATCH --enclave=No\n"))
		require.Error(t, err)
		assert.Contains(t, out, "enclave: E109: ")
	})
	t.Run("who submits is asked too", func(t *testing.T) {
		out, err := run("sbatch", "-A", "digimed", "--enclave=nobody", "--wrap", "true")
		require.Error(t, err)
		assert.Regexp(t, `sbatch: error: enclave: E10[14]: `, out, "E104 for root, E101 for others")
	})
}
