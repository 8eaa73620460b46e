package roster

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"

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

// split is the largest power of two smaller than n, for n > 1.
func split(n int) int {
	return 1 << (bits.Len(uint(n-1)) - 1)
}

// Root is the RFC 6962 Merkle tree hash; of no leaves, SHA-256 of nothing.
func Root(leaves []enclave.Digest) enclave.Digest {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leaves[0]
	}
	k := split(len(leaves))
	return parent(Root(leaves[:k]), Root(leaves[k:]))
}

// Prove makes the audit path of one leaf, from the bottom up (RFC 9162 section 2.1.3.1).
func Prove(leaves []enclave.Digest, index int) ([]enclave.Digest, error) {
	if index < 0 || index >= len(leaves) {
		return nil, fmt.Errorf("prove leaf %d: tree has %d", index, len(leaves))
	}
	if len(leaves) == 1 {
		return []enclave.Digest{}, nil
	}
	k := split(len(leaves))
	if index < k {
		path, err := Prove(leaves[:k], index)
		return append(path, Root(leaves[k:])), err
	}
	path, err := Prove(leaves[k:], index-k)
	return append(path, Root(leaves[:k])), err
}

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
