//go:build vm

package vmtest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// denied says whether DENY is there with the code, and GO is not.
func (n *node) denied(t *testing.T, code string) {
	t.Helper()
	out := n.Run(t, "sh", "-c", fmt.Sprintf("cd /run/slurm-enclave/gate && ls && cat %d.deny", job))
	assert.Equal(t, fmt.Sprintf("%d.deny", job), strings.SplitN(out, "\n", 2)[0], n.Name)
	assert.Contains(t, out, "code "+code, n.Name)
}

// sheltered says that nothing of an enclave is up on the node.
func (n *node) sheltered(t *testing.T) {
	t.Helper()
	_, there := n.Try("ip", "link", "show", device)
	assert.False(t, there, n.Name)
	assert.NotContains(t, n.Run(t, "nft", "list", "tables"), fmt.Sprintf("enclave_%d", job), n.Name)
	_, runs := n.Try("pidof", "enclave-keeper")
	assert.False(t, runs, n.Name)
}

// TestP2TheSuiteInsideAnEnclaveOfTheProlog is the traffic and the attacks of the two smoke tests, in
// enclaves that our programs made. Their controls are there: with a keeper, who takes the fence away ends
// the job.
func TestP2TheSuiteInsideAnEnclaveOfTheProlog(t *testing.T) {
	s := installation.ready(t)
	j := s.next()
	j.begin(t)
	flows(t, &s.wire, s.nodes[0], s.nodes[1])
	injections(t, &s.wire, s.nodes[0], s.nodes[1])
	j.end(t)
	s.closed(t)
}

// TestP4NothingIsLeftOfOddLives is what the four scripts meet when things go wrong.
func TestP4NothingIsLeftOfOddLives(t *testing.T) {
	s := installation.ready(t)
	n1, n2 := s.nodes[0], s.nodes[1]
	t.Run("an epilog without a prolog", func(t *testing.T) {
		for _, r := range s.next().scripts("epilog") {
			assert.True(t, r.ok, r.out)
		}
		s.closed(t)
	})
	t.Run("a prolog that nobody announced denies, and drains nobody", func(t *testing.T) {
		j := s.next()
		for _, r := range j.scripts("prolog") {
			assert.True(t, r.ok, r.out)
			r.node.denied(t, "E502")
			r.node.sheltered(t)
		}
		for _, r := range j.scripts("epilog") {
			assert.True(t, r.ok, r.out)
		}
		s.closed(t)
	})
	t.Run("one node's bad evidence denies all, and drains that node alone", func(t *testing.T) {
		require.NoError(t, put(n2.Machine, faultsFile, `{"old_tcb": true}`))
		j := s.next()
		j.controllers(t, "prolog")
		for _, r := range j.scripts("prolog") {
			code := "E501"
			if r.node == n2 {
				code = "E235"
			}
			assert.Equal(t, r.node != n2, r.ok, "%s: %s", r.node.Name, r.out)
			r.node.denied(t, code)
			r.node.sheltered(t)
		}
		require.NoError(t, put(n2.Machine, faultsFile, "{}"))
		for _, r := range j.scripts("epilog") {
			assert.True(t, r.ok, r.out)
		}
		j.controllers(t, "epilog")
		s.closed(t)
	})
	t.Run("a prolog that is called again in the middle of the job closes its node", func(t *testing.T) {
		j := s.next()
		j.begin(t)
		out, ok := j.script("prolog", n1).Wait(patience)
		assert.True(t, ok, out)
		_, there := n1.Try("test", "-e", fmt.Sprintf("/run/slurm-enclave/gate/%d.go", job))
		assert.False(t, there, out)
		n1.sheltered(t)
		assert.True(t, n2.admitted(t))
		j.end(t)
		s.closed(t)
	})
	t.Run("a prolog that is killed while it waits for the others", func(t *testing.T) {
		j := s.next()
		j.controllers(t, "prolog")
		p := j.script("prolog", n1)
		require.Eventually(t, func() bool { _, open := n1.Try("sh", "-c", "ls /run/slurm-enclave/*/journal"); return open }, patience, 200*time.Millisecond)
		p.Kill()
		for _, r := range j.scripts("epilog") {
			assert.True(t, r.ok, r.out)
		}
		j.controllers(t, "epilog")
		s.closed(t)
	})
	t.Run("a host that is closed while the job runs", func(t *testing.T) {
		j := s.next()
		j.begin(t)
		j.task(t, n1, "serve", `{"Proto":"udp","Address":"10.78.0.1:7000"}`).Must(t, "listening")
		n1.Run(t, "/usr/bin/enclave", "host", "close")
		n1.sheltered(t)
		assert.Equal(t, n1.before, n1.trace(t))
		j.end(t)
		s.closed(t)
	})
}

