package mesh_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh/meshtest"
)

func device(t *testing.T, spoil ...func(*mesh.Input)) mesh.Device {
	t.Helper()
	in := input()
	for _, f := range spoil {
		f(&in)
	}
	d, err := mesh.Plan(in)
	require.NoError(t, err)
	return d
}

func TestUp(t *testing.T) {
	t.Run("the kernel then holds the plan and nothing else", func(t *testing.T) {
		h := &meshtest.Host{KernelWireGuard: true}
		d := device(t)
		require.NoError(t, mesh.Up(t.Context(), h.Kernel(), d))
		assert.Equal(t, d.String(), h.String())
	})
	t.Run("twice is as once", func(t *testing.T) {
		h := &meshtest.Host{KernelWireGuard: true}
		d := device(t)
		require.NoError(t, mesh.Up(t.Context(), h.Kernel(), d))
		require.NoError(t, mesh.Up(t.Context(), h.Kernel(), d))
		assert.Equal(t, d.String(), h.String())
	})
	t.Run("a smaller roster takes the routes of the lost peer away", func(t *testing.T) {
		h := &meshtest.Host{KernelWireGuard: true}
		require.NoError(t, mesh.Up(t.Context(), h.Kernel(), device(t)))
		d := device(t, func(in *mesh.Input) { in.Peers = in.Peers[1:] })
		require.NoError(t, mesh.Up(t.Context(), h.Kernel(), d))
		assert.Equal(t, d.String(), h.String())
		assert.NotContains(t, h.String(), "10.0.0.3")
	})
	t.Run("the peers are there before the link is up and the link before the rules", func(t *testing.T) {
		h := &meshtest.Host{KernelWireGuard: true}
		require.NoError(t, mesh.Up(t.Context(), h.Kernel(), device(t)))
		acts := strings.Join(h.Log, "\n")
		assert.Regexp(t, `(?s)^put link.*configure.*put link.*add route.*add rule`, acts)
	})
	t.Run("the keeper's device is waited for, not made", func(t *testing.T) {
		h := &meshtest.Host{}
		d := device(t, func(in *mesh.Input) { in.Driver = mesh.DriverKeeper })
		refusal, ok := enclave.AsRefusal(mesh.Up(t.Context(), h.Kernel(), d))
		require.True(t, ok)
		assert.Equal(t, mesh.CodeNoDevice, refusal.Code)
		h.Keeper(d.Link.Name)
		require.NoError(t, mesh.Up(t.Context(), h.Kernel(), d))
		assert.Equal(t, d.String(), h.String())
	})
	t.Run("a device of another kind under our name is refused", func(t *testing.T) {
		h := &meshtest.Host{KernelWireGuard: true}
		h.Keeper(mesh.Name(4711))
		refusal, ok := enclave.AsRefusal(mesh.Up(t.Context(), h.Kernel(), device(t)))
		require.True(t, ok)
		assert.Equal(t, mesh.CodeReadBack, refusal.Code)
	})
	for _, act := range []string{"configure", "add route", "add rule"} {
		t.Run("a kernel that lies is found out: "+act, func(t *testing.T) {
			h := &meshtest.Host{KernelWireGuard: true, Forget: map[string]bool{act: true}}
			refusal, ok := enclave.AsRefusal(mesh.Up(t.Context(), h.Kernel(), device(t)))
			require.True(t, ok)
			assert.Equal(t, mesh.CodeReadBack, refusal.Code)
		})
	}
}

