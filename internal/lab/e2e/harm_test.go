//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/lab"
)

// invocations are ways to use the partition cpu, of which none has to do with us.
func invocations() [][]string {
	srun := func(argv ...string) []string { return append([]string{"srun", "-p", "cpu", "-w", "c1"}, argv...) }
	sbatch := func(argv ...string) []string {
		return append([]string{"sbatch", "-p", "cpu", "-w", "c1", "--wait", "--output=harm.out"}, argv...)
	}
	return [][]string{
		srun("true"), srun("false"), srun("sh", "-c", "exit 42"), srun("sh", "-c", "kill -9 $$"), srun("sh", "-c", "kill -SEGV $$"),
		srun("-n", "2", "-l", "hostname"), srun("--input=none", "cat"), srun("printenv"), srun("no-such-program"), srun("--chdir=/nowhere", "pwd"),
		srun("--export=NONE", "printenv"), srun("--mpi=none", "sh", "-c", "echo out; echo err >&2"), srun("-t", "soon", "true"),
		{"srun", "-p", "nowhere", "true"},
		{"srun", "--no-such-option", "true"},
		{"salloc", "-p", "cpu", "-w", "c1", "sh", "-c", "srun hostname; exit 7"},
		sbatch("--wrap", "exit 3"), sbatch("--wrap", "printenv"), sbatch("--export=NONE", "--wrap", "printenv"), sbatch("--wrap", "srun -n2 -l hostname; srun false"),
		{"cat", "harm.out"},
		{"scontrol", "show", "partition", "cpu"},
	}
}

// volatile is what differs from one job to the next; since 25.11 a job has an id of letters, too.
var volatile = regexp.MustCompile(`SLUID=\w+|[0-9a-f]{8,}|\d+`)

// waited is what is said when the job before is not quite over, or the node not ready at once.
var waited = regexp.MustCompile(`(?m)^.*(queued and waiting for resources|Waiting for resource configuration|are ready for job|has been allocated resources|Pending job allocation \d+|has been revoked\.)\n`)

// asTold runs all invocations as a user and gives what was seen of each, without what is never twice
// the same, lines sorted: two tasks, and the variables of an environment, come in any order.
func asTold(t *testing.T) map[string]string {
	t.Helper()
	seen := map[string]string{}
	for i, argv := range invocations() {
		r := on(t, "login", "carol", argv...)
		if argv[0] == "sbatch" {
			r.out += on(t, "login", "carol", "cat", "harm.out").out
		}
		r.errOut = waited.ReplaceAllString(r.errOut, "")
		lines := strings.Split(volatile.ReplaceAllString(r.out+"\n--\n"+r.errOut, "N"), "\n")
		slices.Sort(lines)
		seen[string(rune('a'+i))+" "+strings.Join(argv, " ")] = strings.Join(append([]string{"status", string(rune('0' + r.status%64))}, lines...), "\n")
	}
	return seen
}

func TestP7SlurmIsTheSameWithAndWithoutThePlugin(t *testing.T) {
	idle(t)
	with := asTold(t)
	const conf = "/etc/slurm/plugstack.conf"
	for _, host := range []string{"login", "c1"} {
		good := must(t, host, "root", "cat", conf)
		require.Contains(t, good, "include")
		t.Cleanup(func() { onWithInput(t, host, "root", good, "sh", "-c", "cat >"+conf) })
		must(t, host, "root", "sh", "-c", "echo '# nothing' >"+conf)
	}
	restart := func() { require.NoError(t, labCommand("restart", "c1", "slurmd").Run()) }
	t.Cleanup(restart)
	restart()
	eventually(t, 60*time.Second, func() bool { return on(t, "login", "carol", "srun", "-p", "cpu", "-w", "c1", "true").status == 0 },
		func() string { return must(t, "n0", "root", "sinfo") })
	assert.NotContains(t, must(t, "login", "carol", "srun", "--help"), "--enclave", "the control: the plugin is not loaded")
	without := asTold(t)
	require.Len(t, without, len(invocations()))
	for name, told := range with {
		assert.Equal(t, without[name], told, name)
	}
}

