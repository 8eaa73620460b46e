package mesh_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh/meshtest"
)

func TestNarrow(t *testing.T) {
	t.Parallel()
	laid := func(t *testing.T) (*meshtest.Host, mesh.Device, []mesh.Peer) {
		t.Helper()
		h, d := &meshtest.Host{KernelWireGuard: true}, device(t)
		require.NoError(t, mesh.Up(t.Context(), h.Kernel(), d))
		var stay []mesh.Peer
		for _, p := range d.Tunnel.Peers[1:] {
			p.PSK = enclave.NewSecret(bytes.Repeat([]byte{42}, 32))
			stay = append(stay, p)
		}
		return h, d, stay
	}
	t.Run("a node that is gone is no peer, and the others have new keys", func(t *testing.T) {
		t.Parallel()
		h, d, stay := laid(t)
		gone := []enclave.PublicKey{d.Tunnel.Peers[0].Key}
		require.NoError(t, mesh.Narrow(t.Context(), h.Kernel(), input().Key.Job, gone, stay))
		s, err := h.State(t.Context(), d.Link.Name)
		require.NoError(t, err)
		require.Len(t, s.Peers, len(stay))
		for _, p := range s.Peers {
			assert.NotEqual(t, gone[0], p.Key)
			assert.Equal(t, byte(42), p.PSK.Bytes()[0])
		}
		routes, err := h.Routes(t.Context(), mesh.Table(input().Key.Job))
		require.NoError(t, err)
		assert.Len(t, routes, len(d.Routes), "what is sent to it still goes to the interface, and ends there")
		require.NoError(t, mesh.Narrow(t.Context(), h.Kernel(), input().Key.Job, gone, stay), "twice is as once")
	})
	t.Run("what the interface does not do is seen", func(t *testing.T) {
		t.Parallel()
		h, d, stay := laid(t)
		h.Forget = map[string]bool{"narrow": true}
		require.ErrorContains(t, mesh.Narrow(t.Context(), h.Kernel(), input().Key.Job, []enclave.PublicKey{d.Tunnel.Peers[0].Key}, nil), "still holds peer")
		if len(stay) > 0 {
			require.ErrorContains(t, mesh.Narrow(t.Context(), h.Kernel(), input().Key.Job, nil, stay), "does not hold the new key")
		}
	})
	t.Run("cut takes the interface, and may find none", func(t *testing.T) {
		t.Parallel()
		h, d, _ := laid(t)
		require.NoError(t, mesh.Cut(t.Context(), h.Kernel(), input().Key.Job))
		l, err := h.Link(t.Context(), d.Link.Name)
		require.NoError(t, err)
		assert.Empty(t, l.Name)
		require.NoError(t, mesh.Cut(t.Context(), h.Kernel(), input().Key.Job))
	})
}
