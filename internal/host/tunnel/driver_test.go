package tunnel_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// TestDriver shows what the kernel's WireGuard and the keeper's do not have in common.
func TestDriver(t *testing.T) {
	l := enclaveUp(t)
	n1, n2 := l.nodes[0], l.nodes[1]
	kernel := l.driver == mesh.DriverKernel
	t.Logf("driver %s", l.driver)
	serve(t, n2.Node, user, "udp", "10.77.0.2:7000")
	talk := func(t *testing.T, atMost time.Duration) bool {
		t.Helper()
		return act(t, n1.Node, user, role{Proto: "udp", Address: "10.77.0.2:7000", Payload: secret}).says("got", atMost)
	}
	t.Run("the interface is of the driver's kind", func(t *testing.T) {
		n1.Must(func() error {
			have, err := link.Kernel{}.Link(t.Context(), device)
			if err == nil && have.Driver != l.driver {
				err = fmt.Errorf("it is %s", have.Driver)
			}
			return err
		})
	})
	t.Run("the kernel's packets carry the uid of the socket inside, the keeper's root's", func(t *testing.T) {
		n1.Run("nft", "add table inet look; add chain inet look out { type filter hook output priority 5; }")
		outer := fmt.Sprintf("add rule inet look out oifname eth0 udp sport 51820 meta mark %#x ", mesh.FwMark(job))
		n1.Run("nft", "add counter inet look users; add counter inet look roots")
		n1.Run("nft", outer+"meta skuid 2001 counter name users")
		n1.Run("nft", outer+"meta skuid 0 counter name roots")
		require.True(t, talk(t, 10*time.Second))
		seen := func(counter string) bool {
			return !strings.Contains(n1.Run("nft", "list", "counter", "inet", "look", counter), "packets 0 ")
		}
		assert.Equal(t, kernel, seen("users"))
		assert.True(t, kernel || seen("roots"))
		t.Run("control: a rule for the uid that does not know the mark cuts the kernel's tunnel", func(t *testing.T) {
			n1.Run("nft", "insert rule inet look out oifname eth0 meta skuid 2001 drop")
			assert.Equal(t, !kernel, talk(t, 3*time.Second))
		})
		n1.Run("nft", "delete table inet look")
	})
	t.Run("the keeper's death ends its own tunnel and leaves the kernel's", func(t *testing.T) {
		require.NoError(t, unix.Kill(n1.pid, unix.SIGKILL))
		var status unix.WaitStatus
		_, err := unix.Wait4(n1.pid, &status, 0, nil)
		require.NoError(t, err)
		if !kernel { // the kernel takes it away with the process's last descriptor
			require.Eventually(t, func() bool { return !n1.hasDevice() }, seconds(), 10*time.Millisecond)
		}
		assert.Equal(t, kernel, n1.hasDevice())
		l.wire.clear()
		assert.Equal(t, kernel, talk(t, 3*time.Second))
		assert.Zero(t, l.wire.holds(secret))
	})
	t.Run("what is left is taken down", func(t *testing.T) {
		n1.down(t)
		assert.Equal(t, n1.before, n1.state())
	})
}

// TestTheKeepersTimeEnds: GO counts on no more at that moment, and the tunnel is gone with it.
func TestTheKeepersTimeEnds(t *testing.T) {
	l := build(t)
	n := l.nodes[0]
	n.lifetime = 4 * time.Second
	n.up(t)
	require.True(t, n.hasDevice())
	require.Eventually(t, func() bool { return !n.hasDevice() }, 20*time.Second, 50*time.Millisecond)
	n.down(t)
	assert.Equal(t, n.before, n.state())
}

// TestManyPeers: a long list goes to WireGuard in several messages, and none of them undoes
// another's.
func TestManyPeers(t *testing.T) {
	l := build(t)
	n := l.nodes[0]
	for i := range 100 {
		a := netip.AddrFrom4([4]byte{10, 78, 0, byte(1 + i)})
		n.mesh.Tunnel.Peers = append(n.mesh.Tunnel.Peers, mesh.Peer{
			Peer: enclave.Peer{Node: fmt.Sprintf("m%d", i), Addresses: []netip.Addr{a}, Key: enclave.PublicKey{7, byte(i)}, Endpoint: netip.AddrPortFrom(a, 51820)},
			PSK:  enclave.NewSecret(make([]byte, 32)),
		})
	}
	n.up(t) // reads all of it back
	count := func() (peers int) {
		n.Must(func() error {
			s, err := link.Kernel{}.State(t.Context(), device)
			peers = len(s.Peers)
			return err
		})
		return peers
	}
	assert.Equal(t, 102, count())
	t.Run("a shorter list takes the place of a longer one", func(t *testing.T) {
		n.mesh.Tunnel.Peers = n.mesh.Tunnel.Peers[:40]
		n.Must(func() error { return mesh.Up(t.Context(), link.Kernel{}.Mesh(), n.mesh) })
		assert.Equal(t, 40, count())
	})
}
