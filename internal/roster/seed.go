package roster

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// seedSize is the PSK seed's length.
const seedSize = 32

// NewSeed draws the seed of one job and epoch.
func NewSeed() enclave.Secret {
	b := make([]byte, seedSize)
	_, _ = rand.Read(b) // crypto/rand never fails: it ends the process instead
	return enclave.NewSecret(b)
}

// suite is the only one: hybrid KEM, so that traffic recorded today stays shut later.
func suite() (hpke.KEM, hpke.KDF, hpke.AEAD) {
	return hpke.MLKEM768X25519(), hpke.HKDFSHA256(), hpke.ChaCha20Poly1305()
}

// seedInfo binds a sealed seed to one signed header (job, restart, epoch, members) and one node.
func seedInfo(header enclave.Digest, node string) []byte {
	w := newWriter(tagSeed)
	w.bytes(header[:])
	w.text(node)
	return w.b
}

// SealSeed encrypts the seed for one node's HPKE key (1216 bytes, MLKEM768X25519).
func SealSeed(seed enclave.Secret, header enclave.Digest, node string, hpkeKey []byte) ([]byte, error) {
	kem, kdf, aead := suite()
	pub, err := kem.NewPublicKey(hpkeKey)
	if err != nil {
		return nil, fmt.Errorf("seal seed for %s: %w", node, err)
	}
	if len(seed.Bytes()) != seedSize {
		return nil, fmt.Errorf("seal seed for %s: seed of %d bytes", node, len(seed.Bytes()))
	}
	sealed, err := hpke.Seal(pub, kdf, aead, seedInfo(header, node), seed.Bytes())
	if err != nil {
		return nil, fmt.Errorf("seal seed for %s: %w", node, err)
	}
	return sealed, nil
}

// OpenSeed decrypts what SealSeed made for this node and header, and nothing else.
func OpenSeed(key hpke.PrivateKey, header enclave.Digest, node string, sealed []byte) (enclave.Secret, error) {
	_, kdf, aead := suite()
	b, err := hpke.Open(key, kdf, aead, seedInfo(header, node), sealed)
	if err != nil {
		return enclave.Secret{}, fmt.Errorf("open seed for %s: %w", node, err)
	}
	if len(b) != seedSize {
		clear(b)
		return enclave.Secret{}, fmt.Errorf("open seed for %s: %d bytes", node, len(b))
	}
	return enclave.NewSecret(b), nil
}

// PairPSK derives the WireGuard preshared key of two peers; both ends get the same, each epoch another.
func PairPSK(seed enclave.Secret, epoch uint32, a, b enclave.PublicKey) (enclave.Secret, error) {
	if len(seed.Bytes()) != seedSize {
		return enclave.Secret{}, errors.New("derive pair key: no seed")
	}
	switch bytes.Compare(a[:], b[:]) {
	case 0:
		return enclave.Secret{}, errors.New("derive pair key: a peer of itself")
	case 1:
		a, b = b, a
	}
	w := newWriter(tagPSK)
	w.bytes(a[:])
	w.bytes(b[:])
	salt := binary.BigEndian.AppendUint32(nil, epoch)
	k, err := hkdf.Key(sha256.New, seed.Bytes(), salt, string(w.b), 32)
	if err != nil {
		return enclave.Secret{}, fmt.Errorf("derive pair key: %w", err)
	}
	return enclave.NewSecret(k), nil
}
