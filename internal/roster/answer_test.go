package roster_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
)

type scene struct {
	pub      ed25519.PublicKey
	key      ed25519.PrivateKey
	seed     []byte
	expected []roster.Expectation
	answers  []roster.Answer
}

func newScene(t *testing.T) scene {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	s := scene{pub: pub, key: key}
	ps := peers(3)
	h := header(t, ps)
	signed, err := roster.Sign(key, h)
	require.NoError(t, err)
	leaves, err := roster.Digests(ps)
	require.NoError(t, err)
	seed := roster.NewSeed()
	s.seed = bytes.Clone(seed.Bytes())
	for i, p := range ps {
		private := hpkeKey(t)
		keys := enclave.NodeKeys{WireGuard: p.Key, Ed25519: enclave.PublicKey{byte(i)}, HPKE: private.PublicKey().Bytes()}
		sealed, err := roster.SealSeed(seed, signed.Digest(), p.Node, keys.HPKE)
		require.NoError(t, err)
		path, err := roster.NewTree(leaves).Prove(i)
		require.NoError(t, err)
		a := roster.Answer{Roster: signed, Leaf: p, Index: uint32(i), Path: path, Nonce: enclave.Nonce{byte(i)}, Keys: keys, Seed: sealed}
		a.Bind(key)
		s.answers = append(s.answers, a)
		s.expected = append(s.expected, roster.Expectation{
			Verifier: pub, Key: h.JobKey, Node: p.Node, Nonce: a.Nonce, Keys: keys, HPKE: private,
		})
	}
	return s
}

func TestEachNodeAcceptsItsAnswer(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i, a := range s.answers {
		h, seed, err := a.Accept(s.expected[i])
		require.NoError(t, err)
		assert.Equal(t, uint32(3), h.Size)
		assert.Equal(t, s.seed, seed.Bytes())
	}
}

func TestForeignAnswersAreRefused(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	other := newScene(t)
	for name, f := range map[string]func(a *roster.Answer, e *roster.Expectation){
		"another node's answer":               func(a *roster.Answer, _ *roster.Expectation) { *a = s.answers[1] },
		"another verifier's answer":           func(a *roster.Answer, _ *roster.Expectation) { *a = other.answers[0] },
		"an answer of another job":            func(_ *roster.Answer, e *roster.Expectation) { e.Key.Job++ },
		"an answer of another start":          func(_ *roster.Answer, e *roster.Expectation) { e.Key.Restart++ },
		"an answer to an older nonce":         func(_ *roster.Answer, e *roster.Expectation) { e.Nonce[5]++ },
		"an answer to an older tunnel key":    func(_ *roster.Answer, e *roster.Expectation) { e.Keys.WireGuard[5]++ },
		"an answer to an older signature key": func(_ *roster.Answer, e *roster.Expectation) { e.Keys.Ed25519[5]++ },
		"an answer to an older sealing key": func(_ *roster.Answer, e *roster.Expectation) {
			e.Keys.HPKE = hpkeKey(t).PublicKey().Bytes()
		},
		"a leaf of another roster":  func(a *roster.Answer, _ *roster.Expectation) { a.Leaf.Addresses = nil },
		"a swapped index":           func(a *roster.Answer, _ *roster.Expectation) { a.Index = 1 },
		"a seed that was exchanged": func(a *roster.Answer, _ *roster.Expectation) { a.Seed = s.answers[1].Seed },
		"a seed for another node, signed": func(a *roster.Answer, _ *roster.Expectation) {
			a.Seed = s.answers[1].Seed
			a.Bind(s.key)
		},
		"a changed header": func(a *roster.Answer, _ *roster.Expectation) {
			a.Roster.Header = append(bytes.Clone(a.Roster.Header), 0)
		},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			a, e := s.answers[0], s.expected[0]
			f(&a, &e)
			_, seed, err := a.Accept(e)
			require.Error(t, err)
			assert.Empty(t, seed.Bytes())
		})
	}
}

func TestSeedOpensForItsNodeAndHeaderOnly(t *testing.T) {
	t.Parallel()
	key := hpkeKey(t)
	digest := enclave.Digest{1}
	sealed, err := roster.SealSeed(roster.NewSeed(), digest, "n1", key.PublicKey().Bytes())
	require.NoError(t, err)
	_, err = roster.OpenSeed(key, digest, "n1", sealed)
	require.NoError(t, err)
	_, err = roster.OpenSeed(key, enclave.Digest{2}, "n1", sealed)
	require.Error(t, err, "another job's header")
	_, err = roster.OpenSeed(key, digest, "n2", sealed)
	require.Error(t, err, "another node's name")
	_, err = roster.OpenSeed(hpkeKey(t), digest, "n1", sealed)
	require.Error(t, err, "another node's key")
	_, err = roster.SealSeed(roster.NewSeed(), digest, "n1", []byte("short"))
	require.Error(t, err, "a key that is none")
	_, err = roster.SealSeed(enclave.Secret{}, digest, "n1", key.PublicKey().Bytes())
	require.Error(t, err, "no seed")
}

func TestPairKeyIsOneForBothEndsAndNewInEachEpoch(t *testing.T) {
	t.Parallel()
	seed := roster.NewSeed()
	a, b, c := enclave.PublicKey{1}, enclave.PublicKey{2}, enclave.PublicKey{3}
	derive := func(epoch uint32, x, y enclave.PublicKey) string {
		k, err := roster.PairPSK(seed, epoch, x, y)
		require.NoError(t, err)
		require.Len(t, k.Bytes(), 32)
		return string(k.Bytes())
	}
	assert.Equal(t, derive(1, a, b), derive(1, b, a))
	assert.NotEqual(t, derive(1, a, b), derive(2, a, b))
	assert.NotEqual(t, derive(1, a, b), derive(1, a, c))
	_, err := roster.PairPSK(seed, 1, a, a)
	require.Error(t, err)
	_, err = roster.PairPSK(enclave.Secret{}, 1, a, b)
	require.Error(t, err)
	assert.Equal(t, "[secret]", fmt.Sprintf("%x", seed))
}
