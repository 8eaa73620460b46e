//go:build e2e

package e2e_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestEscapePlugin makes the attempts at the gate, at what the node's daemons know, and at their
// processes. P1, P3, P4.
func TestEscapePlugin(t *testing.T) {
	idle(t)
	copySelf(t, "n1", escapeProgram)
	must(t, "n1", "root", "chmod", "755", escapeProgram)
	must(t, "n1", "root", "sh", "-c", "cp /usr/bin/id /usr/local/bin/suid-id && chmod 4755 /usr/local/bin/suid-id")
	t.Cleanup(func() { on(t, "n1", "root", "rm", "-f", "/usr/local/bin/suid-id") })
	p := imprison(t)
	t.Cleanup(func() { on(t, "n1", "root", "rm", "-rf", tenantTree+mailbox) })
	judge(t, "gate, secrets and processes", p, append(secretAttempts(), gateAttempts(p)...))
}

func secretAttempts() []attempt {
	const keeper = `k=$(pgrep -f '^[^ ]*enclave-keeper' | head -1); `
	trace := escapeIn + "=trace " + escapeProgram
	return []attempt{
		{name: "read GO and DENY", try: "cat /run/slurm-enclave/gate/* && echo LOOT", control: asRoot()},
		{name: "read the journal", try: "cat /run/slurm-enclave/*/journal && echo LOOT", control: asRoot()},
		{name: "write a GO file", try: "touch /run/slurm-enclave/gate/999999.go && echo LOOT; rm -f /run/slurm-enclave/gate/999999.go", control: asRoot()},
		{name: "read the node's key", try: "cat /var/lib/slurm-enclave/*.key /var/lib/slurm-enclave/*/*.key | grep -q KEY && echo LOOT", control: asRoot()},
		{name: "read munge's key", try: "head -c 1 /etc/munge/munge.key | wc -c | grep -qx 1 && echo LOOT", control: asRoot()},
		{name: "ask the firmware for a report of one's own", try: "mkdir /sys/kernel/config/tsm/report/mine && echo LOOT; rmdir /sys/kernel/config/tsm/report/mine", control: asRoot()},
		{name: "the keeper's environment", try: keeper + "cat /proc/$k/environ >/dev/null && echo LOOT", control: asRoot()},
		{name: "the keeper's descriptors", try: keeper + "ls /proc/$k/fd/ && echo LOOT", control: asRoot()},
		{name: "the keeper's memory and maps", try: keeper + "cat /proc/$k/maps && echo LOOT; head -c 1 /proc/$k/auxv | wc -c | grep -qx 1 && echo LOOT", control: asRoot()},
		{name: "the gate through the keeper's root and cwd", try: keeper + "ls /proc/$k/root/run/slurm-enclave /proc/$k/cwd/ && echo LOOT", control: asRoot()},
		{name: "the keeper's program and stack", try: keeper + "readlink /proc/$k/exe && echo LOOT; cat /proc/$k/stack && echo LOOT", control: asRoot()},
		{name: "trace keeper, slurmd, slurmstepd", try: trace + " $(pgrep 'enclave-keeper|slurmd|slurmstepd')", control: asRoot()},
		{name: "signal keeper, slurmd, slurmstepd", try: "for p in $(pgrep 'enclave-keeper|slurmd|slurmstepd'); do kill -0 $p && echo LOOT; done", control: asRoot()},
		{
			name: "leave the job's cgroup", control: asRoot(),
			try: `for f in $(find /sys/fs/cgroup -maxdepth 4 -name cgroup.procs 2>/dev/null); do echo $$ >$f && echo LOOT; done 2>&1 | sort | uniq -c | head -3`,
		},
		{name: "the tunnel's keys and settings from the kernel", try: `d=$(ip -o link | grep -o 'enc[0-9]*' | head -1); wg showconf $d && echo LOOT; ip link set $d alias loot && echo LOOT`, control: asRoot()},
		{name: "take the fence down", try: `PATH=$PATH:/usr/sbin; nft list ruleset | grep -q enclave && echo LOOT; unshare -Urn nft list ruleset | grep enclave && echo LOOT`, control: asRoot()},
		{name: "look at the node's closed state", try: `enclave host check | grep -E "pass|fail" && echo LOOT`, control: asRoot()},
	}
}

// setuid is a control: a process of the user's beside the job's steps, as of an ssh login.
func setuid() proof {
	return proof{"beside the steps, as by ssh", func(t *testing.T, a attempt) string { return adopted(t, a.try) }}
}

