package roster

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hpke"
	"errors"
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Answer is what one node gets at barrier 1: the signed header, its own place in it, the keys
// and nonce it is an answer to, and the seed that only this node can open. Binding is the
// verifier's signature over all of it: HPKE alone does not say who sealed.
type Answer struct {
	Roster  Signed           `json:"roster"`
	Leaf    enclave.Peer     `json:"leaf"`
	Index   uint32           `json:"index"`
	Path    []enclave.Digest `json:"path"`
	Nonce   enclave.Nonce    `json:"nonce"`
	Keys    enclave.NodeKeys `json:"keys"`
	Seed    []byte           `json:"sealed_seed"`
	Binding []byte           `json:"binding"`
}

// signed is what Binding signs. The leaf and its path are held by the header's root already.
func (a Answer) signed() []byte {
	d := a.Roster.Digest()
	w := newWriter(tagAnswer)
	w.bytes(d[:])
	w.text(a.Leaf.Node)
	w.bytes(a.Nonce[:])
	w.bytes(a.Keys.WireGuard[:])
	w.bytes(a.Keys.Ed25519[:])
	w.bytes(a.Keys.HPKE)
	w.bytes(a.Seed)
	return w.b
}

// Bind signs the answer.
func (a *Answer) Bind(key ed25519.PrivateKey) { a.Binding = ed25519.Sign(key, a.signed()) }

// Expectation is what the node knows itself: nothing in an answer is believed without it.
type Expectation struct {
	Verifier ed25519.PublicKey // pinned
	Key      enclave.JobKey
	Node     string
	Nonce    enclave.Nonce
	Keys     enclave.NodeKeys
	HPKE     hpke.PrivateKey
}

// Accept checks the answer as the node sees it and opens the seed. No clock is asked: the
// answer is fresh because it names this node's new keys and its own nonce.
func (a Answer) Accept(e Expectation) (enclave.RosterHeader, enclave.Secret, error) {
	h, err := a.check(e)
	if err != nil {
		return enclave.RosterHeader{}, enclave.Secret{}, fmt.Errorf("accept roster: %w", err)
	}
	seed, err := OpenSeed(e.HPKE, a.Roster.Digest(), e.Node, a.Seed)
	if err != nil {
		return enclave.RosterHeader{}, enclave.Secret{}, fmt.Errorf("accept roster: %w", err)
	}
	return h, seed, nil
}

func (a Answer) check(e Expectation) (enclave.RosterHeader, error) {
	h, err := Verify(e.Verifier, a.Roster)
	switch {
	case err != nil:
		return h, err
	case !ed25519.Verify(e.Verifier, a.signed(), a.Binding):
		return h, errors.New("answer is not signed by the verifier")
	case h.JobKey != e.Key:
		return h, fmt.Errorf("roster of job %s, want %s", h.JobKey, e.Key)
	case a.Leaf.Node != e.Node:
		return h, fmt.Errorf("answer for node %s, want %s", a.Leaf.Node, e.Node)
	case a.Nonce != e.Nonce:
		return h, errors.New("answer to another nonce")
	case a.Keys.WireGuard != e.Keys.WireGuard, a.Keys.Ed25519 != e.Keys.Ed25519, !bytes.Equal(a.Keys.HPKE, e.Keys.HPKE):
		return h, errors.New("answer to other keys")
	case a.Leaf.Key != e.Keys.WireGuard:
		return h, errors.New("leaf holds another tunnel key")
	}
	leaf, err := LeafDigest(a.Leaf)
	if err != nil {
		return h, err
	}
	return h, CheckInclusion(h.Root, h.Size, a.Index, leaf, a.Path)
}
