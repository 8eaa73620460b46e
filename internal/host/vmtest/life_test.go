//go:build vm || e2e

package vmtest_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/vmtest"
)

// start is one start of a job on the site, in the place of Slurm: it calls the four scripts as
// slurmctld and slurmd do, with their users, cgroups and environments.
type start struct {
	*site
	restart int
	on      []*node
}

// next is a start of the job on all nodes, as after a requeue.
func (s *site) next() start {
	s.starts++
	return start{s, s.starts - 1, s.nodes}
}

// environment is what Slurm 22.05 gives a script, and nothing else.
func (s start) environment(context string, n *node) []string {
	list := "SLURM_NODELIST"
	env := []string{
		"SLURM_CLUSTER_NAME=vm", "SLURM_JOB_ID=" + strconv.Itoa(job), "SLURM_JOBID=" + strconv.Itoa(job), "SLURM_JOB_UID=2001", "SLURM_JOB_GID=2001",
		"SLURM_JOB_USER=alice", "SLURM_JOB_ACCOUNT=digimed", "SLURM_JOB_PARTITION=cpu-sev", "SLURM_SCRIPT_CONTEXT=" + context,
		"SLURM_JOB_RESTART_COUNT=" + strconv.Itoa(s.restart), "SLURM_JOB_NUM_NODES=" + strconv.Itoa(len(s.on)), "SLURM_JOB_WORK_DIR=/lustre",
	}
	if n == nil {
		list = "SLURM_JOB_NODELIST"
		env = append(env, "SLURM_JOB_NAME=test", "SLURM_JOB_GROUP=alice")
	} else {
		env = append(env, "SLURMD_NODENAME="+n.Name, "SLURM_CONF=/etc/slurm/slurm.conf", "SLURM_UID=2001", "SLURM_JOB_CPUS_PER_NODE=1")
	}
	if strings.HasPrefix(context, "epilog") {
		env = append(env, "SLURM_JOB_EXIT_CODE=0", "SLURM_JOB_EXIT_CODE2=0:0", "SLURM_JOB_DERIVED_EC=0")
	}
	var names []string
	for _, m := range s.on {
		names = append(names, m.orders.Own.Node)
	}
	return append(env, list+"="+strings.Join(names, ","))
}

// controllers runs a script of the controller's as SlurmUser.
func (s start) controllers(t *testing.T, script string) {
	t.Helper()
	argv := append([]string{"/bin/env", "-i"}, s.environment(script+"_slurmctld", nil)...)
	out, ok := s.controller.Start(vmtest.Command{Argv: append(argv, etcDir+script+"-slurmctld"), UID: slurmUID}).Wait(patience)
	require.True(t, ok, out)
}

// script runs a node's script in slurmd's cgroup, and in a directory where a job's own will be.
func (s start) script(script string, n *node) *vmtest.Process {
	argv := append([]string{"/bin/env", "-i"}, s.environment(script+"_slurmd", n)...)
	return n.Start(vmtest.Command{Argv: append(argv, libexec+"enclave-"+script), Cgroup: slurmdGroup, Dir: "/tmp"})
}

// begin is what Slurm does before a job's first task.
func (s start) begin(t *testing.T) {
	t.Helper()
	s.controllers(t, "prolog")
	for _, r := range s.scripts("prolog") {
		require.True(t, r.ok, "%s: %s", r.node.Name, r.out)
		assert.Contains(t, r.out, "enclave is up")
	}
}

// end is what Slurm does after its last one. It gives how long each node took.
func (s start) end(t *testing.T) (took []time.Duration) {
	t.Helper()
	for _, r := range s.scripts("epilog") {
		require.True(t, r.ok, "%s: %s", r.node.Name, r.out)
		took = append(took, teardown(t, r.out))
	}
	s.controllers(t, "epilog")
	return took
}

type outcome struct {
	node *node
	out  string
	ok   bool
}

// scripts runs a script on all nodes of the start at the same time, to the end.
func (s start) scripts(script string) (all []outcome) {
	var running []*vmtest.Process
	for _, n := range s.on {
		running = append(running, s.script(script, n))
	}
	for i, n := range s.on {
		out, ok := running[i].Wait(patience)
		all = append(all, outcome{n, out, ok})
	}
	return all
}

var teardownField = regexp.MustCompile(`\bms_teardown=(\d+)`)

// teardown is what the epilog says of its own time.
func teardown(t *testing.T, log string) time.Duration {
	t.Helper()
	field := teardownField.FindStringSubmatch(log)
	require.NotNil(t, field, log)
	ms, err := strconv.Atoi(field[1])
	require.NoError(t, err)
	return time.Duration(ms) * time.Millisecond
}

// task starts one of this program's programs as the job's user, in the cgroup of the job's step.
func (s start) task(t *testing.T, n *node, name, input string) *vmtest.Process {
	t.Helper()
	p := n.Start(vmtest.Command{
		Argv: []string{"/agent", name}, UID: user, Input: input, Dir: "/lustre", Cgroup: fmt.Sprintf("system.slice/slurmstepd.scope/job_%d/step_0/user/task_0", job),
	})
	t.Cleanup(p.Kill)
	return p
}

