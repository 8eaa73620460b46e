package roster_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
)

// crowd is a job of n nodes, with keys that nothing can compress.
func crowd(n int) []enclave.Peer {
	random := rand.NewChaCha8([32]byte{1})
	list := make([]enclave.Peer, n)
	for i := range list {
		a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		list[i] = enclave.Peer{Node: fmt.Sprintf("n%05d", i), Addresses: []netip.Addr{a}, Endpoint: netip.AddrPortFrom(a, 51820)}
		_, _ = random.Read(list[i].Key[:])
	}
	list[0].Addresses = append(list[0].Addresses, netip.MustParseAddr("fd00::1"))
	return list
}

func deflated(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.BestCompression)
	require.NoError(t, err)
	_, err = z.Write(b)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return out.Bytes()
}

func TestPeersArePackedAndUnpacked(t *testing.T) {
	t.Parallel()
	t.Run("the peers of a large job survive, and take little more than their keys", func(t *testing.T) {
		t.Parallel()
		peers := crowd(10000)
		b, err := roster.Pack(peers)
		require.NoError(t, err)
		back, err := roster.Unpack(b)
		require.NoError(t, err)
		require.Equal(t, peers, back)
		assert.Less(t, len(b), len(peers)*48)
	})
	t.Run("nobody is packed, too", func(t *testing.T) {
		t.Parallel()
		b, err := roster.Pack(nil)
		require.NoError(t, err)
		back, err := roster.Unpack(b)
		require.NoError(t, err)
		assert.Empty(t, back)
	})
	t.Run("a peer with an address of one host's interface is not packed", func(t *testing.T) {
		t.Parallel()
		bad := crowd(1)
		bad[0].Addresses[0] = netip.MustParseAddr("fe80::1%eth0")
		_, err := roster.Pack(bad)
		require.Error(t, err)
	})
	good, err := roster.Pack(crowd(3))
	require.NoError(t, err)
	for name, b := range map[string][]byte{
		"nothing at all":              nil,
		"what was cut off":            good[:len(good)-4],
		"what is not deflated":        []byte("peers"),
		"a length beyond the end":     deflated(t, []byte{0, 0, 0, 9, 1}),
		"half a length":               deflated(t, []byte{0, 0, 0}),
		"a leaf of another kind":      deflated(t, []byte{0, 0, 0, 2, 'n', '1'}),
		"a gigabyte in a few hundred": deflated(t, make([]byte, 65<<20)),
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			_, err := roster.Unpack(b)
			require.Error(t, err)
		})
	}
}

func FuzzUnpack(f *testing.F) {
	for _, n := range []int{0, 1, 3} {
		b, err := roster.Pack(crowd(max(n, 1))[:n])
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add(deflated(f, []byte{0, 0, 0, 9, 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		peers, err := roster.Unpack(b)
		if err != nil {
			return
		}
		again, err := roster.Pack(peers)
		require.NoError(t, err, "what was read can be written")
		back, err := roster.Unpack(again)
		require.NoError(t, err)
		require.Equal(t, peers, back)
	})
}
