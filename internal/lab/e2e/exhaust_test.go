//go:build e2e

package e2e_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// exhausting is a job whose user takes all he can get on two nodes. Once the flood is on, it starts another step;
// then it fills conntrack, after which none of its own could start.
const exhausting = `f=/lustre/exhaust-$SLURM_JOB_ID
E2E_ESCAPE=exhaust srun --overlap -N2 -n2 ` + escapeProgram + ` $f.stop $f.fill %s %s &
until [ -e $f.go ]; do sleep 0.2; done
srun --overlap -N2 -n2 sh -c 'echo STEP-$(hostname)'
touch $f.fill
wait %%1`

// TestP2AUserWhoTakesAllHarmsHimselfAlone: a job's user fills conntrack, holds 100,000 sockets and floods
// WireGuard's port of his node and of a peer, all at once. Slurm and the node go on.
func TestP2AUserWhoTakesAllHarmsHimselfAlone(t *testing.T) {
	idle(t)
	nodes := []string{"n1", "n2"}
	was := map[string]string{}
	for _, n := range nodes {
		was[n] = nodeTrace(t, n)
		copySelf(t, n, escapeProgram)
		must(t, n, "root", "chmod", "755", escapeProgram)
	}
	id := submit(t, "alice", fmt.Sprintf(exhausting, address(t, "n1"), address(t, "n2")), "--partition=cpu-sev", "--nodes=2", "--nodelist=n1,n2")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	said := func() string { return on(t, "login", "alice", "cat", "slurm-"+id+".out").String() }
	eventually(t, 60*time.Second, func() bool { return strings.Count(said(), "floods") == 2 || strings.Contains(said(), "error") }, said)
	require.Equal(t, 2, strings.Count(said(), "floods"), said())
	file := tenantTree + "/exhaust-" + id
	t.Cleanup(func() { on(t, "n1", "root", "sh", "-c", "rm -f "+file+".*") })
	t.Run("control: the sockets are held, the flood arrives", func(t *testing.T) {
		for _, n := range nodes {
			assert.GreaterOrEqual(t, told(t, n, "sockets", said()), 100_000, n)
			before := through(t, n, id)
			eventually(t, 20*time.Second, func() bool { return through(t, n, id)-before > 10_000 },
				func() string { return fmt.Sprint(n, ": packets through the tunnel ", through(t, n, id)-before) })
		}
	})
	t.Run("another step of the job runs", func(t *testing.T) {
		must(t, "n1", "root", "touch", file+".go")
		eventually(t, 60*time.Second, func() bool { return strings.Count(said(), ": flows ") == 2 }, said)
		for _, n := range nodes {
			assert.Contains(t, said(), "STEP-"+n)
		}
	})
	t.Run("Slurm answers while conntrack is full as well, and the nodes are up", func(t *testing.T) {
		for _, n := range nodes {
			full(t, n)
		}
		answers(t, nodes)
		must(t, "n1", "root", "touch", file+".stop")
		eventually(t, 30*time.Second, func() bool { return strings.Count(said(), ": flood ") == 2 }, said)
		for _, n := range nodes {
			assert.Greater(t, told(t, n, "flood", said()), 10_000, n)
		}
		t.Logf("\n%s", said())
	})
	t.Run("it can be ended, though its srun may not have heard that the step is over", func(t *testing.T) {
		must(t, "n0", "root", "timeout", "20", "scancel", id)
		await(t, id, "COMPLETED", "CANCELLED")
	})
	t.Run("the epilogs leave nothing, and the next job finds nodes that work", func(t *testing.T) {
		idle(t)
		for _, n := range nodes {
			assert.Less(t, flows(t, n), 10_000, n)
		}
		answers(t, nodes)
		for _, n := range nodes {
			eventually(t, 30*time.Second, func() bool { return nodeTrace(t, n) == was[n] }, func() string { return n + "\n" + nodeTrace(t, n) })
			assert.Zero(t, on(t, n, "root", "enclave", "host", "check").status, n)
		}
		next := submit(t, "bob", "srun hostname", "--partition=cpu-sev", "--nodes=2", "--nodelist=n1,n2")
		await(t, next, "COMPLETED")
		assert.Contains(t, output(t, "bob", next), "n2")
		idle(t)
	})
}

// told is a number that the job's program on a node has printed.
func told(t *testing.T, node, what, said string) int {
	t.Helper()
	found := regexp.MustCompile(node + ": " + what + ` (\d+)`).FindStringSubmatch(said)
	require.NotNil(t, found, "%s: %s in %s", node, what, said)
	return number(t, found[1])
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(text))
	require.NoError(t, err)
	return n
}

// full says that a node's conntrack takes no flow any more.
func full(t *testing.T, node string) {
	t.Helper()
	count, most := flows(t, node), number(t, must(t, node, "root", "cat", "/proc/sys/net/netfilter/nf_conntrack_max"))
	t.Logf("%s: %d of %d flows", node, count, most)
	assert.Greater(t, count, most*9/10, node)
	// What ended in between, such as flows of earlier jobs, left its place. Each of these takes one, for minutes.
	const dial = `while [ $SECONDS -lt 15 ]; do timeout 1 bash -c '</dev/tcp/127.0.0.1/6818' 2>/dev/null; [ $? = 124 ] && exit; done; exit 1`
	assert.Zero(t, on(t, node, "root", "bash", "-c", dial).status, "a flow that is tracked is still to be had on %s", node)
}

// flows is how many conntrack knows of on a node.
func flows(t *testing.T, node string) int {
	t.Helper()
	return number(t, must(t, node, "root", "cat", "/proc/sys/net/netfilter/nf_conntrack_count"))
}

// through is how many packets came out of the job's tunnel on a node.
func through(t *testing.T, node, id string) int {
	t.Helper()
	return number(t, must(t, node, "root", "sh", "-c", `awk '$1 == "enc`+id+`:" { print $3 }' /proc/net/dev`))
}

// answers says that the controller and each node's slurmd answer, and that no node is down or drained.
func answers(t *testing.T, nodes []string) {
	t.Helper()
	assert.Contains(t, must(t, "n0", "root", "timeout", "20", "scontrol", "ping"), "UP")
	for _, n := range nodes {
		began := time.Now()
		must(t, "n0", "root", "timeout", "10", "bash", "-c", "</dev/tcp/"+address(t, n)+"/6818")
		t.Logf("%s: slurmd's port took %d ms", n, time.Since(began).Milliseconds())
		state := strings.TrimSpace(must(t, "n0", "root", "timeout", "20", "sinfo", "-h", "-n", n, "-p", "cpu-sev", "-o", "%T"))
		assert.Regexp(t, `^(idle|allocated|mixed|completing)$`, state, n)
	}
}
