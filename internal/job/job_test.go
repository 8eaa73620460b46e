package job_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
)

func TestExpand(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]string{
		"n1":                 "n1",
		"n[1-3,7],a-[01-2]b": "n1 n2 n3 n7 a-01b a-02b",
		"n[08-11]":           "n08 n09 n10 n11",
		"n[9-11]":            "n9 n10 n11",
		"n[010-11]":          "n010 n011",
		"r[1-2]n[1-2]":       "r1n1 r1n2 r2n1 r2n2",
		"r[0-1]c[0-1]n[0-1]": "r0c0n0 r0c0n1 r0c1n0 r0c1n1 r1c0n0 r1c0n1 r1c1n0 r1c1n1",
		"a,b,c":              "a b c",
		"cpu-sev-[1-2].hpc":  "cpu-sev-1.hpc cpu-sev-2.hpc",
		"n[5]":               "n5",
	} {
		t.Run(list, func(t *testing.T) {
			t.Parallel()
			got, err := job.Expand(list)
			require.NoError(t, err)
			assert.Equal(t, strings.Fields(want), got)
		})
	}
	for name, list := range map[string]string{
		"the empty list": "", "an empty item": "n1,,n2", "a trailing comma": "n1,", "an open bracket": "n[1-2", "a closing bracket": "n1]",
		"brackets in brackets": "n[[1]]", "an empty bracket": "n[]", "a backward range": "n[3-1]", "a negative number": "n[-1]",
		"a plus": "n[+1]", "a space": "n[1- 2]", "letters": "n[a-c]", "a third bound": "n[1-2-3]", "a node twice": "n1,n[1-2]",
		"a leading dash": "-n1", "a path": "../n1", "a newline": "n1\nn2", "a zero byte": "n\x00", "a quote": "n'1", "an umlaut": "nä",
		"a range without end": "n[1-]", "too many nodes": "n[0-65536]", "too many by product": "r[0-255]n[0-256]",
		"a huge range": "n[0-999999999]", "a number of ten digits": "n[0000000001]", "a deep product": "a" + strings.Repeat("[0-9]", 40),
		"too many items": "n[0-65535],m1", "a long name": strings.Repeat("n", 254),
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			_, err := job.Expand(list)
			assert.ErrorContains(t, err, "expand hostlist")
		})
	}
	t.Run("the bound itself is allowed", func(t *testing.T) {
		t.Parallel()
		got, err := job.Expand("n[0-65535]")
		require.NoError(t, err)
		assert.Len(t, got, job.MaxNodes)
	})
}

// controller and node are what Slurm 22.05.8 really set.
func controller() map[string]string {
	return map[string]string{
		"SLURM_SCRIPT_CONTEXT": "prolog_slurmctld", "SLURM_CLUSTER_NAME": "lab", "SLURM_JOBID": "4", "SLURM_JOB_ID": "4",
		"SLURM_JOB_UID": "2001", "SLURM_JOB_GID": "2001", "SLURM_JOB_USER": "alice", "SLURM_JOB_GROUP": "alice",
		"SLURM_JOB_ACCOUNT": "digimed", "SLURM_JOB_PARTITION": "cpu-sev", "SLURM_JOB_NAME": "jj", "SLURM_JOB_RESTART_COUNT": "1",
		"SLURM_JOB_NODELIST": "k[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_WORK_DIR": "/tmp", "SLURM_JOB_COMMENT": "cc",
	}
}

func node() map[string]string {
	return map[string]string{
		"SLURM_SCRIPT_CONTEXT": "epilog_slurmd", "SLURMD_NODENAME": "k2", "SLURM_CLUSTER_NAME": "lab", "SLURM_JOB_ID": "4",
		"SLURM_JOB_UID": "2001", "SLURM_UID": "2001", "SLURM_JOB_GID": "2001", "SLURM_JOB_USER": "alice",
		"SLURM_JOB_PARTITION": "cpu-sev", "SLURM_NODELIST": "k[1-2]", "SLURM_JOB_EXIT_CODE": "768", "SLURM_JOB_DERIVED_EC": "9",
	}
}

func with(env map[string]string, changes ...string) func(string) string {
	env = maps.Clone(env)
	for i := 0; i < len(changes); i += 2 {
		env[changes[i]] = changes[i+1]
	}
	return func(name string) string { return env[name] }
}

