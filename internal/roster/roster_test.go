package roster_test

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
)

func peers(n int) []enclave.Peer {
	out := make([]enclave.Peer, n)
	for i := range out {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		out[i] = enclave.Peer{
			Node: fmt.Sprintf("n%d", i), Addresses: []netip.Addr{a},
			Endpoint: netip.AddrPortFrom(a, 51820), Key: enclave.PublicKey{byte(i), byte(i >> 8), 1},
		}
	}
	return out
}

func header(t testing.TB, ps []enclave.Peer) enclave.RosterHeader {
	t.Helper()
	leaves, err := roster.Digests(ps)
	require.NoError(t, err)
	return enclave.RosterHeader{
		JobKey: enclave.JobKey{Cluster: "c1", Job: 4711, Restart: 2}, Epoch: 1, SubmitHost: "login1",
		Tenant: "oncology", Subtree: "tenants/oncology", RootFID: enclave.FID{Sequence: 0x200000401, Object: 1}, PolicyDigest: enclave.Digest{1, 2, 3}, Lifetime: 3600,
		Simulated: true, Weak: true, Size: uint32(len(ps)), Root: roster.Root(leaves),
	}
}

func TestHeaderReadsBackAndChangesShow(t *testing.T) {
	t.Parallel()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	h := header(t, peers(3))
	s, err := roster.Sign(key, h)
	require.NoError(t, err)
	got, err := roster.Verify(pub, s)
	require.NoError(t, err)
	assert.Equal(t, h, got)

	change := map[string]func(*enclave.RosterHeader){
		"cluster": func(h *enclave.RosterHeader) { h.Cluster = "c2" }, "job": func(h *enclave.RosterHeader) { h.Job++ },
		"restart": func(h *enclave.RosterHeader) { h.Restart++ }, "epoch": func(h *enclave.RosterHeader) { h.Epoch++ },
		"submit host": func(h *enclave.RosterHeader) { h.SubmitHost = "x" }, "tenant": func(h *enclave.RosterHeader) { h.Tenant = "x" },
		"subtree": func(h *enclave.RosterHeader) { h.Subtree = "" }, "policy": func(h *enclave.RosterHeader) { h.PolicyDigest[31]++ },
		"lifetime": func(h *enclave.RosterHeader) { h.Lifetime++ }, "simulated": func(h *enclave.RosterHeader) { h.Simulated = false },
		"weak": func(h *enclave.RosterHeader) { h.Weak = false }, "size": func(h *enclave.RosterHeader) { h.Size++ },
		"root": func(h *enclave.RosterHeader) { h.Root[0]++ },
	}
	for name, f := range change {
		t.Run("a changed "+name+" is refused", func(t *testing.T) {
			t.Parallel()
			c := h
			f(&c)
			b, err := roster.EncodeHeader(c)
			require.NoError(t, err)
			require.NotEqual(t, s.Header, b, "the field is not encoded")
			_, err = roster.Verify(pub, roster.Signed{Header: b, Signature: s.Signature})
			assert.ErrorContains(t, err, "signature")
		})
	}
	t.Run("another verifier's signature is refused", func(t *testing.T) {
		t.Parallel()
		_, other, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		forged, err := roster.Sign(other, h)
		require.NoError(t, err)
		_, err = roster.Verify(pub, forged)
		assert.Error(t, err)
	})
	t.Run("no key verifies nothing", func(t *testing.T) {
		t.Parallel()
		_, err := roster.Verify(nil, s)
		assert.Error(t, err)
	})
}

func TestNeighbouringFieldsDoNotFlowIntoEachOther(t *testing.T) {
	t.Parallel()
	a, err := roster.EncodeHeader(enclave.RosterHeader{Tenant: "ab", Subtree: "c"})
	require.NoError(t, err)
	b, err := roster.EncodeHeader(enclave.RosterHeader{Tenant: "a", Subtree: "bc"})
	require.NoError(t, err)
	assert.NotEqual(t, a, b)
}

func TestEncodingStaysAsPublished(t *testing.T) {
	t.Parallel()
	b, err := roster.EncodeHeader(enclave.RosterHeader{JobKey: enclave.JobKey{Cluster: "c", Job: 1}, Epoch: 1, Lifetime: 2, Size: 1})
	require.NoError(t, err)
	const want = "736c75726d2d656e636c6176652f726f737465722f7631" + "00010000000163" + "00020000000400000001" + "00030000000400000000" +
		"00040000000400000001" + "000500000000" + "000600000000" + "000700000000" +
		"000800000020" + "0000000000000000000000000000000000000000000000000000000000000000" +
		"00090000000400000002" + "000a0000000100" + "000b0000000100" + "000c0000000400000001" +
		"000d00000020" + "0000000000000000000000000000000000000000000000000000000000000000"
	assert.Equal(t, want, hex.EncodeToString(b))
}