// admitted says whether GO is there, as the gate wants it, and DENY is not.
func (n *node) admitted(t *testing.T) bool {
	t.Helper()
	out, ok := n.Try("sh", "-c", fmt.Sprintf(`cd /run/slurm-enclave/gate && stat -c '%%n %%a %%u %%h' * && grep -q "^boot $(cat /proc/sys/kernel/random/boot_id)$" %d.go`, job))
	return ok && strings.TrimSpace(out) == fmt.Sprintf("%d.go 400 0 1", job)
}

// closed says that a node is as it was, by our own means and by the product's.
func (s *site) closed(t *testing.T) {
	t.Helper()
	for _, n := range s.nodes {
		assert.Equal(t, n.before, n.trace(t), n.Name)
		n.Run(t, "/usr/bin/enclave", "host", "check")
	}
}

// TestP1P2P4AJobOnMachines is a job's life on machines with kernel WireGuard and cgroup v2: all
// four of Slurm's scripts, a renewal, and a second start on the same machines.
func TestP1P2P4AJobOnMachines(t *testing.T) {
	s := installation.ready(t)
	n1, n2 := s.nodes[0], s.nodes[1]
	j := s.next()
	s.wire.Clear()
	j.begin(t)
	t.Run("all nodes hold GO, and the kernel the tunnel", func(t *testing.T) {
		for _, n := range s.nodes {
			assert.True(t, n.admitted(t), n.Name)
			assert.Contains(t, n.Run(t, "ip", "-d", "link", "show", device), "wireguard")
		}
	})
	t.Run("the keeper is in a cgroup of its own, and outlives slurmd's", func(t *testing.T) {
		pid := strings.TrimSpace(n1.Run(t, "pidof", "enclave-keeper"))
		group := strings.TrimSpace(n1.Run(t, "cat", "/proc/"+pid+"/cgroup"))
		assert.Regexp(t, `^0::/slurm-enclave\.4711\.\d+\.[^/]*$`, group)
		bystander := n1.Start(vmtest.Command{Argv: []string{"sleep", "1000"}, Cgroup: slurmdGroup})
		n1.Run(t, "sh", "-c", "echo 1 >/sys/fs/cgroup/"+slurmdGroup+"/cgroup.kill")
		_, ok := bystander.Wait(patience)
		assert.False(t, ok, "control: what is in slurmd's cgroup dies")
		assert.Equal(t, pid, strings.TrimSpace(n1.Run(t, "pidof", "enclave-keeper")))
	})
	t.Run("the job's tasks see their tenant's tree, and talk through WireGuard alone", func(t *testing.T) {
		n1.Run(t, "su", "alice", "-c", "echo data >/lustre/file")
		assert.Equal(t, "data", n1.Run(t, "cat", siteMount+"/proj/digimed/file"))
		for _, proto := range []string{"tcp", "udp"} {
			server := j.task(t, n2, "serve", fmt.Sprintf(`{"Proto":%q,"Address":"10.78.0.2:7000"}`, proto))
			server.Must(t, "listening")
			c := j.task(t, n1, "client", fmt.Sprintf(`{"Proto":%q,"Address":"10.78.0.2:7000","Payload":%q}`, proto, secret))
			c.Must(t, "got")
		}
		assert.Zero(t, s.wire.Holds(secret))
		onlyWireGuard(t, &s.wire, n1, n2)
	})
	t.Run("the nodes prove themselves again, which gives GO a new end", func(t *testing.T) {
		for _, n := range s.nodes {
			first := n.expires(t)
			require.Eventually(t, func() bool { return n.expires(t) > first }, patience, time.Second, n.Name)
			assert.True(t, n.admitted(t))
		}
	})
	t.Run("after the epilogs all is as before, and said so in time", func(t *testing.T) {
		for i, took := range j.end(t) {
			t.Logf("%s was taken down in %s", s.nodes[i].Name, took)
		}
		s.closed(t)
	})
	t.Run("the next start on the same machines begins and ends as well", func(t *testing.T) {
		again := s.next()
		again.begin(t)
		again.end(t)
		s.closed(t)
	})
	t.Run("control: without an enclave the same payload is seen on the wire", func(t *testing.T) {
		n2.serve(t, 0, "tcp", "10.78.0.2:22")
		p := n1.act(t, "client", 0, end{Proto: "tcp", Address: "10.78.0.2:22", Payload: secret})
		p.Must(t, "got")
		assert.Positive(t, s.wire.Holds(secret))
	})
}

var expiresLine = regexp.MustCompile(`(?m)^expires (\d+)$`)

// expires is when the node's GO ends.
func (n *node) expires(t *testing.T) int {
	t.Helper()
	found := expiresLine.FindStringSubmatch(n.Run(t, "cat", fmt.Sprintf("/run/slurm-enclave/gate/%d.go", job)))
	require.NotNil(t, found)
	end, err := strconv.Atoi(found[1])
	require.NoError(t, err)
	return end
}

// uptime is CLOCK_BOOTTIME in seconds: a machine of the tests never sleeps.
func (n *node) uptime(t *testing.T) (seconds int) {
	t.Helper()
	_, err := fmt.Sscanf(n.Run(t, "cat", "/proc/uptime"), "%d", &seconds)
	require.NoError(t, err)
	return seconds
}
