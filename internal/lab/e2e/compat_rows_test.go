//go:build e2e

package e2e_test

import (
	"debug/elf"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// releaseRows are the facts that are asked of the lab, by the row of the page that tells them.
func releaseRows(t *testing.T) map[string]func(*testing.T) string {
	t.Helper()
	copySelf(t, "n0", driverProgram)
	must(t, "n0", "root", "chmod", "755", driverProgram)
	return map[string]func(*testing.T) string{
		"plugin built against":                               builtAgainst,
		"a SPANK hook returns 1":                             positiveReturn,
		"new in the environment of Prolog and Epilog":        nodeScripts,
		"new in that of PrologSlurmctld and EpilogSlurmctld": controllerScripts,
		"`PrologFlags=RunInJob`":                             runInJob,
		"`squeue -O exit_code` of `exit 1`":                  exitCode,
		"Prolog in `scontrol show config`":                   prologSetting,
		"`srun` from a host that is not listed":              refusedStreams,
		"`srun --no-allocate` by a user":                     unallocated,
		"what a task prints that the gate refuses":           gateWords,
		"what `sbatch` prints of a refusal":                  submitWords,
		"why a requeued job waits":                           requeueReason,
		"cgroup plugins":                                     plugins(`cgroup_(v\d)`),
		"job namespace plugins":                              plugins(`((?:job_container|namespace)_(?:tmpfs|linux))`),
		"what slurmd says of cgroup/v1":                      oldCgroups,
		"API versions of slurmrestd":                         plugins(`(?:openapi_|data_parser_)(v0_0_\d+)`),
		"the one that is used":                               restVersion,
		"duties that go by command all the same":             restDuties,
		"authentication plugins":                             plugins(`auth_(munge|slurm)`),
		"encryption plugins":                                 plugins(`tls_(s2n)`),
		"MPI plugins":                                        plugins(`mpi_(pmi2|pmix_v\d)`),
		"accounting database":                                database,
	}
}

func builtAgainst(t *testing.T) string {
	t.Helper()
	f, err := elf.Open(filepath.Join(programs(), suite(), "enclave.so"))
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	symbols, err := f.DynamicSymbols()
	require.NoError(t, err)
	for _, s := range symbols {
		if s.Name == "plugin_version" {
			b := make([]byte, 4)
			in := f.Sections[s.Section]
			_, err = in.ReadAt(b, int64(s.Value-in.Addr))
			require.NoError(t, err)
			return fmt.Sprintf("%02d.%02d", b[2], b[1])
		}
	}
	require.Fail(t, "the plugin has no plugin_version")
	return ""
}

// plugins lists the plugins of Slurm's that are there, by the group of the pattern.
func plugins(pattern string) func(*testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		var names []string
		for file := range strings.FieldsSeq(must(t, "n1", "root", "sh", "-c", "ls /usr/lib/*/slurm-wlm")) {
			if m := regexp.MustCompile(`^` + pattern + `\.so$`).FindStringSubmatch(file); m != nil {
				names = append(names, strings.ReplaceAll(m[1], "v0_0_", "v0.0."))
			}
		}
		slices.Sort(names)
		return or(strings.Join(slices.Compact(names), ", "))
	}
}

func oldCgroups(t *testing.T) string {
	t.Helper()
	if on(t, "n1", "root", "grep", "-q", "cgroup/v1 plugin is deprecated", "/var/log/enclave-lab/slurmd.log").status == 0 {
		return "that it is deprecated"
	}
	return "-"
}

