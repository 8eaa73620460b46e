//go:build e2e && !isolation

package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// isolation of the lab's storage: a job's view is in the node's own mount namespace.
const isolation = ""

// Isolation namespace on a Slurm that gives jobs no namespace is refused at the job's start, and by
// doctor with the line to write.
func TestIsolationWithoutNamespacesIsRefused(t *testing.T) {
	idle(t)
	const conf = "/etc/slurm-enclave/enclave.yaml"
	must(t, "n1", "root", "sed", "-i", "s/isolation: node/isolation: namespace/", conf)
	good := func() { must(t, "n1", "root", "sed", "-i", "s/isolation: namespace/isolation: node/", conf) }
	t.Cleanup(func() {
		good()
		on(t, "n0", "root", "scontrol", "update", "NodeName=n1", "State=RESUME")
		idle(t)
	})
	found, status := examined(t, "n1")
	assert.Equal(t, 1, status)
	broken := faults(found)
	assert.Contains(t, broken["E323"], "/etc/slurm/slurm.conf: JobContainerType=job_container/tmpfs")
	if suite() != "trixie" {
		assert.Contains(t, broken["E324"], "for 24.11")
	}
	id := submit(t, "alice", "touch /lustre/ran-$SLURM_JOB_ID", "--partition=cpu-sev", "--nodes=1", "--nodelist=n1")
	t.Cleanup(func() { on(t, "n0", "root", "scancel", id) })
	eventually(t, 60*time.Second, func() bool { return strings.Contains(drained(t, "n1"), "E323") },
		func() string { return drained(t, "n1") + on(t, "n0", "root", "enclave", "why", id).String() })
	await(t, id, "PENDING") // Slurm forgets a cancel that it hears while it requeues
	must(t, "n0", "root", "scancel", id)
	await(t, id, "CANCELLED")
	require.NotZero(t, on(t, "n1", "root", "test", "-e", tenantTree+"/ran-"+id).status, "no task started")
}
