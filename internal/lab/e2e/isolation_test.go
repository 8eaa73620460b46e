//go:build e2e && isolation

package e2e_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// isolation of the lab's storage: a job's view is in the mount namespace that Slurm gives the job.
const isolation = "namespace"

// ways is where the processes of a job say in which namespace they are: in the view itself, so that one
// that is elsewhere says nothing.
const ways = tenantTree + "/ways"

// say is a program of the user's that leaves a word in the view under its first argument's name.
const say = `#!/bin/sh
{ readlink /proc/self/ns/mnt; awk '$5 == "/lustre" { root = $4 } END { print root }' /proc/self/mountinfo; } >"/lustre/ways/${1:-$WAY}"
`

// installed puts a script into the lab's home of alice, which is seen on every node.
func installed(t *testing.T, name, text string) string {
	t.Helper()
	path := "/home/alice/" + name
	onWithInput(t, "login", "alice", text, "sh", "-c", "cat >"+path+" && chmod 755 "+path)
	return path
}

// spaceOf is the mount namespace in which the gate lets a job's tasks start on a node.
func spaceOf(t *testing.T, node, id string) string {
	t.Helper()
	found := regexp.MustCompile(`namespace (\d+)`).FindStringSubmatch(must(t, node, "root", "cat", "/run/slurm-enclave/gate/"+id+".view"))
	require.NotNil(t, found)
	return "mnt:[" + found[1] + "]"
}

func pin(node, id string) string { return "/var/spool/slurm-namespaces/" + node + "/" + id + "/.ns" } // Debian builds with MULTIPLE_SLURMD

// joined is what runs as she does in the namespace that pam_slurm_adopt enters: it gets it from
// slurmstepd, which opens the same pin, and calls setns(2) on it.
func joined(id string, argv ...string) []string {
	return append([]string{"nsenter", "--mount=" + pin("n1", id), "--", "setpriv", "--reuid", aliceID, "--regid", aliceID, "--clear-groups"}, argv...)
}

