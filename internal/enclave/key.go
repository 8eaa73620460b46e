package enclave

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// Nonce is 32 random bytes of the verifier's, used once.
type Nonce [32]byte

// Digest is a SHA-256.
type Digest [32]byte

// PublicKey is a Curve25519 (WireGuard) or Ed25519 public key in its raw encoding.
type PublicKey [32]byte

// ChipID is the CHIP_ID field of an SEV-SNP report: 64 bytes, all zero when masked.
type ChipID [64]byte

func (n Nonce) String() string     { return hex.EncodeToString(n[:]) }
func (d Digest) String() string    { return hex.EncodeToString(d[:]) }
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }
func (c ChipID) String() string    { return hex.EncodeToString(c[:]) }

// MarshalText writes lower-case hexadecimal.
func (n Nonce) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads exactly 64 hexadecimal digits.
func (n *Nonce) UnmarshalText(b []byte) error { return fromHex("nonce", n[:], b) }

// MarshalText writes lower-case hexadecimal.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads exactly 64 hexadecimal digits.
func (d *Digest) UnmarshalText(b []byte) error { return fromHex("digest", d[:], b) }

// MarshalText writes lower-case hexadecimal.
func (c ChipID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads exactly 128 hexadecimal digits.
func (c *ChipID) UnmarshalText(b []byte) error { return fromHex("chip id", c[:], b) }

// MarshalText writes standard base64, as WireGuard's tools do.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads exactly 44 characters of standard base64.
func (k *PublicKey) UnmarshalText(b []byte) error {
	raw, err := base64.StdEncoding.Strict().DecodeString(string(b))
	if err != nil {
		return fmt.Errorf("parse public key: %w", err)
	}
	if len(raw) != len(k) {
		return fmt.Errorf("parse public key: %d bytes, want %d", len(raw), len(k))
	}
	copy(k[:], raw)
	return nil
}

func fromHex(what string, dst, src []byte) error {
	if len(src) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("parse %s: %d hexadecimal digits, want %d", what, len(src), hex.EncodedLen(len(dst)))
	}
	if _, err := hex.Decode(dst, src); err != nil {
		return fmt.Errorf("parse %s: %w", what, err)
	}
	return nil
}
