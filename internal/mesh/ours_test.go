package mesh_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

func TestOurs(t *testing.T) {
	t.Run("a mesh's own rules and devices are known again", func(t *testing.T) {
		for _, job := range []uint32{1, 4711, 1<<26 - 1, 1 << 31} {
			assert.True(t, mesh.Rule{Mark: mesh.Mark(job)}.Ours())
			assert.True(t, mesh.IsDevice(mesh.Name(job)))
			assert.True(t, mesh.IsTable(mesh.Table(job)))
		}
	})
	t.Run("others' are not", func(t *testing.T) {
		for _, mark := range []uint32{0, 0x4d, mesh.FwMark(7)} {
			assert.False(t, mesh.Rule{Mark: mark}.Ours())
		}
		for _, name := range []string{"", "enc", "encap0", "eth0", "wg0"} {
			assert.False(t, mesh.IsDevice(name), name)
		}
	})
}