// P3: batch script, steps, overlapping and interactive ones, task prolog and epilog, sattach, sbcast, the
// files of output and what ssh adopts see one view, and the node sees none.
func TestP3EveryProcessOfAJobSeesOneView(t *testing.T) {
	idle(t)
	must(t, "n1", "root", "install", "-d", "-o", "alice", "-g", "alice", ways)
	t.Cleanup(func() { on(t, "n1", "root", "rm", "-rf", ways, tenantTree+"/out") })
	word := installed(t, "say", say)
	hook := installed(t, "hook", "#!/bin/sh\nWAY=taskepilog exec "+word+" taskepilog\n")
	before := installed(t, "before", "#!/bin/sh\n"+word+" taskprolog\n")
	id := submit(t, "alice", strings.Join([]string{
		word + " batch",
		"srun " + word + " step",
		"srun --task-prolog=" + before + " --task-epilog=" + hook + " true",
		"readlink /proc/self/ns/mnt >/tmp/where && sbcast -f /tmp/where /lustre/ways/sbcast",
		"sbcast -f /tmp/where /tmp/cast && srun cp /tmp/cast /lustre/ways/sbcast-tmp",
		"srun sh -c 'while sleep 1; do readlink /proc/self/ns/mnt; done' &",
		"sleep 300",
	}, "\n"), "--partition=cpu-sev", "--nodes=1", "--nodelist=n1", "--chdir=/lustre", "--output=/lustre/out")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	started(t, id, "alice", "n1")
	here := spaceOf(t, "n1", id)
	eventually(t, 60*time.Second, func() bool { return on(t, "n1", "root", "test", "-s", ways+"/sbcast-tmp").status == 0 },
		func() string { return must(t, "n1", "root", "sh", "-c", "ls -l "+ways+"; cat "+tenantTree+"/out") })
	must(t, "login", "alice", "srun", "--jobid="+id, "--overlap", word, "overlap")
	must(t, "login", "alice", "script", "-qec", "srun --pty --jobid="+id+" --overlap "+word+" pty", "/dev/null")
	must(t, "n1", "root", joined(id, word, "adopted")...)
	attached := on(t, "login", "alice", "timeout", "5", "sattach", id+".3").out
	assert.Contains(t, attached, here, "sattach: %s", attached)
	for _, way := range []string{"batch", "step", "taskprolog", "taskepilog", "sbcast", "sbcast-tmp", "overlap", "pty", "adopted"} {
		t.Run(way, func(t *testing.T) {
			said := on(t, "n1", "root", "cat", ways+"/"+way).String()
			assert.Contains(t, said, here)
		})
	}
	t.Run("the file of the job's output is in the view", func(t *testing.T) {
		assert.Zero(t, on(t, "n1", "root", "test", "-f", tenantTree+"/out").status)
	})
	t.Run("the node itself sees nothing of it", func(t *testing.T) {
		assert.NotEqual(t, here, strings.TrimSpace(must(t, "n1", "root", "readlink", "/proc/self/ns/mnt")))
		assert.Empty(t, must(t, "n1", "root", "ls", "-A", "/lustre"))
		assert.NotContains(t, must(t, "n1", "root", "cat", "/proc/self/mountinfo"), " /lustre ")
		assert.NotZero(t, on(t, "n1", "alice", "touch", "/lustre/x").status)
	})
	t.Run("the job sees the tenant's tree and no more of the file system", func(t *testing.T) {
		table := must(t, "n1", "root", joined(id, "cat", "/proc/self/mountinfo")...)
		device := strings.TrimSpace(must(t, "n1", "root", "stat", "-c", "%Hd:%Ld", tenantTree))
		lines := 0
		for line := range strings.Lines(table) {
			if f := strings.Fields(line); f[2] == device {
				lines++
				assert.Equal(t, []string{"/proj/digimed", "/lustre"}, f[3:5], line)
				assert.Contains(t, f[5], "nosuid,nodev")
			}
			assert.NotContains(t, line, "shared:")
			assert.NotContains(t, line, "master:")
		}
		assert.Equal(t, 1, lines, table)
		assert.Empty(t, must(t, "n1", "root", append([]string{"nsenter", "--mount=" + pin("n1", id), "--"}, "ls", "-A", "/srv/enclave-fs")...), "not even to root")
		assert.NotZero(t, on(t, "n1", "root", joined(id, "ls", "/lustre/../proj/astro")...).status)
		assert.NotZero(t, on(t, "n1", "root", joined(id, "cat", secret)...).status)
	})
	must(t, "n0", "root", "scancel", id)
	idle(t)
	nothingLeft(t, "n1", id)
	said := must(t, "n0", "root", "enclave", "report", id)
	assert.Contains(t, said, "isolation namespace")
}

// nothingLeft: no pin, no mount, no process of a job's namespace, and the node is as it was closed.
func nothingLeft(t *testing.T, node, id string) {
	t.Helper()
	assert.NotContains(t, must(t, node, "root", "cat", "/proc/self/mountinfo"), "/slurm-namespaces/"+node+"/"+id)
	assert.NotZero(t, on(t, node, "root", "test", "-e", "/var/spool/slurm-namespaces/"+node+"/"+id).status)
	assert.Zero(t, on(t, node, "root", "sh", "-c", "! grep -qs slurm-enclave: /proc/[0-9]*/mountinfo").status, "a process keeps a view")
	assert.Zero(t, on(t, node, "root", "enclave", "host", "check").status)
	assert.Empty(t, drained(t, node))
}

func TestP3AnInteractiveJobSeesOneView(t *testing.T) {
	idle(t)
	must(t, "n1", "root", "install", "-d", "-o", "alice", "-g", "alice", ways)
	t.Cleanup(func() { on(t, "n1", "root", "rm", "-rf", ways) })
	word := installed(t, "say", say)
	must(t, "login", "alice", "script", "-qec", "salloc -p cpu-sev -N2 -w n2,n3 sh -c 'srun --pty -N1 -n1 -w n2 "+word+" interactive; srun -N2 sh -c \""+word+" both-\\$SLURM_NODEID\"'", "/dev/null")
	spaces := map[string]bool{}
	for _, way := range []string{"interactive", "both-0", "both-1"} {
		said := strings.Fields(on(t, "n1", "root", "cat", ways+"/"+way).out)
		require.Len(t, said, 2, way)
		assert.Equal(t, "/proj/digimed", said[1], "what is at the public path")
		spaces[said[0]] = true
	}
	assert.Len(t, spaces, 2, "one namespace on each of two nodes: %v", spaces)
	idle(t)
}

