package mesh_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh/meshtest"
)

func leaves(d mesh.Device) []enclave.Peer {
	var out []enclave.Peer
	for _, p := range d.Tunnel.Peers {
		out = append(out, p.Peer)
	}
	return out
}

func TestCheck(t *testing.T) {
	t.Run("a plan that travels as JSON holds no secret and is the same", func(t *testing.T) {
		h := device(t).Held()
		b, err := json.Marshal(h)
		require.NoError(t, err)
		var back mesh.Held
		require.NoError(t, json.Unmarshal(b, &back))
		assert.Equal(t, h, back)
	})
	for name, tc := range map[string]struct {
		change func(*testing.T, *meshtest.Host, mesh.Device)
		code   enclave.Code
		says   string
	}{
		"nothing": {change: func(*testing.T, *meshtest.Host, mesh.Device) {}},
		"a rule of the site's behind the job's": {change: func(t *testing.T, h *meshtest.Host, _ mesh.Device) {
			t.Helper()
			require.NoError(t, h.AddRule(t.Context(), mesh.Rule{Family: mesh.IPv4, Priority: 20000, Table: 254}))
		}},
		"a rule of the site's before the job's, for other users": {change: func(t *testing.T, h *meshtest.Host, _ mesh.Device) {
			t.Helper()
			require.NoError(t, h.AddRule(t.Context(), mesh.Rule{
				Family: mesh.IPv4, Priority: 100, UIDs: enclave.UIDRange{Start: 3000, Count: 1}, Table: 254,
			}))
		}},
		"a rule of the site's before the job's": {change: func(t *testing.T, h *meshtest.Host, _ mesh.Device) {
			t.Helper()
			require.NoError(t, h.AddRule(t.Context(), mesh.Rule{Family: mesh.IPv4, Priority: 100, Table: 254}))
		}, code: mesh.CodePath, says: `would leave by "eth0"`},
		"a rule of the site's for sub-uids alone": {change: func(t *testing.T, h *meshtest.Host, _ mesh.Device) {
			t.Helper()
			require.NoError(t, h.AddRule(t.Context(), mesh.Rule{
				Family: mesh.IPv4, Priority: 100, UIDs: enclave.UIDRange{Start: 165536, Count: 9}, Table: 254,
			}))
		}, code: mesh.CodePath},
		"a rule of the job's deleted": {change: func(t *testing.T, h *meshtest.Host, d mesh.Device) {
			t.Helper()
			require.NoError(t, h.DeleteRule(t.Context(), d.Rules[len(d.Rules)-1]))
		}, code: mesh.CodeRouting, says: "missing"},
		"a route of the job's deleted": {change: func(t *testing.T, h *meshtest.Host, d mesh.Device) {
			t.Helper()
			require.NoError(t, h.DeleteRoute(t.Context(), d.Routes[0]))
		}, code: mesh.CodeRouting, says: "missing"},
		"the interface down": {change: func(t *testing.T, h *meshtest.Host, d mesh.Device) {
			t.Helper()
			down := d.Link
			down.Up = false
			require.NoError(t, h.PutLink(t.Context(), down))
		}, code: mesh.CodeInterface, says: "down"},
		"the interface gone": {change: func(t *testing.T, h *meshtest.Host, d mesh.Device) {
			t.Helper()
			require.NoError(t, h.DeleteLink(t.Context(), d.Link.Name))
		}, code: mesh.CodeInterface, says: "no link"},
		"rp_filter strict": {change: func(t *testing.T, h *meshtest.Host, d mesh.Device) {
			t.Helper()
			strict := d.Link
			strict.RPFilter = 1
			require.NoError(t, h.PutLink(t.Context(), strict))
		}, code: mesh.CodeInterface, says: "rp_filter 1"},
		"a stranger among the peers": {change: func(t *testing.T, h *meshtest.Host, d mesh.Device) {
			t.Helper()
			more := d.Tunnel
			more.Peers = append(slices.Clone(more.Peers), peer(9, "10.9.9.9"))
			require.NoError(t, h.Configure(t.Context(), d.Link.Name, more))
		}, code: mesh.CodeTunnel, says: "not on the roster"},
		"a peer with an address more": {change: func(t *testing.T, h *meshtest.Host, d mesh.Device) {
			t.Helper()
			more := d.Tunnel
			more.Peers = slices.Clone(more.Peers)
			more.Peers[0].Addresses = append(slices.Clone(more.Peers[0].Addresses), netip.MustParseAddr("10.9.9.9"))
			require.NoError(t, h.Configure(t.Context(), d.Link.Name, more))
		}, code: mesh.CodeTunnel, says: "10.9.9.9"},
		"another mark": {change: func(t *testing.T, h *meshtest.Host, d mesh.Device) {
			t.Helper()
			other := d.Tunnel
			other.FwMark = 7
			require.NoError(t, h.Configure(t.Context(), d.Link.Name, other))
		}, code: mesh.CodeTunnel},
		"a peer that left the roster": {change: func(t *testing.T, h *meshtest.Host, d mesh.Device) {
			t.Helper()
			require.NoError(t, h.Narrow(t.Context(), d.Link.Name, []enclave.PublicKey{d.Tunnel.Peers[0].Key}, nil))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h, d := &meshtest.Host{KernelWireGuard: true}, device(t)
			require.NoError(t, mesh.Up(t.Context(), h.Kernel(), d))
			tc.change(t, h, d)
			err := mesh.Check(t.Context(), h.Kernel(), d.Held(), leaves(d))
			if tc.code == "" {
				require.NoError(t, err)
				return
			}
			r, ok := enclave.AsRefusal(err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, tc.code, r.Code)
			assert.Equal(t, enclave.FaultNode, r.Fault)
			assert.NotEmpty(t, r.Fix)
			assert.Contains(t, r.Reason, tc.says)
		})
	}
	for _, part := range []string{"read link", "read routes", "read rules", "read state", "lookup"} {
		t.Run("what can't be read is no change: "+part, func(t *testing.T) {
			h, d := &meshtest.Host{KernelWireGuard: true}, device(t)
			require.NoError(t, mesh.Up(t.Context(), h.Kernel(), d))
			h.Fail = map[string]error{part: errors.New("netlink is away")}
			err := mesh.Check(t.Context(), h.Kernel(), d.Held(), leaves(d))
			require.ErrorContains(t, err, "netlink is away")
			_, ok := enclave.AsRefusal(err)
			assert.False(t, ok)
		})
	}
	t.Run("a rule of the site's before the job's stops the prolog, too", func(t *testing.T) {
		h := &meshtest.Host{KernelWireGuard: true}
		require.NoError(t, h.AddRule(t.Context(), mesh.Rule{Family: mesh.IPv4, Priority: 100, Table: 254}))
		r, ok := enclave.AsRefusal(mesh.Up(t.Context(), h.Kernel(), device(t)))
		require.True(t, ok)
		assert.Equal(t, mesh.CodePath, r.Code)
	})
}