func gateAttempts(p prison) []attempt {
	step := func(user string, options ...string) func(*testing.T, string) string {
		return func(t *testing.T, s string) string {
			t.Helper()
			return on(t, "login", user, append(append([]string{"srun", "--jobid=" + p.job, "--overlap"}, options...), "sh", "-c", s)...).String()
		}
	}
	own := proof{"the job's own user", func(t *testing.T, a attempt) string { return step("alice")(t, a.try) }}
	const forged = "ALL,SLURM_JOB_ID=1,SLURM_JOBID=1,SLURM_JOB_PARTITION=cpu,SLURM_JOB_UID=0,SLURM_JOB_USER=root,ENCLAVE_VERDICT=protected,SPANK_ENCLAVE=no,SLURM_SPANK_ENCLAVE=no,LD_PRELOAD=/lustre/none.so"
	const id = `test "$(/usr/local/bin/suid-id -u)" = 0 && echo LOOT`
	return []attempt{
		{name: "a setuid program of the node", try: id, control: setuid()},
		{name: "a setuid program in a step", try: id, in: step("alice"), control: setuid()},
		{
			name: "a setuid program in the user's task prolog and epilog", control: setuid(), try: id,
			in: func(t *testing.T, s string) string {
				return p.run(t, "printf '#!/bin/sh\n%s >>/lustre/.escape/tasks; id >>/lustre/.escape/tasks\n' '"+s+"' >/lustre/.escape/task; chmod 755 /lustre/.escape/task; srun --overlap --task-prolog=/lustre/.escape/task --task-epilog=/lustre/.escape/task true; cat /lustre/.escape/tasks")
			},
		},
		{name: "srun --jobid of another user's job", in: step("bob"), try: "echo LOOT", control: own},
		{
			name: "sattach to another user's step", try: "echo LOOT", control: own,
			in: func(t *testing.T, _ string) string {
				return on(t, "login", "bob", "timeout", "10", "sattach", p.job+".batch").String()
			},
		},
		{
			name: "a step without GO, with a forged environment", try: "echo LOOT",
			in: func(t *testing.T, s string) string {
				return withoutGo(t, p, func() string { return step("alice", "--export="+forged)(t, s) })
			},
			control: proof{"with GO", func(t *testing.T, a attempt) string { return step("alice", "--export="+forged)(t, a.try) }},
		},
		{
			name: "the user's task epilog behind a task without GO", try: "echo LOOT",
			in: func(t *testing.T, s string) string { return taskEpilog(t, p, s, withoutGo) },
			control: proof{"with GO", func(t *testing.T, a attempt) string {
				return taskEpilog(t, p, a.try, func(_ *testing.T, _ prison, f func() string) string { return f() })
			}},
		},
		{name: "srun --no-allocate by the user", try: "echo LOOT", in: noAllocate("alice"), control: markerless(noAllocate("root"))},
	}
}

// taskEpilog has a step's task epilog do something, and tells what it has said. Slurm runs it when a task
// has ended, be it that the gate has ended it.
func taskEpilog(t *testing.T, p prison, try string, during func(*testing.T, prison, func() string) string) string {
	t.Helper()
	const program, said = "/lustre/.escape/after", "/lustre/.escape/after.said"
	p.run(t, "rm -f "+said+"; printf '#!/bin/sh\n{ "+try+"; id; } >>"+said+"\n' >"+program+"; chmod 755 "+program)
	step := during(t, p, func() string {
		r := on(t, "login", "alice", "srun", "--jobid="+p.job, "--overlap", "--nodelist=n1", "--nodes=1", "--task-epilog="+program, "true")
		time.Sleep(2 * time.Second) // Slurm does not wait for it
		return r.String()
	})
	return step + p.run(t, "cat "+said+" 2>&1; true")
}

// withoutGo does something while the node has no GO of the job, and no keeper that writes one anew.
func withoutGo(t *testing.T, p prison, f func() string) string {
	t.Helper()
	dir := "/run/slurm-enclave/gate/"
	blind(t, "n1")
	defer must(t, "n1", "root", "pkill", "-CONT", "enclave-keeper")
	must(t, "n1", "root", "mv", dir+p.job+".go", "/run/slurm-enclave/kept")
	defer must(t, "n1", "root", "mv", "/run/slurm-enclave/kept", dir+p.job+".go")
	return f()
}

func noAllocate(user string) func(t *testing.T, script string) string {
	return func(t *testing.T, s string) string {
		t.Helper()
		return on(t, "login", user, "timeout", "20", "srun", "--no-allocate", "--nodelist=n1", "--overlap", "sh", "-c", s).String()
	}
}