func TestDown(t *testing.T) {
	t.Run("on a node where nothing ever was", func(t *testing.T) {
		h := &meshtest.Host{}
		require.NoError(t, mesh.Down(t.Context(), h.Kernel(), 4711))
		assert.Empty(t, h.String())
	})
	for _, act := range []string{"put link", "configure", "add route", "add rule"} {
		t.Run("after an Up that broke at: "+act, func(t *testing.T) {
			h := &meshtest.Host{KernelWireGuard: true, Fail: map[string]error{act: errors.New("broken")}}
			require.ErrorContains(t, mesh.Up(t.Context(), h.Kernel(), device(t)), "broken")
			h.Fail = nil
			require.NoError(t, mesh.Down(t.Context(), h.Kernel(), 4711))
			assert.Empty(t, h.String())
		})
	}
	t.Run("after the keeper died", func(t *testing.T) {
		h := &meshtest.Host{}
		d := device(t, func(in *mesh.Input) { in.Driver = mesh.DriverKeeper })
		h.Keeper(d.Link.Name)
		require.NoError(t, mesh.Up(t.Context(), h.Kernel(), d))
		h.KeeperDies(d.Link.Name)
		require.NoError(t, mesh.Down(t.Context(), h.Kernel(), 4711))
		assert.Empty(t, h.String())
	})
	t.Run("another job's mesh stays", func(t *testing.T) {
		h := &meshtest.Host{KernelWireGuard: true}
		other := device(t, func(in *mesh.Input) { in.Key.Job, in.UID, in.SubUIDs = 4712, 2002, nil })
		require.NoError(t, mesh.Up(t.Context(), h.Kernel(), other))
		require.NoError(t, mesh.Up(t.Context(), h.Kernel(), device(t)))
		require.NoError(t, mesh.Down(t.Context(), h.Kernel(), 4711))
		assert.Equal(t, other.String(), h.String())
	})
	t.Run("peers are never deleted one by one", func(t *testing.T) {
		h := &meshtest.Host{KernelWireGuard: true}
		require.NoError(t, mesh.Up(t.Context(), h.Kernel(), device(t)))
		h.Log = nil
		require.NoError(t, mesh.Down(t.Context(), h.Kernel(), 4711))
		assert.NotContains(t, strings.Join(h.Log, "\n"), "configure")
		assert.Contains(t, h.Log[0], "delete link")
	})
	for _, act := range []string{"delete link", "delete rule"} {
		t.Run("what stays is reported: "+act, func(t *testing.T) {
			h := &meshtest.Host{KernelWireGuard: true}
			require.NoError(t, mesh.Up(t.Context(), h.Kernel(), device(t)))
			h.Forget = map[string]bool{act: true}
			refusal, ok := enclave.AsRefusal(mesh.Down(t.Context(), h.Kernel(), 4711))
			require.True(t, ok)
			assert.Equal(t, mesh.CodeLeftover, refusal.Code)
		})
	}
	t.Run("one failure does not keep the rest alive", func(t *testing.T) {
		h := &meshtest.Host{KernelWireGuard: true}
		require.NoError(t, mesh.Up(t.Context(), h.Kernel(), device(t)))
		h.Fail = map[string]error{"delete link": errors.New("busy")}
		require.ErrorContains(t, mesh.Down(t.Context(), h.Kernel(), 4711), "busy")
		assert.NotContains(t, h.String(), "rule inet")
		assert.NotContains(t, h.String(), "route ")
	})
}

func TestMode(t *testing.T) {
	for kernel, want := range map[bool]mesh.Driver{true: mesh.DriverKernel, false: mesh.DriverKeeper} {
		got, err := mesh.Mode(t.Context(), (&meshtest.Host{KernelWireGuard: kernel}).Kernel())
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	t.Run("not knowing is an error, not a choice", func(t *testing.T) {
		h := &meshtest.Host{Fail: map[string]error{"available": errors.New("netlink is away")}}
		_, err := mesh.Mode(t.Context(), h.Kernel())
		require.ErrorContains(t, err, "netlink is away")
	})
}

func TestSecretsAreNotPrinted(t *testing.T) {
	d := device(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, key := range []string{strings.Repeat("w", 5), strings.Repeat("77", 5), "119 119 119", "0x77, 0x77", strings.Repeat("53", 5)} {
			assert.NotContains(t, fmt.Sprintf(verb, d), key, verb)
		}
	}
}

func ExamplePlan() {
	own := peer(1, "10.0.0.1")
	d, err := mesh.Plan(mesh.Input{
		Key: enclave.JobKey{Cluster: "c", Job: 7}, UID: 2001, Own: own.Peer,
		Peers:      []mesh.Peer{peer(2, "10.0.0.2")},
		PrivateKey: secret(1), ListenPort: 51820, SlurmdPort: 6818, MTU: 1420, Driver: mesh.DriverKernel,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.Link)
	for _, r := range d.Rules {
		fmt.Println(r)
	}
	// Output:
	// link enc7 type wireguard mtu 1420 rp_filter 2 up
	//   address 10.0.0.1/32
	// rule inet pref 9900 fwmark 0xac000007 lookup 268435463
	// rule inet pref 9901 fwmark 0xac000007/0 uidrange 2001-2001 ipproto tcp dport 6818 lookup main
	// rule inet pref 9902 fwmark 0xac000007/0 uidrange 2001-2001 lookup 268435463
}

func TestStateBytes(t *testing.T) {
	s := mesh.State{Peers: []mesh.PeerState{{Received: 1, Sent: 2}, {Received: 10, Sent: 20, Endpoint: netip.AddrPort{}}}}
	received, sent := s.Bytes()
	assert.Equal(t, []int64{11, 22}, []int64{received, sent})
}
