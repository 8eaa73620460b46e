// Package roster is the list of a job's nodes that the verifier signs: who may talk to whom.
//
// It encodes, signs, hashes and seals, and is pure: no clock, no network, no file. A header is
// signed once per job and epoch; the nodes are leaves of a Merkle tree (RFC 6962) whose root
// stands in the header, so each node's answer is small however large the job is. It does not
// decide who is on the list; internal/verifier does, and prolog and keeper check it.
package roster

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// The domain tags: bytes signed or hashed for one purpose never mean anything for another.
const (
	tagHeader = "slurm-enclave/roster/v1"
	tagLeaf   = "slurm-enclave/roster-leaf/v1"
	tagAnswer = "slurm-enclave/roster-answer/v1"
	tagSeed   = "slurm-enclave/roster-seed/v1"
	tagPSK    = "slurm-enclave/psk/v1"
)

// Signed is a header as it travels: the exact bytes and the verifier's signature over them.
type Signed struct {
	Header    []byte `json:"header"`
	Signature []byte `json:"signature"`
}

// Digest is the SHA-256 of the header bytes; seeds and answers are bound to it.
func (s Signed) Digest() enclave.Digest { return sha256.Sum256(s.Header) }

// Sign encodes the header and signs it with the verifier's key.
func Sign(key ed25519.PrivateKey, h enclave.RosterHeader) (Signed, error) {
	if len(key) != ed25519.PrivateKeySize {
		return Signed{}, errors.New("sign roster: no key")
	}
	b, err := EncodeHeader(h)
	if err != nil {
		return Signed{}, fmt.Errorf("sign roster: %w", err)
	}
	return Signed{Header: b, Signature: ed25519.Sign(key, b)}, nil
}

// Verify checks the signature first and only then reads the header.
func Verify(pub ed25519.PublicKey, s Signed) (enclave.RosterHeader, error) {
	if len(pub) != ed25519.PublicKeySize || !ed25519.Verify(pub, s.Header, s.Signature) {
		return enclave.RosterHeader{}, errors.New("verify roster: signature is not the verifier's")
	}
	h, err := DecodeHeader(s.Header)
	if err != nil {
		return enclave.RosterHeader{}, fmt.Errorf("verify roster: %w", err)
	}
	return h, nil
}

// Digests hashes the peers in the order given, which is the nodelist's.
func Digests(peers []enclave.Peer) ([]enclave.Digest, error) {
	out := make([]enclave.Digest, len(peers))
	for i, p := range peers {
		d, err := LeafDigest(p)
		if err != nil {
			return nil, err
		}
		out[i] = d
	}
	return out, nil
}

// CheckPeers proves that these are all the peers of the header, in their order, and no other.
func CheckPeers(h enclave.RosterHeader, peers []enclave.Peer) error {
	if uint64(len(peers)) != uint64(h.Size) {
		return fmt.Errorf("check peers: %d leaves, header says %d", len(peers), h.Size)
	}
	leaves, err := Digests(peers)
	if err != nil {
		return fmt.Errorf("check peers: %w", err)
	}
	if Root(leaves) != h.Root {
		return errors.New("check peers: leaves do not hash to the signed root")
	}
	seen := make(map[string]bool, len(peers))
	for _, p := range peers {
		if seen[p.Node] {
			return fmt.Errorf("check peers: node %s twice", p.Node)
		}
		seen[p.Node] = true
	}
	return nil
}
