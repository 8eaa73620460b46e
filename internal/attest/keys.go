package attest

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Keys are a node's keys for one job. The private parts stand behind a pointer: no format verb
// and no encoder shows them, not even from an unexported field. The zero Keys has none.
type Keys struct{ p *private }

type private struct {
	wireguard enclave.Secret // 32 bytes, clamped
	signing   enclave.Secret // Ed25519 seed
	sealing   hpke.PrivateKey
	public    Public
}

// Public is what the report vouches for.
type Public struct {
	WireGuard enclave.PublicKey `json:"wireguard"`
	Ed25519   enclave.PublicKey `json:"ed25519"`
	HPKE      []byte            `json:"hpke"` // MLKEM768X25519, 1216 bytes
}

const secretSize = 32 // of the three private keys each

// NewKeys makes fresh keys.
func NewKeys() (Keys, error) {
	var raw [3 * secretSize]byte
	if _, err := rand.Read(raw[:2*secretSize]); err != nil {
		return Keys{}, fmt.Errorf("make keys: %w", err)
	}
	sealing, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return Keys{}, fmt.Errorf("make keys: %w", err)
	}
	b, err := sealing.Bytes()
	if err != nil || len(b) != secretSize {
		return Keys{}, errors.New("make keys: the HPKE key has no seed")
	}
	copy(raw[2*secretSize:], b)
	clear(b)
	return ParseKeys(enclave.NewSecret(raw[:]))
}

// ParseKeys reads what Secret gave: the keeper gets a job's keys through a sealed memory file.
func ParseKeys(s enclave.Secret) (Keys, error) {
	raw := s.Bytes()
	if len(raw) != 3*secretSize {
		return Keys{}, fmt.Errorf("parse keys: %d bytes, want %d", len(raw), 3*secretSize)
	}
	part := func(i int) []byte { return append([]byte(nil), raw[i*secretSize:(i+1)*secretSize]...) }
	wg := part(0)
	wg[0] &= 248
	wg[31] = wg[31]&127 | 64
	tunnel, err := ecdh.X25519().NewPrivateKey(wg)
	if err != nil {
		return Keys{}, errors.New("parse keys: no X25519 key")
	}
	seal := part(2)
	sealing, err := hpke.MLKEM768X25519().NewPrivateKey(seal)
	clear(seal)
	if err != nil {
		return Keys{}, errors.New("parse keys: no HPKE key")
	}
	p := &private{wireguard: enclave.NewSecret(wg), signing: enclave.NewSecret(part(1)), sealing: sealing}
	copy(p.public.WireGuard[:], tunnel.PublicKey().Bytes())
	copy(p.public.Ed25519[:], ed25519.NewKeyFromSeed(p.signing.Bytes())[secretSize:])
	p.public.HPKE = sealing.PublicKey().Bytes()
	return Keys{p: p}, nil
}

// Public is the public halves.
func (k Keys) Public() Public {
	if k.p == nil {
		return Public{}
	}
	return k.p.public
}

// WireGuard is the tunnel's private key, clamped.
func (k Keys) WireGuard() enclave.Secret {
	if k.p == nil {
		return enclave.Secret{}
	}
	return k.p.wireguard
}

// HPKE is the private key to which the verifier seals, nil when there is none.
func (k Keys) HPKE() hpke.PrivateKey {
	if k.p == nil {
		return nil
	}
	return k.p.sealing
}

// Sign signs with the Ed25519 key. Callers sign domain-tagged bytes only.
func (k Keys) Sign(message []byte) ([]byte, error) {
	if k.p == nil || len(k.p.signing.Bytes()) != secretSize {
		return nil, errors.New("sign: no key")
	}
	return ed25519.Sign(ed25519.NewKeyFromSeed(k.p.signing.Bytes()), message), nil
}

// Secret is all private keys in one secret, for ParseKeys.
func (k Keys) Secret() (enclave.Secret, error) {
	if k.p == nil || len(k.p.signing.Bytes()) != secretSize {
		return enclave.Secret{}, errors.New("encode keys: no key")
	}
	seal, err := k.p.sealing.Bytes()
	if err != nil {
		return enclave.Secret{}, errors.New("encode keys: the HPKE key has no seed")
	}
	raw := append(append(append([]byte(nil), k.p.wireguard.Bytes()...), k.p.signing.Bytes()...), seal...)
	clear(seal)
	return enclave.NewSecret(raw), nil
}

// Wipe forgets the private keys in all copies. The HPKE key's bytes are the library's: they are
// dropped and left to the collector.
func (k Keys) Wipe() {
	if k.p == nil {
		return
	}
	k.p.wireguard.Wipe()
	k.p.signing.Wipe()
	k.p.sealing = nil
}

// Format prints "[keys]" for every verb.
func (Keys) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[keys]")) }

// MarshalText refuses: keys have no text form.
func (Keys) MarshalText() ([]byte, error) { return nil, errors.New("encode keys: refused") }