// or is how the page says that there is nothing.
func or(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

const plainSlurmConf, plainPlugstack = "/etc/slurm/slurm.conf.d/enclave.conf", "/etc/slurm/plugstack.conf"

// kept puts a file of a host back when the test is over.
func kept(t *testing.T, host, path string, after func()) {
	t.Helper()
	good := must(t, host, "root", "cat", path)
	t.Cleanup(func() {
		onWithInput(t, host, "root", good, "sh", "-c", "cat >"+path)
		if after != nil {
			after()
		}
	})
}

// newNames are the variables that scripts wrote down and that those of 22.05 are not among.
func newNames(t *testing.T, wrote, old string) string {
	t.Helper()
	known := strings.Fields(old)
	var names []string
	for name := range strings.FieldsSeq(wrote) {
		if !slices.Contains(known, name) {
			names = append(names, "`"+name+"`")
		}
	}
	for _, name := range known {
		assert.Contains(t, strings.Fields(wrote), name, "gone since 22.05")
	}
	slices.Sort(names)
	return or(strings.Join(slices.Compact(names), " "))
}

// What a job of this test's has in its scripts on 22.05.
const (
	bothScripts = `PWD SLURM_CLUSTER_NAME SLURM_JOBID SLURM_JOB_ACCOUNT SLURM_JOB_COMMENT SLURM_JOB_CPUS_PER_NODE SLURM_JOB_DERIVED_EC
		SLURM_JOB_EXIT_CODE SLURM_JOB_EXIT_CODE2 SLURM_JOB_GID SLURM_JOB_ID SLURM_JOB_NUM_NODES SLURM_JOB_PARTITION SLURM_JOB_RESTART_COUNT
		SLURM_JOB_STDIN SLURM_JOB_STDOUT SLURM_JOB_UID SLURM_JOB_USER SLURM_JOB_WORK_DIR SLURM_SCRIPT_CONTEXT`
	oldNodeScripts       = bothScripts + ` SLURMD_NODENAME SLURM_CONF SLURM_NODELIST SLURM_UID`
	oldControllerScripts = bothScripts + ` SLURM_JOB_GROUP SLURM_JOB_NAME SLURM_JOB_NODELIST`
)

func nodeScripts(t *testing.T) string {
	t.Helper()
	again := func() { require.NoError(t, labCommand("restart", "c1", "slurmd").Run()) }
	kept(t, "c1", plainSlurmConf, again)
	must(t, "c1", "root", "sh", "-c", `printf '#!/bin/sh\nenv | cut -d = -f 1 >/root/$SLURM_SCRIPT_CONTEXT.names\n' >/root/names && chmod 755 /root/names
		rm -f /root/*.names; sed -i 's,^Prolog=.*,Prolog=/root/names,;s,^Epilog=.*,Epilog=/root/names,' `+plainSlurmConf)
	again()
	up := func() bool {
		return strings.Contains(must(t, "n0", "root", "sinfo", "-h", "-N", "-n", "c1", "-o", "%T"), "idle")
	}
	eventually(t, 30*time.Second, up, func() string { return "c1 is not idle" })
	await(t, submit(t, "alice", "true", "--partition=cpu", "--nodelist=c1", "--comment=hello"), "COMPLETED")
	files := "/root/prolog_slurmd.names /root/epilog_slurmd.names"
	eventually(t, 30*time.Second, func() bool { return on(t, "c1", "root", "sh", "-c", "ls "+files).status == 0 },
		func() string { return must(t, "c1", "root", "ls", "/root") })
	return newNames(t, must(t, "c1", "root", "sh", "-c", "cat "+files), oldNodeScripts)
}

func controllerScripts(t *testing.T) string {
	t.Helper()
	for _, wrapper := range []string{"prolog-slurmctld", "epilog-slurmctld"} {
		path := "/etc/slurm-enclave/" + wrapper
		kept(t, "n0", path, nil)
		must(t, "n0", "root", "sed", "-i", "1a env | cut -d = -f 1 >/tmp/$SLURM_SCRIPT_CONTEXT.names", path)
	}
	t.Cleanup(func() { must(t, "n0", "root", "sh", "-c", "rm -f /tmp/*.names") })
	await(t, submit(t, "alice", "true", "--partition=cpu", "--comment=hello"), "COMPLETED")
	files := "/tmp/prolog_slurmctld.names /tmp/epilog_slurmctld.names"
	eventually(t, 30*time.Second, func() bool { return on(t, "n0", "root", "sh", "-c", "ls "+files).status == 0 },
		func() string { return must(t, "n0", "root", "ls", "/tmp") })
	return newNames(t, must(t, "n0", "root", "sh", "-c", "cat "+files), oldControllerScripts)
}

// positiveReturn tries a plugin that forbids nothing and says 1, as many a plugin does for "no".
func positiveReturn(t *testing.T) string {
	t.Helper()
	const source = "#include <slurm/spank.h>\nSPANK_PLUGIN(one, 1);\nint slurm_spank_task_init_privileged(spank_t s, int c, char **v) { return 1; }\n"
	kept(t, "c1", plainPlugstack, func() { resume(t, "c1") })
	r := onWithInput(t, "c1", "root", source, "sh", "-c", "gcc -shared -fPIC -o /root/one.so -x c - && echo 'required /root/one.so' >"+plainPlugstack)
	require.Zero(t, r.status, "%s", r)
	id := submit(t, "alice", "echo it ran", "--partition=cpu", "--nodelist=c1", "--no-requeue")
	if await(t, id, "COMPLETED", "FAILED", "NODE_FAIL", "CANCELLED") == "COMPLETED" {
		assert.Contains(t, output(t, "alice", id), "it ran")
		return "lets the task run"
	}
	assert.NotContains(t, on(t, "login", "alice", "cat", "slurm-"+id+".out").out, "it ran")
	return "fails the task"
}

func runInJob(t *testing.T) string {
	t.Helper()
	must(t, "n1", "root", "sh", "-c", `cp -r /etc/slurm /root/slurm && sed -i 's,^PrologFlags=.*,&\,RunInJob,' /root/slurm/slurm.conf.d/enclave.conf &&
		sed -i 's,/etc/slurm/,/root/slurm/,' /root/slurm/slurm.conf`)
	t.Cleanup(func() { must(t, "n1", "root", "rm", "-rf", "/root/slurm") })
	r := on(t, "n1", "root", "env", "SLURM_CONF=/root/slurm/slurm.conf", "sinfo")
	if r.status == 0 {
		found, _ := examined(t, "n1", "--slurm-conf", "/root/slurm/slurm.conf")
		assert.Contains(t, faults(found)["E024"], "runinjob")
		return "refused by `enclave doctor` (E024)"
	}
	assert.Contains(t, r.errOut, "RunInJob")
	return "unknown: no daemon starts"
}

func exitCode(t *testing.T) string {
	t.Helper()
	id := submit(t, "alice", "exit 1", "--partition=cpu")
	await(t, id, "FAILED")
	return "`" + strings.TrimSpace(must(t, "n0", "root", "squeue", "-h", "-t", "all", "-j", id, "-O", "exit_code")) + "`"
}

func prologSetting(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^(Prolog(?:\[0\])?) `).FindStringSubmatch(must(t, "n0", "root", "scontrol", "show", "config"))
	require.NotNil(t, m)
	return "`" + m[1] + "`"
}

func restVersion(t *testing.T) string {
	t.Helper()
	return fine(t, "socket", "version", "", "").Text
}

func restDuties(t *testing.T) string {
	t.Helper()
	var words []string
	for _, d := range fine(t, "socket", "duties", "", "").Duties {
		words = append(words, string(d))
	}
	return strings.Join(words, ", ")
}

func database(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile(`(\d+\.\d+)\.\d+-MariaDB`).FindStringSubmatch(must(t, "n0", "root", "mariadbd", "--version"))
	require.NotNil(t, m)
	return "MariaDB " + m[1]
}
