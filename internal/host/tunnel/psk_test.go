package tunnel_test

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
)

// WireGuard's messages, by their first byte.
const (
	initiation = 1
	response   = 2
	transport  = 4
)

// messages counts WireGuard's messages of a kind from one node to another, as the wire saw them.
func (w *wire) messages(kind byte, from, to *node) int {
	n := 0
	for _, p := range w.packets(14) {
		if p.Proto == unix.IPPROTO_UDP && p.DPort == 51820 && p.Src == from.own.Addresses[0] && p.Dst == to.own.Addresses[0] && len(p.Data) > 8 && p.Data[8] == kind {
			n++
		}
	}
	return n
}

// epochOf is a job's epoch as the verifier makes it: one seed, sealed to each node that is in it, and
// opened by that node.
func epochOf(t *testing.T, number uint32, in ...*node) map[*node]enclave.Secret {
	t.Helper()
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	peers := make([]enclave.Peer, len(in))
	for i, n := range in {
		peers[i] = n.own
	}
	leaves, err := roster.Digests(peers)
	require.NoError(t, err)
	signed, err := roster.Sign(signer, enclave.RosterHeader{Epoch: number, Size: uint32(len(in)), Root: roster.Root(leaves)})
	require.NoError(t, err)
	seed := roster.NewSeed()
	opened := map[*node]enclave.Secret{}
	for _, n := range in {
		key, err := hpke.MLKEM768X25519().GenerateKey()
		require.NoError(t, err)
		sealed, err := roster.SealSeed(seed, signed.Digest(), n.Name, key.PublicKey().Bytes())
		require.NoError(t, err)
		opened[n], err = roster.OpenSeed(key, signed.Digest(), n.Name, sealed)
		require.NoError(t, err)
	}
	return opened
}

// shared gives the peers of a node with the preshared keys of a seed, as prolog and keeper derive them.
func (n *node) shared(t *testing.T, l *lab, seed enclave.Secret, epoch uint32) []mesh.Peer {
	t.Helper()
	var out []mesh.Peer
	for _, p := range l.nodes {
		if p == n {
			continue
		}
		psk, err := roster.PairPSK(seed, epoch, n.own.Key, p.own.Key)
		require.NoError(t, err)
		out = append(out, mesh.Peer{Peer: p.own, PSK: psk})
	}
	return out
}

// plans gives a node its peers before it comes up, rotate while it runs.
func (n *node) plans(t *testing.T, l *lab, seed enclave.Secret, epoch uint32) {
	t.Helper()
	n.mesh.Tunnel.Peers = n.shared(t, l, seed, epoch)
}

func (n *node) rotate(t *testing.T, l *lab, seed enclave.Secret, epoch uint32) {
	t.Helper()
	n.Must(func() error {
		return mesh.Narrow(t.Context(), link.Kernel{}.Mesh(), job, nil, n.shared(t, l, seed, epoch))
	})
}

// shook is true when a node has had a handshake with another one.
func (n *node) shook(t *testing.T, with *node) (yes bool) {
	t.Helper()
	n.Must(func() error {
		s, err := link.Kernel{}.State(t.Context(), device)
		for _, p := range s.Peers {
			yes = yes || p.Key == with.own.Key && !p.Handshake.IsZero()
		}
		return err
	})
	return yes
}

// hears is true when the job's user on one node gets an answer from the other.
func hears(t *testing.T, from, to *node, atMost time.Duration) bool {
	t.Helper()
	a := act(t, from.Node, user, role{Proto: "udp", Address: to.own.Addresses[0].String() + ":7000", Payload: secret})
	defer a.stop()
	return a.says("got", atMost)
}

// enough is more than WireGuard waits before it tries a handshake again (5 s and a third).
const enough = 8 * time.Second

