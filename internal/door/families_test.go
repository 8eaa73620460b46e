package door

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

func TestFabricsRefusal(t *testing.T) {
	t.Parallel()
	assert.Nil(t, fabricsRefusal(nil))
	r := fabricsRefusal([]string{"/dev/hfi1_0", "/dev/hfi1_1"})
	require.NotNil(t, r)
	assert.Equal(t, codeFabric, r.Code)
	assert.Equal(t, enclave.FaultNode, r.Fault)
	assert.Contains(t, r.Reason, "/dev/hfi1_0, /dev/hfi1_1")
}

func TestFamilies(t *testing.T) {
	t.Parallel()
	t.Run("P2: a kernel that opens none is fine", func(t *testing.T) {
		t.Parallel()
		assert.Nil(t, familiesRefusal(nil, nil))
	})
	t.Run("P2: what the site allows is fine", func(t *testing.T) {
		t.Parallel()
		assert.Nil(t, familiesRefusal([]string{"smc", "vsock"}, []string{"vsock", "smc", "rds"}))
	})
	t.Run("P2: a family that passes by the fence breaks the node", func(t *testing.T) {
		t.Parallel()
		r := familiesRefusal([]string{"vsock", "smc", "rds"}, []string{"rds"})
		require.NotNil(t, r)
		assert.Equal(t, codeFamilies, r.Code)
		assert.Equal(t, enclave.FaultNode, r.Fault)
		assert.Contains(t, r.Reason, "smc, vsock")
		assert.Contains(t, r.Fix, "modprobe.d/slurm-enclave.conf of the samples")
		assert.NotContains(t, r.Reason, "rds")
	})
}
