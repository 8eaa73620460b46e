//go:build e2e

package e2e_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOkOfALabNode(t *testing.T) {
	r := on(t, "n1", "root", "enclave", "ok")
	assert.Equal(t, 3, r.status, "a lab's report alone is no success: %s", r)
	assert.True(t, strings.HasPrefix(r.out, "SIMULATED, proves nothing about hardware: "), r.out)
	for _, rung := range []string{"device", "report", "policy", "nftables", "mounts", "marker", "slurmd", "gate", "slurm.conf"} {
		assert.Regexp(t, `(?m)^PASS  `+rung+` `, r.out)
	}
	assert.Regexp(t, `(?m)^WARN  verify .*SIMULATED`, r.out)
	assert.NotContains(t, r.out, "FAIL")
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	assert.True(t, strings.HasPrefix(lines[len(lines)-1], "SIMULATED"), r.out)
	assert.Empty(t, r.errOut)
	t.Run("it is allowed by a flag", func(t *testing.T) {
		r := on(t, "n1", "root", "enclave", "ok", "--allow-simulated")
		assert.Zero(t, r.status, r)
	})
	t.Run("who is not root cannot tell", func(t *testing.T) {
		r := on(t, "n1", "alice", "enclave", "ok")
		assert.Equal(t, 4, r.status, r)
		assert.NotContains(t, r.out, "SIMULATED")
	})
	t.Run("it leaves nothing on the node", func(t *testing.T) {
		r := on(t, "n1", "root", "enclave", "host", "check")
		assert.Zero(t, r.status, r)
	})
	for fault, status := range map[string]int{
		`{"wrong_key": true}`: 6, `{"replay": true}`: 6, `{"old_tcb": true}`: 3, `{"no_certificates": true}`: 4, `{"no_report": true}`: 4,
	} {
		t.Run("a node with "+fault, func(t *testing.T) {
			setFault(t, "n1", fault)
			r := on(t, "n1", "root", "enclave", "ok", "--allow-simulated")
			assert.Equal(t, status, r.status, r)
		})
	}
}