// TestP2TheKeeperDies: the kernel's tunnel outlives it, what it protected stays protected, and GO ends.
func TestP2TheKeeperDies(t *testing.T) {
	s := installation.ready(t)
	n1, n2 := s.nodes[0], s.nodes[1]
	j := s.next()
	j.begin(t)
	server := j.task(t, n2, "serve", `{"Proto":"udp","Address":"10.78.0.2:7000"}`)
	server.Must(t, "listening")
	n2.Run(t, "killall", "-KILL", "enclave-keeper")
	last := n2.expires(t)
	s.wire.Clear()
	t.Run("the tunnel goes on, and nothing goes beside it", func(t *testing.T) {
		assert.True(t, n1.talk(t, "udp", "10.78.0.2:7000", soon))
		assert.Zero(t, s.wire.Holds(secret))
		onlyWireGuard(t, &s.wire, n1, n2)
	})
	t.Run("the others renew, this node does not, and its GO ends", func(t *testing.T) {
		first := n1.expires(t)
		require.Eventually(t, func() bool { return n1.expires(t) > first }, patience, time.Second)
		assert.Equal(t, last, n2.expires(t))
		require.Eventually(t, func() bool { return n2.uptime(t) > last }, patience, time.Second)
	})
	j.end(t)
	s.closed(t)
}

// TestP4AMachineLosesPower in the middle of a job, and comes up with the same disks.
func TestP4AMachineLosesPower(t *testing.T) {
	s := installation.ready(t)
	n1, n2 := s.nodes[0], s.nodes[1]
	j := s.next()
	j.begin(t)
	boot := n2.Run(t, "cat", "/proc/sys/kernel/random/boot_id")
	n2.Run(t, "sh", "-c", "su alice -c 'echo kept >/lustre/kept; sync'")
	n2.Stop()
	require.NoError(t, s.power(n2))
	t.Run("the closed state of the boot before is not this one's", func(t *testing.T) {
		require.NoError(t, s.mount(n2))
		require.NotEqual(t, boot, n2.Run(t, "cat", "/proc/sys/kernel/random/boot_id"))
		out, ok := n2.Try("/usr/bin/enclave", "host", "check")
		assert.False(t, ok)
		assert.Contains(t, out, "another boot")
	})
	t.Run("the boot closes the node", func(t *testing.T) {
		n2.Run(t, "/usr/bin/enclave", "host", "close")
		n2.Run(t, "/usr/bin/enclave", "host", "check")
		n2.sheltered(t)
		assert.Equal(t, n2.before, n2.trace(t))
	})
	t.Run("the job ends on all nodes", func(t *testing.T) {
		j.end(t)
		assert.Equal(t, n1.before, n1.trace(t))
		n2.Run(t, "/usr/bin/enclave", "host", "check")
	})
	t.Run("with its old key the node is in the next job, and finds what was written", func(t *testing.T) {
		next := s.next()
		next.begin(t)
		assert.Equal(t, "kept", n2.Run(t, "su", "alice", "-c", "cat /lustre/kept"))
		next.end(t)
		s.closed(t)
	})
}

// TestP4Teardowns measures. An emulated processor is slow, and how slow is the machine's business.
func TestP4Teardowns(t *testing.T) {
	s := installation.ready(t)
	var took []time.Duration
	for range 3 {
		j := s.next()
		j.begin(t)
		for _, n := range s.nodes {
			j.task(t, n, "serve", `{"Proto":"udp","Address":"0.0.0.0:7000"}`).Must(t, "listening")
		}
		took = append(took, j.end(t)...)
		s.closed(t)
	}
	slices.Sort(took)
	t.Logf("teardown: n=%d p50=%s least=%s most=%s", len(took), took[len(took)/2], took[0], took[len(took)-1])
}