// shim is put in the place of enclave-view: it is the real one for the prolog's rehearsal, and what the
// test says when Slurm calls it.
func shim(t *testing.T, node, what string) {
	t.Helper()
	const at = "/usr/libexec/slurm-enclave/enclave-view"
	must(t, node, "root", "sh", "-c", "mv "+at+" "+at+".real")
	onWithInput(t, node, "root", fmt.Sprintf("#!/bin/sh\n[ $# -gt 0 ] && exec %s.real \"$@\"\n%s\n", at, what), "sh", "-c", "cat >"+at+" && chmod 755 "+at)
	t.Cleanup(func() { must(t, node, "root", "mv", at+".real", at) })
}

// P3: no view, no task, whatever became of the script.
func TestP3WithoutAViewNoTaskStarts(t *testing.T) {
	for name, what := range map[string]string{
		"the script says yes and does nothing": "exit 0",
		"the script fails":                     "exit 1",
		"the script is killed":                 "kill -KILL $$",
		"the script makes it elsewhere":        "unset SLURM_NS; exec /usr/libexec/slurm-enclave/enclave-view.real",
	} {
		t.Run(name, func(t *testing.T) {
			idle(t)
			shim(t, "n1", what)
			id := submit(t, "alice", "touch /lustre/ran-$SLURM_JOB_ID /home/alice/ran-$SLURM_JOB_ID", "--partition=cpu-sev", "--nodes=1", "--nodelist=n1", "--no-requeue")
			t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
			state := await(t, id, "FAILED", "CANCELLED", "NODE_FAIL", "COMPLETED", "BOOT_FAIL")
			t.Logf("%s: %s; %s; %s", name, state, drained(t, "n1"), on(t, "n0", "root", "enclave", "why", id))
			assert.NotEqual(t, "COMPLETED", state)
			assert.NotZero(t, on(t, "n1", "root", "sh", "-c", "ls "+tenantTree+"/ran-* /home/alice/ran-*").status, "no task started")
			if drained(t, "n1") != "" {
				eventually(t, 60*time.Second, func() bool { return on(t, "n1", "root", "enclave", "host", "check").status == 0 },
					func() string { return on(t, "n1", "root", "enclave", "host", "check").String() })
				must(t, "n0", "root", "scontrol", "update", "NodeName=n1", "State=RESUME")
			}
			idle(t)
		})
	}
	t.Run("with the real one a job runs", func(t *testing.T) {
		id := submit(t, "alice", "echo RAN-$(readlink /proc/self/ns/mnt)", "--partition=cpu-sev", "--nodes=1", "--nodelist=n1")
		await(t, id, "COMPLETED")
		assert.Contains(t, output(t, "alice", id), "RAN-mnt:")
		idle(t)
		nothingLeft(t, "n1", id)
	})
}

// P4: what Slurm leaves of a namespace when its own process is killed, our epilog takes away.
func TestP4ANamespaceThatSlurmLeftIsEnded(t *testing.T) {
	idle(t)
	id := submit(t, "alice", "sleep 300", "--partition=cpu-sev", "--nodes=1", "--nodelist=n1")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	started(t, id, "alice", "n1")
	must(t, "n1", "root", "test", "-e", pin("n1", id))
	must(t, "n1", "root", "pkill", "-KILL", "-f", `^slurmstepd: \[`+id+`\.extern\]`)
	must(t, "n0", "root", "scancel", id)
	idle(t)
	assert.NotContains(t, must(t, "n1", "root", "cat", "/proc/self/mountinfo"), " "+pin("n1", id)+" ")
	assert.Zero(t, on(t, "n1", "root", "enclave", "host", "check").status)
}
