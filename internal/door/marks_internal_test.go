package door

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

func TestTheFenceKnowsTheMarksOfAllJobs(t *testing.T) {
	t.Parallel()
	for _, job := range []uint32{1, 4711, 1<<26 - 1, 1 << 26, ^uint32(0)} {
		assert.Equal(t, uint32(fence.MarkFamily), mesh.Mark(job)&fence.MarkMask, "job %d", job)
		assert.NotEqual(t, uint32(fence.MarkFamily), mesh.FwMark(job)&fence.MarkMask, "WireGuard's own packets")
	}
}
