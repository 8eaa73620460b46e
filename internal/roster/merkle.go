package roster

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// LeafDigest is the RFC 6962 leaf hash of a peer: SHA-256 over 0x00 and its canonical bytes.
func LeafDigest(p enclave.Peer) (enclave.Digest, error) {
	b, err := encodeLeaf(p)
	if err != nil {
		return enclave.Digest{}, err
	}
	return sha256.Sum256(append([]byte{0}, b...)), nil
}

func parent(left, right enclave.Digest) enclave.Digest {
	b := make([]byte, 0, 1+2*len(left))
	b = append(b, 1)
	b = append(b, left[:]...)
	return sha256.Sum256(append(b, right[:]...))
}

// Tree is the RFC 6962 Merkle tree of all leaves, hashed once: the root and every audit path are
// read off it. A level holds the parents of the one below, two by two; an odd last one goes up as
// it is, which makes the tree of the RFC, whose left half is the largest power of two.
type Tree struct{ levels [][]enclave.Digest }

// NewTree hashes the leaves; it keeps them.
func NewTree(leaves []enclave.Digest) *Tree {
	t := &Tree{levels: [][]enclave.Digest{leaves}}
	for at := leaves; len(at) > 1; {
		up := make([]enclave.Digest, 0, (len(at)+1)/2)
		for i := 0; i+1 < len(at); i += 2 {
			up = append(up, parent(at[i], at[i+1]))
		}
		if len(at)%2 == 1 {
			up = append(up, at[len(at)-1])
		}
		t.levels, at = append(t.levels, up), up
	}
	return t
}

// Size is the number of leaves.
func (t *Tree) Size() int { return len(t.levels[0]) }

// Root is the tree's hash; of no leaves, SHA-256 of nothing.
func (t *Tree) Root() enclave.Digest {
	if t.Size() == 0 {
		return sha256.Sum256(nil)
	}
	return t.levels[len(t.levels)-1][0]
}

// Prove gives the audit path of one leaf, from the bottom up (RFC 9162 section 2.1.3.1).
func (t *Tree) Prove(index int) ([]enclave.Digest, error) {
	if index < 0 || index >= t.Size() {
		return nil, fmt.Errorf("prove leaf %d: tree has %d", index, t.Size())
	}
	path := []enclave.Digest{}
	for _, level := range t.levels {
		if sibling := index ^ 1; sibling < len(level) {
			path = append(path, level[sibling])
		}
		index >>= 1
	}
	return path, nil
}

// Root is the hash of the tree of these leaves.
func Root(leaves []enclave.Digest) enclave.Digest { return NewTree(leaves).Root() }

// CheckInclusion verifies an audit path against a signed root (RFC 9162 section 2.1.3.2).
func CheckInclusion(root enclave.Digest, size, index uint32, leaf enclave.Digest, path []enclave.Digest) error {
	if index >= size {
		return fmt.Errorf("check inclusion: leaf %d of %d", index, size)
	}
	fn, sn, r := index, size-1, leaf
	for _, p := range path {
		if sn == 0 {
			return errors.New("check inclusion: path too long")
		}
		if fn&1 == 0 && fn != sn {
			r = parent(r, p)
			fn, sn = fn>>1, sn>>1
			continue
		}
		r = parent(p, r)
		for fn&1 == 0 && fn != 0 {
			fn, sn = fn>>1, sn>>1
		}
		fn, sn = fn>>1, sn>>1
	}
	if sn != 0 || r != root {
		return errors.New("check inclusion: leaf is not under the signed root")
	}
	return nil
}