func TestDecodeIsStrict(t *testing.T) {
	t.Parallel()
	good, err := roster.EncodeHeader(header(t, peers(2)))
	require.NoError(t, err)
	flagTwo := append([]byte(nil), good...)
	flagTwo[len(flagTwo)-6-16-6-32-10-1] = 2 // the value of weak
	for name, b := range map[string][]byte{
		"nothing": nil, "one byte more": append(append([]byte(nil), good...), 0), "one byte less": good[:len(good)-1],
		"another tag": append([]byte("slurm-enclave/roster/v2"), good[23:]...), "a flag that is neither": flagTwo,
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			_, err := roster.DecodeHeader(b)
			assert.Error(t, err)
		})
	}
}

func FuzzDecodeHeader(f *testing.F) {
	good, err := roster.EncodeHeader(header(f, peers(2)))
	require.NoError(f, err)
	f.Add(good)
	f.Add(good[:40])
	f.Add([]byte("slurm-enclave/roster/v1\x00\x01\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := roster.DecodeHeader(b)
		if err != nil {
			assert.Equal(t, enclave.RosterHeader{}, h)
			return
		}
		again, err := roster.EncodeHeader(h)
		require.NoError(t, err)
		assert.Equal(t, b, again, "two encodings of one header")
	})
}

func TestAddressesWithoutOneMeaningAreRefused(t *testing.T) {
	t.Parallel()
	for _, a := range []netip.Addr{{}, netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("::ffff:10.0.0.1")} {
		p := peers(1)[0]
		p.Addresses = []netip.Addr{a}
		_, err := roster.LeafDigest(p)
		assert.Error(t, err, a.String())
	}
}

func TestMerkleTreeIsRFC6962(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", roster.Root(nil).String())
	for n := 1; n <= 17; n++ {
		leaves, err := roster.Digests(peers(n))
		require.NoError(t, err)
		root := roster.Root(leaves)
		for i := range leaves {
			path, err := roster.NewTree(leaves).Prove(i)
			require.NoError(t, err)
			size, at := uint32(n), uint32(i)
			require.NoError(t, roster.CheckInclusion(root, size, at, leaves[i], path), "leaf %d of %d", i, n)
			require.Error(t, roster.CheckInclusion(root, size, at, enclave.Digest{9}, path), "a foreign leaf")
			require.Error(t, roster.CheckInclusion(enclave.Digest{}, size, at, leaves[i], path), "a foreign root")
			require.Error(t, roster.CheckInclusion(root, size, at, leaves[i], append(path, enclave.Digest{})), "a longer path")
			require.Error(t, roster.CheckInclusion(root, size, size, leaves[i], path), "an index past the end")
			if len(path) > 0 {
				require.Error(t, roster.CheckInclusion(root, size, at, leaves[i], path[:len(path)-1]), "a shorter path")
			}
			for j := range leaves {
				if j != i {
					require.Error(t, roster.CheckInclusion(root, size, uint32(j), leaves[i], path), "leaf %d as %d of %d", i, j, n)
				}
			}
		}
	}
	_, err := roster.NewTree(nil).Prove(0)
	require.Error(t, err)
}

// slowRoot is the definition of RFC 6962 section 2.1, word by word.
func slowRoot(leaves []enclave.Digest) enclave.Digest {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	left, right := slowRoot(leaves[:k]), slowRoot(leaves[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
}

func TestOneTreeServesAllLeaves(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 5, 64, 65, 127, 1000, 1025} {
		leaves := make([]enclave.Digest, n)
		for i := range leaves {
			leaves[i] = enclave.Digest{byte(i), byte(i >> 8), 7}
		}
		tree := roster.NewTree(leaves)
		assert.Equal(t, slowRoot(leaves), tree.Root(), "%d leaves", n)
		for i := range leaves {
			path, err := tree.Prove(i)
			require.NoError(t, err)
			require.NoError(t, roster.CheckInclusion(tree.Root(), uint32(n), uint32(i), leaves[i], path), "leaf %d of %d", i, n)
		}
		_, err := tree.Prove(n)
		require.Error(t, err)
		_, err = tree.Prove(-1)
		require.Error(t, err)
	}
}

func TestPeersAreExactlyTheSignedOnes(t *testing.T) {
	t.Parallel()
	ps := peers(4)
	h := header(t, ps)
	require.NoError(t, roster.CheckPeers(h, ps))
	swapped := peers(4)
	swapped[1], swapped[2] = swapped[2], swapped[1]
	key := peers(4)
	key[3].Key[0]++
	address := peers(4)
	address[0].Addresses = append(address[0].Addresses, netip.MustParseAddr("10.9.9.9"))
	port := peers(4)
	port[0].Endpoint = netip.AddrPortFrom(port[0].Endpoint.Addr(), 1)
	for name, other := range map[string][]enclave.Peer{
		"swapped": swapped, "one fewer": ps[:3], "one more": peers(5), "another key": key, "another address": address, "another port": port,
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			assert.Error(t, roster.CheckPeers(h, other))
		})
	}
	t.Run("one node twice is refused", func(t *testing.T) {
		t.Parallel()
		twice := []enclave.Peer{ps[0], ps[0]}
		assert.ErrorContains(t, roster.CheckPeers(header(t, twice), twice), "twice")
	})
}

func hpkeKey(t testing.TB) hpke.PrivateKey {
	t.Helper()
	k, err := hpke.MLKEM768X25519().GenerateKey()
	require.NoError(t, err)
	return k
}