// touched are the files of ours that slurmd and its children name while a job of cpu runs on c1.
func touched(t *testing.T) []string {
	t.Helper()
	must(t, "c1", "root", "sh", "-c", `strace -f -qq -s 256 -e trace=%file -o /root/trace -p $(pgrep -o slurmd) >/dev/null 2>&1 & echo $! >/root/trace.pid; sleep 1`)
	must(t, "login", "carol", "srun", "-p", "cpu", "-w", "c1", "true")
	must(t, "c1", "root", "sh", "-c", `sleep 1; kill $(cat /root/trace.pid); sleep 0.2`)
	trace := must(t, "c1", "root", "cat", "/root/trace")
	var names []string
	for _, m := range regexp.MustCompile(`"([^"]*enclave[^"]*)"`).FindAllStringSubmatch(trace, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func TestP7AJobOfCPUTouchesTheMarkerAndNoOtherFileOfOurs(t *testing.T) {
	found := touched(t)
	assert.Contains(t, found, "/etc/slurm-enclave/enclave-node", "the control: the trace sees the gate")
	for _, name := range found {
		ours := regexp.MustCompile(`^(/etc/slurm-enclave/enclave-node|/usr/libexec/slurm-enclave/enclave-(pro|epi)log|.*/enclave\.so|.*/enclave\.conf)$`)
		assert.Regexp(t, ours, name)
	}
}

func TestP7WhatItCostsIsMeasured(t *testing.T) {
	c := exec.CommandContext(t.Context(), filepath.Join(programs(), "enclave-lab"), "harm", "--repeat", "1")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("\n%s", out)
	for _, row := range []string{
		`srun, system calls +[1-9]`, `srun, private memory, kB +[1-9]`, `slurmstepd, system calls +[1-9]`, `slurmstepd, private memory, kB +[1-9]`,
		`  prolog-slurmctld +1 `, `  enclave-prolog +1 `, `  enclave-epilog +1 `, `  epilog-slurmctld +1 `,
	} {
		assert.Regexp(t, "(?m)^"+row, string(out))
	}
	for host, path := range map[string]string{"c1": "/usr/libexec/slurm-enclave/enclave-prolog", "n0": "/etc/slurm-enclave/prolog-slurmctld", "login": "/etc/slurm/plugstack.conf"} {
		assert.NotZero(t, on(t, host, "root", "sh", "-c", "ls "+path+".kept || ls "+path+".real").status, "everything is as it was on %s", host)
	}
}

// makeOn is make in this tree, with a host of the lab as where to install.
func makeOn(t *testing.T, host, target string) (string, error) {
	t.Helper()
	s := state(t)
	i := slices.IndexFunc(s.Hosts, func(h lab.HostState) bool { return h.Name == host })
	require.GreaterOrEqual(t, i, 0)
	root := fmt.Sprintf("/proc/%d/root/proc/%d/root", s.Supervisor, s.Hosts[i].PID) // the lab has a /proc of its own
	c := exec.Command("make", "-C", "../../..", target, "DESTDIR="+root)            // a cleanup runs it, too
	out, err := c.CombinedOutput()
	return string(out), err
}

func TestP7SlurmdStartsAfterInstallAndRemoval(t *testing.T) {
	out, err := makeOn(t, "c1", "uninstall")
	require.Error(t, err, "files that Slurm's configuration names are not taken away")
	assert.Contains(t, out, "plugstack.conf.d/enclave.conf")
	must(t, "c1", "root", "sh", "-c", "mkdir /root/kept && cp -a /etc/slurm /root/kept/")
	restart := func() {
		require.NoError(t, labCommand("restart", "c1", "slurmd").Run())
		eventually(t, 60*time.Second, func() bool { return on(t, "login", "carol", "srun", "-p", "cpu", "-w", "c1", "true").status == 0 },
			func() string { return must(t, "n0", "root", "sinfo") })
	}
	t.Cleanup(func() {
		_, err = makeOn(t, "c1", "install-files")
		require.NoError(t, err)
		// What is installed was built against this machine's Slurm; another suite's is built beside it.
		for name, path := range map[string]string{"enclave.so": "/usr/lib/x86_64-linux-gnu/slurm-wlm/", "libenclave-submit.so": "/usr/libexec/slurm-enclave/"} {
			b, unread := os.ReadFile(filepath.Join(programs(), suite(), name))
			require.NoError(t, unread)
			require.Zero(t, onWithInput(t, "c1", "root", string(b), "sh", "-c", "cat >"+path+name).status)
		}
		must(t, "c1", "root", "sh", "-c", "cp -a /root/kept/slurm/. /etc/slurm/ && rm -r /root/kept")
		restart()
	})
	must(t, "c1", "root", "sh", "-c", "rm /etc/slurm/plugstack.conf.d/enclave.conf && sed -i -E '/^(Prolog|Epilog)(Slurmctld)?=/d' /etc/slurm/slurm.conf.d/enclave.conf")
	out, err = makeOn(t, "c1", "uninstall")
	require.NoError(t, err, out)
	assert.Empty(t, on(t, "c1", "root", "sh", "-c", "ls /usr/libexec/slurm-enclave /usr/bin/enclave /usr/share/slurm-enclave 2>/dev/null").out)
	restart()
}
