//go:build cgo

package spanktest_test

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPrivileges(t *testing.T) {
	t.Run("a step on an enclave node gains nothing from setuid programs", func(t *testing.T) {
		o := newNode(t).Step(nil)
		assert.Zero(t, o.Gate)
		assert.True(t, o.Dropped)
	})
	t.Run("unless plugstack.conf allows it", func(t *testing.T) {
		n := newNode(t)
		n.Word = "setuid=allow"
		o := n.Step(nil)
		assert.Zero(t, o.Gate)
		assert.False(t, o.Dropped)
		assert.True(t, o.Left)
		assert.Empty(t, o.Errors)
	})
	t.Run("a step has a session keyring of its own, or does not start", func(t *testing.T) {
		for errno, gate := range map[syscall.Errno]int{0: 0, syscall.ENOSYS: 0, syscall.EDQUOT: -1} {
			n := newNode(t)
			n.Keyring = errno
			o := n.Step(nil)
			assert.Equal(t, gate, o.Gate, errno)
			assert.Equal(t, errno == 0, o.Left)
			assert.True(t, o.Dropped)
		}
	})
	t.Run("another word of plugstack.conf does not allow it", func(t *testing.T) {
		n := newNode(t)
		n.Word = "setuid=allow2"
		assert.True(t, n.Step(nil).Dropped)
	})
	t.Run("a kernel that does not let them go starts no task", func(t *testing.T) {
		n := newNode(t)
		n.Stuck = true
		o := n.Step(nil)
		assert.Equal(t, -1, o.Gate)
		assert.Contains(t, o.Errors, "E115")
	})
	t.Run("other nodes' steps keep them", func(t *testing.T) {
		n := newNode(t)
		require.NoError(t, os.Remove(n.Marker))
		o := n.Step(nil)
		assert.Zero(t, o.Gate)
		assert.False(t, o.Dropped)
		assert.False(t, o.Left)
	})
}