// TestAPeerWithAnotherPresharedKeyIsSilent: it has the right tunnel key, is everybody's peer, and
// lacks the seed alone, which came to the others in a post-quantum envelope. An attacker of the years to
// come, who has computed every X25519 key of a recorded handshake, lacks the same.
func TestAPeerWithAnotherPresharedKeyIsSilent(t *testing.T) {
	l := build(t)
	n1, n2, n3 := l.nodes[0], l.nodes[1], l.nodes[2]
	seeds, guess := epochOf(t, 1, l.nodes...), roster.NewSeed()
	n1.plans(t, l, seeds[n1], 1)
	n2.plans(t, l, seeds[n2], 1)
	n3.plans(t, l, guess, 1)
	for _, n := range l.nodes {
		n.up(t)
		serve(t, n.Node, user, "udp", n.own.Addresses[0].String()+":7000")
	}
	require.True(t, hears(t, n1, n2, enough), "control: the others speak")
	t.Run("whoever begins, nothing is heard", func(t *testing.T) {
		assert.False(t, hears(t, n3, n1, 2*time.Second))
		assert.False(t, hears(t, n2, n3, 2*time.Second))
	})
	t.Run("it asked, and was answered with what it cannot read", func(t *testing.T) {
		assert.Positive(t, l.wire.messages(initiation, n3, n1))
		assert.Positive(t, l.wire.messages(response, n1, n3))
	})
	t.Run("no handshake came about, and no payload went either way", func(t *testing.T) {
		for _, n := range []*node{n1, n2} {
			assert.False(t, n3.shook(t, n))
			assert.False(t, n.shook(t, n3))
			assert.Zero(t, l.wire.messages(transport, n3, n)+l.wire.messages(transport, n, n3))
		}
		assert.Positive(t, l.wire.messages(transport, n1, n2), "control: the others' payload was seen")
		assert.Zero(t, l.wire.holds(secret), "in clear")
	})
	t.Run("control: with the seed it speaks", func(t *testing.T) {
		n3.rotate(t, l, seeds[n3], 1)
		assert.True(t, hears(t, n3, n1, 2*enough))
		assert.True(t, n3.shook(t, n1))
	})
}

// TestAnOldSeedOpensNoNewHandshake: n3 is cut off from the epoch after it, as a node that was put out is,
// but the others keep it as a peer here: the preshared keys alone must hold.
func TestAnOldSeedOpensNoNewHandshake(t *testing.T) {
	l := build(t)
	n1, n2, n3 := l.nodes[0], l.nodes[1], l.nodes[2]
	first := epochOf(t, 1, l.nodes...)
	for _, n := range l.nodes {
		n.plans(t, l, first[n], 1)
		n.up(t)
		serve(t, n.Node, user, "udp", n.own.Addresses[0].String()+":7000")
	}
	require.True(t, hears(t, n3, n1, enough), "control: in the first epoch it speaks")
	second := epochOf(t, 2, n1, n2)
	n1.rotate(t, l, second[n1], 2)
	n2.rotate(t, l, second[n2], 2)
	// A new tunnel with the same key: what it says from now on needs a handshake.
	anew := func(n *node) {
		n.down(t)
		n.up(t)
	}
	anew(n3)
	l.wire.clear()
	t.Run("a handshake with the old seed fails", func(t *testing.T) {
		assert.False(t, hears(t, n3, n1, 2*time.Second))
		assert.False(t, n3.shook(t, n1))
		assert.Positive(t, l.wire.messages(initiation, n3, n1), "it tried")
		assert.Zero(t, l.wire.messages(transport, n3, n1))
	})
	t.Run("so does one with the old seed and the new epoch's number", func(t *testing.T) {
		n3.rotate(t, l, first[n3], 2)
		assert.False(t, hears(t, n3, n2, 2*time.Second))
		assert.False(t, n3.shook(t, n2))
	})
	t.Run("control: the others' new handshakes succeed", func(t *testing.T) {
		n2.plans(t, l, second[n2], 2)
		anew(n2)
		assert.True(t, hears(t, n2, n1, 2*enough))
		assert.True(t, n2.shook(t, n1))
	})
	t.Run("control: with the new seed it would speak", func(t *testing.T) {
		n3.rotate(t, l, second[n1], 2)
		assert.True(t, hears(t, n3, n1, 2*enough))
	})
}
