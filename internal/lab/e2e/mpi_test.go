//go:build e2e

package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/lab"
)

// mpiCrash is where Open MPI 5.0.7 now and then crashes in MPI_Init, before any of a program's own lines
// (docs/compatibility.md): the step is to be started again.
const mpiCrash = "mca_pml_ob1_recv_frag_callback_match"

// orAgain is a step in a batch script that is started again after such a crash.
func orAgain(step string) string {
	return step + " || { grep -q " + mpiCrash + " slurm-$SLURM_JOB_ID.out && " + step + "; }"
}

// submitProgram is `enclave-lab submit`.
func submitProgram(t *testing.T, args ...string) (out, errOut string) {
	t.Helper()
	for range 3 {
		var err error
		if out, errOut, err = submitOnce(t, args...); err == nil {
			return out, errOut
		}
		require.Contains(t, out+errOut, mpiCrash, "%v: %s%s", err, out, errOut)
		t.Log("Open MPI crashed in MPI_Init")
		idle(t)
	}
	require.Fail(t, "Open MPI crashes each time", "%s%s", out, errOut)
	return "", ""
}

func submitOnce(t *testing.T, args ...string) (out, errOut string, err error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), filepath.Join(programs(), "enclave-lab"), append([]string{"submit"}, args...)...)
	var o, e strings.Builder
	c.Stdout, c.Stderr = &o, &e
	err = c.Run()
	return o.String(), e.String(), err
}

func TestAnMPIJobRunsInThePlainPartition(t *testing.T) {
	out, _ := submitProgram(t, "--user", "bob", "--partition", "cpu", "--nodes", "1", "--", mpiProgram("pingpong"))
	assert.Contains(t, out, "rank 0 of 1 on c1")
}

func TestP1AnMPIJobRunsInAnEnclave(t *testing.T) {
	for range 2 {
		out, _ := submitProgram(t, "--user", "alice", "--nodes", "3", "--", mpiProgram("pingpong"))
		assert.Contains(t, out, "rank 0 of 3 on n1, sum of ranks 3")
		assert.Contains(t, out, "rank 2 of 3 on n3, sum of ranks 3")
		assert.Contains(t, out, "0 <-> 2: 1048576 bytes")
		idle(t)
	}
}

func TestTheLabIsIdempotent(t *testing.T) {
	before, err := os.ReadFile(filepath.Join(lab.Directory(), "lab.json"))
	require.NoError(t, err)
	c := exec.CommandContext(t.Context(), filepath.Join(programs(), "enclave-lab"), up(3)...)
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Contains(t, string(out), "up already")
	after, err := os.ReadFile(filepath.Join(lab.Directory(), "lab.json"))
	require.NoError(t, err)
	assert.Equal(t, string(before), string(after))
	c = exec.CommandContext(t.Context(), filepath.Join(programs(), "enclave-lab"), up(2)...)
	out, err = c.CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "one with 3 nodes is up; run enclave-lab down first")
}
