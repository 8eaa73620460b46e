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

const (
	seedSize         = 32          // of the PSK seed
	encapsulatedSize = 1088 + 1*32 // MLKEM768X25519: an ML-KEM-768 ciphertext and an X25519 key
)

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

// seedInfo binds an envelope to the node that it is for.
func seedInfo(node string) []byte {
	w := newWriter(tagSeed)
	w.text(node)
	return w.b
}

// CheckKey makes sure that a seed can be sealed for a node's HPKE key.
func CheckKey(hpkeKey []byte) error {
	kem, _, _ := suite()
	if _, err := kem.NewPublicKey(hpkeKey); err != nil {
		return fmt.Errorf("check sealing key: %w", err)
	}
	return nil
}

// Envelope is the half of sealing that needs the node's key alone, and most of its time: it is made
// while the others' evidence is still awaited. It is closed once.
type Envelope struct {
	encapsulated []byte
	sender       *hpke.Sender
	node         string
}

// NewEnvelope is for one node's HPKE key (1216 bytes, MLKEM768X25519).
func NewEnvelope(node string, hpkeKey []byte) (*Envelope, error) {
	kem, kdf, aead := suite()
	pub, err := kem.NewPublicKey(hpkeKey)
	if err != nil {
		return nil, fmt.Errorf("prepare seed for %s: %w", node, err)
	}
	encapsulated, sender, err := hpke.NewSender(pub, kdf, aead, seedInfo(node))
	if err != nil {
		return nil, fmt.Errorf("prepare seed for %s: %w", node, err)
	}
	return &Envelope{encapsulated, sender, node}, nil
}

// Close encrypts the seed, bound to one signed header (job, restart, epoch, members). The envelope is
// used up: a second message in it would not open.
func (e *Envelope) Close(seed enclave.Secret, header enclave.Digest) ([]byte, error) {
	if e.sender == nil {
		return nil, fmt.Errorf("seal seed for %s: the envelope is closed already", e.node)
	}
	if len(seed.Bytes()) != seedSize {
		return nil, fmt.Errorf("seal seed for %s: seed of %d bytes", e.node, len(seed.Bytes()))
	}
	body, err := e.sender.Seal(header[:], seed.Bytes())
	if err != nil {
		return nil, fmt.Errorf("seal seed for %s: %w", e.node, err)
	}
	e.sender = nil
	return append(e.encapsulated, body...), nil
}

// SealSeed is an envelope that is closed at once.
func SealSeed(seed enclave.Secret, header enclave.Digest, node string, hpkeKey []byte) ([]byte, error) {
	e, err := NewEnvelope(node, hpkeKey)
	if err != nil {
		return nil, err
	}
	return e.Close(seed, header)
}

// OpenSeed decrypts what was sealed for this node and header, and nothing else.
func OpenSeed(key hpke.PrivateKey, header enclave.Digest, node string, sealed []byte) (enclave.Secret, error) {
	kem, kdf, aead := suite()
	if key.KEM().ID() != kem.ID() || len(sealed) < encapsulatedSize {
		return enclave.Secret{}, fmt.Errorf("open seed for %s: not sealed with MLKEM768X25519", node)
	}
	recipient, err := hpke.NewRecipient(sealed[:encapsulatedSize], key, kdf, aead, seedInfo(node))
	var b []byte
	if err == nil {
		b, err = recipient.Open(header[:], sealed[encapsulatedSize:])
	}
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
