//go:build cgo

package spanktest_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/spank/spanktest"
)

// Slurm runs a user's task epilog behind a task that the gate has refused.
func TestHold(t *testing.T) {
	t.Run("a step of an admitted job starts programs", func(t *testing.T) {
		o := newNode(t).Step(nil)
		assert.Zero(t, o.Gate)
		assert.False(t, o.Held)
	})
	t.Run("a step without GO starts none", func(t *testing.T) {
		n := newNode(t)
		require.NoError(t, os.Remove(n.file("go")))
		for _, step := range []uint32{0, 5, 0xfffffffb, 0xfffffffa} {
			n.StepID = step
			o := n.Step(nil)
			assert.Equal(t, -1, o.Gate)
			assert.True(t, o.Held, "%#x", step)
		}
	})
	t.Run("nor does one whose environment can't be set, or whose job Slurm does not name", func(t *testing.T) {
		n := newNode(t)
		n.EnvFail = true
		assert.True(t, n.Step(nil).Held)
		n = newNode(t)
		n.JobUnknown = true
		assert.True(t, n.Step(nil).Held)
	})
	t.Run("setuid=allow changes nothing in it", func(t *testing.T) {
		n := newNode(t)
		require.NoError(t, os.Remove(n.file("go")))
		n.Word = "setuid=allow"
		assert.True(t, n.Step(nil).Held)
	})
	t.Run("the extern step has no tasks, and helpers of Slurm's", func(t *testing.T) {
		n := newNode(t)
		require.NoError(t, os.Remove(n.file("go")))
		n.StepID = 0xfffffffc
		assert.False(t, n.Step(nil).Held)
	})
	t.Run("other nodes' steps are let alone", func(t *testing.T) {
		n := newNode(t)
		require.NoError(t, os.Remove(n.Marker))
		assert.False(t, n.Step(nil).Held)
	})
	t.Run("a kernel that does not do it is named, and drains nothing", func(t *testing.T) {
		n := newNode(t)
		require.NoError(t, os.Remove(n.file("go")))
		n.Holdless = true
		o := n.Step(nil)
		assert.Zero(t, o.PostOpt)
		assert.Equal(t, -1, o.Gate)
		assert.Contains(t, o.Errors, "its task epilog may run")
	})
	t.Run("the kernel starts no program for who is held, nor for its children", func(t *testing.T) {
		assert.Subset(t, spanktest.Programs(false), []string{"execve", "execveat", "grandchild"}, "control")
		assert.Empty(t, spanktest.Programs(true))
	})
}
