//go:build vm

package vmtest_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// lose takes a module away from a machine's kernel until the test ends.
func (n *node) lose(t *testing.T, module string) {
	t.Helper()
	n.Run(t, "sh", "-ec", "rmmod "+module+" || ! grep -q ^"+module+" /proc/modules; cd /lib/modules/*/; mv $(find . -name "+module+".ko) /root/")
	t.Cleanup(func() {
		n.Run(t, "sh", "-ec", "cd /lib/modules/*/; mv /root/"+module+".ko $(sed -n 's/^\\(.*\\/"+module+".ko\\):.*/\\1/p' modules.dep)")
	})
}

// TestP2KernelAndKeeperTalk: one machine's kernel has WireGuard and the other's has not.
func TestP2KernelAndKeeperTalk(t *testing.T) {
	f := boot(t)
	n1, n2, n3 := f.nodes[0], f.nodes[1], f.nodes[2]
	n3.lose(t, "wireguard")
	n1.up(t)
	n2.up(t)
	n3.upWith(t, mesh.DriverKeeper)
	f.prove(t)
	n1.serve(t, user, "tcp", "10.78.0.1:7000")
	n3.serve(t, user, "udp", "[fd78::3]:7000")
	f.wire.Clear()
	assert.True(t, n3.talk(t, "tcp", "10.78.0.1:7000", soon))
	assert.True(t, n1.talk(t, "udp", "[fd78::3]:7000", soon))
	assert.Zero(t, f.wire.Holds(secret))
	onlyWireGuard(t, &f.wire, n1, n3)
	t.Run("all three are as before when it is over", func(t *testing.T) {
		for _, n := range f.nodes {
			n.down(t)
			assert.Equal(t, n.before, n.state(t), n.Name)
		}
	})
}

// crowd is the node's orders in a job of that many peers, which no machine is.
func crowd(t *testing.T, o orders, peers int) orders {
	t.Helper()
	o.Peers = o.Peers[:1:1]
	for i := range peers {
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		require.NoError(t, err)
		a := netip.AddrFrom4([4]byte{10, 79, byte(i / 200), byte(1 + i%200)})
		o.Peers = append(o.Peers, enclave.Peer{
			Node: fmt.Sprintf("m%d", i), Addresses: []netip.Addr{a}, Endpoint: netip.AddrPortFrom(a, 51820),
			Key: enclave.PublicKey(key.PublicKey().Bytes()),
		})
	}
	return o
}

// TestP4AThousandPeers come and go on the kernel's device; the other machines take no part.
func TestP4AThousandPeers(t *testing.T) {
	f := boot(t)
	n1 := f.nodes[0]
	require.Contains(t, n1.do(t, "up", crowd(t, n1.orders, 1000)), "up driver wireguard")
	assert.Contains(t, n1.do(t, "tunnel", nil), "peers 1000 ")
	n1.down(t)
	assert.Equal(t, n1.before, n1.state(t))
}

// TestP2AKernelWithoutTheFencesModules is told by name, and nothing is up then.
func TestP2AKernelWithoutTheFencesModules(t *testing.T) {
	f := boot(t)
	n1 := f.nodes[0]
	n1.lose(t, "nft_objref")
	out, ok := n1.act(t, "up", 0, n1.orders).Wait(patience)
	require.False(t, ok, out)
	assert.Contains(t, out, "nft_objref")
	n1.down(t)
	assert.Equal(t, n1.before, n1.state(t))
}