// markerless is a control: the node's marker is away, so that the gate lets everybody in.
func markerless(run func(t *testing.T, script string) string) proof {
	return proof{"root, with the node's marker away", func(t *testing.T, a attempt) string {
		t.Helper()
		must(t, "n1", "root", "mv", "/etc/slurm-enclave/enclave-node", "/root/marker")
		defer must(t, "n1", "root", "mv", "/root/marker", "/etc/slurm-enclave/enclave-node")
		return run(t, a.try)
	}}
}

// preload is a library whose constructor tells as whom it runs.
const preload = `#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void tell(void)
{
	char line[64];
	int fd = open("/lustre/.escape-preload", O_WRONLY | O_CREAT | O_APPEND, 0666);
	int n = snprintf(line, sizeof(line), "%s %d %d\n", getuid() == 0 || geteuid() == 0 ? "LOOT" : "user", getuid(), geteuid());

	if (fd >= 0)
		n = (int)write(fd, line, (size_t)n);
}
`

// TestEscapePreload gives a job's every step LD_PRELOAD and a forged environment, and looks
// whether root ever ran the library: in slurmstepd, prolog, epilog or keeper.
func TestEscapePreload(t *testing.T) {
	idle(t)
	dir := t.TempDir()
	source, library := filepath.Join(dir, "p.c"), filepath.Join(dir, "p.so")
	require.NoError(t, os.WriteFile(source, []byte(preload), 0o600))
	out, err := execCommand(t, []string{"gcc", "-shared", "-fPIC", "-o", library, source}).CombinedOutput()
	require.NoError(t, err, "%s", out)
	b, err := os.ReadFile(library)
	require.NoError(t, err)
	must(t, "n1", "root", "sh", "-c", "rm -f "+tenantTree+"/.escape-preload")
	r := onWithInput(t, "n1", "root", string(b), "sh", "-c", "cat >"+tenantTree+"/p.so; chmod 755 "+tenantTree+"/p.so")
	require.Zero(t, r.status, "%s", r)
	t.Cleanup(func() { on(t, "n1", "root", "rm", "-f", tenantTree+"/p.so", tenantTree+"/.escape-preload") })

	const forged = "LD_PRELOAD=/lustre/p.so,LD_AUDIT=/lustre/p.so,SPANK_LD_PRELOAD=/lustre/p.so,BASH_ENV=/lustre/x,GODEBUG=x,ENCLAVE_VERDICT=LOOT,ENCLAVE_FORGED=LOOT," +
		"SLURM_SCRIPT_CONTEXT=prolog_slurmd,SLURM_JOB_UID=0,SLURM_CONF_SERVER=LOOT,_SLURM_SPANK_OPTION_enclave_enclave=astro"
	id := submit(t, "alice", "env | grep ^ENCLAVE; srun --export=ALL,ENCLAVE_STEP=LOOT sh -c 'env | grep ^ENCLAVE; ls /lustre'",
		"--partition=cpu-sev", "--nodes=1", "--nodelist=n1", "--export=ALL,"+forged)
	await(t, id, "COMPLETED")
	idle(t)
	ran := must(t, "n1", "root", "cat", tenantTree+"/.escape-preload")
	said := output(t, "alice", id)
	rows := []row{
		{name: "LD_PRELOAD into root's programs", enclave: gist(ran), held: assert.NotContains(t, ran, loot)},
		{name: "forged ENCLAVE_ variables in the job", enclave: gist(said), held: assert.NotContains(t, said, loot)},
	}
	assert.Contains(t, ran, "user 2001", "the library is loaded at all")
	assert.Contains(t, said, "ENCLAVE_VERDICT=simulated")

	byRoot := on(t, "n1", "root", "sh", "-c", "mkdir -p /lustre; LD_PRELOAD="+tenantTree+"/p.so /bin/true; mount --bind "+tenantTree+" /lustre; LD_PRELOAD=/lustre/p.so /bin/true; umount /lustre; cat "+tenantTree+"/.escape-preload")
	rows[0].shown = assert.Contains(t, byRoot.String(), loot)
	rows[0].control = "root's own program with it: " + gist(byRoot.out)
	plain := submit(t, "carol", "env | grep ^ENCLAVE", "--partition=cpu", "--export=ALL,ENCLAVE_VERDICT=LOOT")
	await(t, plain, "COMPLETED")
	rows[1].shown = assert.Contains(t, output(t, "carol", plain), loot)
	rows[1].control = "a job of partition cpu: got through"
	tabulate("environment", rows)
	idle(t)
}
