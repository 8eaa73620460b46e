//go:build e2e

package e2e_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAPolicyIsLearnedFromANodeOfTheLab(t *testing.T) {
	idle(t)
	const inForce = "/etc/slurm-enclave/policy.d/default.yaml"
	put := func(path, text string) {
		t.Helper()
		r := onWithInput(t, "n0", "root", text, "sh", "-c", "cat >"+path)
		require.Zero(t, r.status, "%s", r)
	}
	// The evidence that the nodes sent last may be another test's fault.
	await(t, submit(t, "alice", "srun hostname", "--partition=cpu-sev", "--nodes=3"), "COMPLETED")
	idle(t)
	good := must(t, "n0", "root", "cat", inForce)
	refused := on(t, "n0", "root", "enclave", "policy", "learn", "--node", "n1")
	assert.Equal(t, 6, refused.status, "a lab's evidence is none: %s", refused)
	assert.Equal(t, 5, on(t, "login", "alice", "enclave", "policy", "learn", "--node", "n1").status, "users see no evidence")

	draft := must(t, "n0", "root", "enclave", "policy", "learn", "--node", "n1", "--node", "n2", "--allow-simulated")
	assert.True(t, strings.HasPrefix(draft, "# SIMULATED: "), draft)
	decided := strings.ReplaceAll(draft, "covers: []", "covers: [firmware, kernel, rootfs]")
	require.NotEqual(t, draft, decided)
	put("/tmp/learned.yaml", decided)
	must(t, "n0", "root", "enclave", "policy", "check", "/tmp/learned.yaml")
	diff := must(t, "n0", "root", "enclave", "policy", "diff", inForce, "/tmp/learned.yaml", "--allow-simulated")
	assert.Equal(t, labNodes, strings.Count(diff, "stays in (SIMULATED)"), diff)

	put("/tmp/deny.yaml", strings.Replace(decided, "smt: allow", "smt: deny", 1))
	below := on(t, "n0", "root", "enclave", "policy", "diff", inForce, "/tmp/deny.yaml", "--allow-simulated")
	assert.Equal(t, 3, below.status, below)
	assert.Equal(t, labNodes, strings.Count(below.out, "FALLS BELOW"), below.out)

	t.Cleanup(func() {
		put(inForce, good)
		require.NoError(t, labCommand("restart", "n0", "enclaved").Run())
	})
	put(inForce, decided)
	require.NoError(t, labCommand("restart", "n0", "enclaved").Run())
	id := submit(t, "alice", "srun hostname", "--partition=cpu-sev", "--nodes=3")
	await(t, id, "COMPLETED")
}
