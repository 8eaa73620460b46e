//go:build e2e

package e2e_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// release is that of the lab's Slurm, as in "24.11"; later ones are greater as text.
func release(t *testing.T) string {
	t.Helper()
	found := regexp.MustCompile(`\d{2}\.\d{2}`).FindString(must(t, "n0", "root", "slurmctld", "-V"))
	require.NotEmpty(t, found)
	return found
}

func TestP1StepsOfAStepManagerOnTheNode(t *testing.T) {
	idle(t)
	if release(t) < "24.05" {
		assert.Contains(t, refused(t, "alice", "srun hostname", "--partition=cpu-sev", "--stepmgr"), "unrecognized option")
		return
	}
	id := submit(t, "alice", "srun hostname | sort", "--partition=cpu-sev", "--nodes=3", "--stepmgr")
	await(t, id, "COMPLETED")
	assert.Equal(t, []string{"n1", "n2", "n3"}, strings.Fields(output(t, "alice", id)))
	idle(t)
}