func TestFromPrologEnv(t *testing.T) {
	t.Parallel()
	t.Run("the controller's prolog", func(t *testing.T) {
		t.Parallel()
		j, c, err := job.FromPrologEnv(with(controller()))
		require.NoError(t, err)
		assert.Equal(t, enclave.Job{
			JobKey: enclave.JobKey{Cluster: "lab", Job: 4, Restart: 1}, UID: 2001, GID: 2001, User: "alice", Account: "digimed",
			Partition: "cpu-sev", Name: "jj", Nodes: []string{"k1", "k2"},
		}, j)
		assert.Equal(t, job.Context{Script: job.PrologController}, c)
		assert.True(t, c.Script.OnController())
	})
	t.Run("a node's epilog", func(t *testing.T) {
		t.Parallel()
		j, c, err := job.FromPrologEnv(with(node()))
		require.NoError(t, err)
		assert.Equal(t, uint32(0), j.Restart, "absent means the first start")
		assert.Equal(t, job.Context{Script: job.EpilogNode, Node: "k2", Exit: job.Exit{Known: true, Status: 768, Derived: 9}}, c)
		code, ok := c.Exit.Code()
		assert.True(t, ok)
		assert.Equal(t, uint32(3), code)
	})
	t.Run("the epilog of a job that slurmctld has forgotten is root's, without a partition", func(t *testing.T) {
		t.Parallel()
		aborted := func(script string) func(string) string {
			return with(node(), "SLURM_SCRIPT_CONTEXT", script, "SLURM_JOB_PARTITION", "", "SLURM_JOB_UID", "0", "SLURM_UID", "0", "SLURM_JOB_USER", "root", "SLURM_NODELIST", "k2")
		}
		j, _, err := job.FromPrologEnv(aborted("epilog_slurmd"))
		require.NoError(t, err)
		assert.Equal(t, uint32(4), j.Job)
		assert.Zero(t, j.UID)
		_, _, err = job.FromPrologEnv(aborted("prolog_slurmd"))
		require.ErrorContains(t, err, "SLURM_JOB_PARTITION")
	})
	t.Run("an epilog that is asked for again has no nodelist", func(t *testing.T) {
		t.Parallel()
		j, c, err := job.FromPrologEnv(with(node(), "SLURM_NODELIST", "", "SLURM_JOB_NODELIST", ""))
		require.NoError(t, err)
		assert.Empty(t, j.Nodes)
		assert.Equal(t, "k2", c.Node)
		_, _, err = job.FromPrologEnv(with(node(), "SLURM_SCRIPT_CONTEXT", "prolog_slurmd", "SLURM_NODELIST", "", "SLURM_JOB_NODELIST", ""))
		assert.ErrorContains(t, err, "SLURM_NODELIST", "a prolog needs it")
	})
	t.Run("a job that a signal ended has no exit code", func(t *testing.T) {
		t.Parallel()
		_, c, err := job.FromPrologEnv(with(node(), "SLURM_JOB_EXIT_CODE", "15"))
		require.NoError(t, err)
		_, ok := c.Exit.Code()
		assert.False(t, ok)
	})
	t.Run("a job's name with escapes and newlines is shown without", func(t *testing.T) {
		t.Parallel()
		j, _, err := job.FromPrologEnv(with(controller(), "SLURM_JOB_NAME", "x\nJobState=\x1b[2J\x00"+strings.Repeat("ä", 500)))
		require.NoError(t, err)
		assert.Equal(t, "x?JobState=?[2J?"+strings.Repeat("?", 184), j.Name)
	})
	t.Run("a component of a heterogeneous job says so", func(t *testing.T) {
		t.Parallel()
		j, c, err := job.FromPrologEnv(with(controller(), "SLURM_HET_JOB_ID", "3", "SLURM_HET_JOB_OFFSET", "1"))
		require.NoError(t, err)
		assert.Equal(t, uint32(1), j.HetOffset)
		assert.Equal(t, uint32(3), c.HetJob)
	})
}

func TestFromPrologEnvRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ why, name, value string }{
		{"another context", "SLURM_SCRIPT_CONTEXT", "task_prolog"},
		{"no context", "SLURM_SCRIPT_CONTEXT", ""},
		{"no job", "SLURM_JOB_ID", ""},
		{"job 0", "SLURM_JOB_ID", "0"},
		{"a negative job", "SLURM_JOB_ID", "-1"},
		{"a job with a path", "SLURM_JOB_ID", "4/../5"},
		{"a job of 33 bits", "SLURM_JOB_ID", "4294967296"},
		{"NO_VAL as job", "SLURM_JOB_ID", "4294967294"},
		{"two job ids", "SLURM_JOBID", "5"},
		{"a restart with a zero in front", "SLURM_JOB_RESTART_COUNT", "01"},
		{"no uid", "SLURM_JOB_UID", ""},
		{"a hexadecimal uid", "SLURM_JOB_UID", "0x0"},
		{"a gid with a space", "SLURM_JOB_GID", " 1"},
		{"a user with a newline", "SLURM_JOB_USER", "alice\nbob"},
		{"an account with a quote", "SLURM_JOB_ACCOUNT", `a"b`},
		{"an account that is an option", "SLURM_JOB_ACCOUNT", "-a"},
		{"a long account", "SLURM_JOB_ACCOUNT", strings.Repeat("a", 256)},
		{"no partition", "SLURM_JOB_PARTITION", ""},
		{"a partition that is a path", "SLURM_JOB_PARTITION", "../x"},
		{"no cluster", "SLURM_CLUSTER_NAME", ""},
		{"a nodelist of another kind", "SLURM_NODELIST", "k[1-3]"},
		{"an empty nodelist", "SLURM_JOB_NODELIST", ""},
		{"a nodelist with a space", "SLURM_JOB_NODELIST", "k1 k2"},
		{"a het offset in words", "SLURM_HET_JOB_OFFSET", "one"},
	} {
		t.Run(c.why+" is refused and the variable named", func(t *testing.T) {
			t.Parallel()
			_, _, err := job.FromPrologEnv(with(controller(), c.name, c.value))
			require.Error(t, err)
			name := c.name
			if c.value == "" && name == "SLURM_JOB_NODELIST" {
				name = "SLURM_NODELIST"
			}
			assert.Contains(t, err.Error(), name)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
	t.Run("a node that is not in its own nodelist is refused", func(t *testing.T) {
		t.Parallel()
		_, _, err := job.FromPrologEnv(with(node(), "SLURMD_NODENAME", "k3"))
		assert.ErrorContains(t, err, "SLURMD_NODENAME")
	})
	t.Run("a node without a name is refused", func(t *testing.T) {
		t.Parallel()
		_, _, err := job.FromPrologEnv(with(node(), "SLURMD_NODENAME", ""))
		assert.ErrorContains(t, err, "SLURMD_NODENAME")
	})
	t.Run("an exit code in words is refused", func(t *testing.T) {
		t.Parallel()
		_, _, err := job.FromPrologEnv(with(node(), "SLURM_JOB_EXIT_CODE", "3:0"))
		assert.ErrorContains(t, err, "SLURM_JOB_EXIT_CODE")
	})
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"n[1-3,7],a-[01-10]b", "r[1-2]n[1-2]", "n", "n[", "n[1-", "a,b", "n[1-99999]", ",", "[1]", "n[1]]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		nodes, err := job.Expand(s)
		if err != nil {
			return
		}
		require.NotEmpty(t, nodes)
		require.LessOrEqual(t, len(nodes), job.MaxNodes)
		again, err := job.Expand(strings.Join(nodes, ","))
		require.NoError(t, err, "the expansion must be a hostlist too")
		require.Equal(t, nodes, again)
	})
}

func FuzzFromPrologEnv(f *testing.F) {
	f.Add("SLURM_JOB_NAME", "x\ny", "SLURM_JOB_ID", "4")
	f.Add("SLURM_JOB_NODELIST", "k[1-9]", "SLURM_SCRIPT_CONTEXT", "epilog_slurmctld")
	f.Fuzz(func(t *testing.T, a, av, b, bv string) {
		j, c, err := job.FromPrologEnv(with(controller(), a, av, b, bv))
		if err != nil {
			require.Equal(t, enclave.Job{}, j)
			return
		}
		printed := fmt.Sprint(j.Cluster, j.User, j.Account, j.Partition, j.Name, j.Nodes, c.Node)
		require.NotContains(t, printed, "\n")
		require.NotContains(t, printed, "\x1b")
		require.NotZero(t, j.Job)
		require.NotEmpty(t, j.Nodes)
	})
}
