package config

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// PortRange is "FIRST-LAST", both included.
type PortRange struct{ First, Last uint16 }

// String is the spelling that UnmarshalText reads.
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// MarshalText writes FIRST-LAST.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads FIRST-LAST.
func (r *PortRange) UnmarshalText(b []byte) error {
	first, last, ok := strings.Cut(string(b), "-")
	f, errFirst := strconv.ParseUint(first, 10, 16)
	l, errLast := strconv.ParseUint(last, 10, 16)
	if !ok || errFirst != nil || errLast != nil || f == 0 || l < f {
		return fmt.Errorf("parse port range %q: want FIRST-LAST", b)
	}
	*r = PortRange{First: uint16(f), Last: uint16(l)}
	return nil
}

// Size is a number of bytes, written with a unit: 512MiB, 4GiB.
type Size uint64

var units = []struct {
	name  string
	shift uint
}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}}

// MarshalText writes the largest unit that divides the size.
func (s Size) MarshalText() ([]byte, error) {
	for _, u := range slices.Backward(units) {
		if s != 0 && s%(1<<u.shift) == 0 {
			return fmt.Appendf(nil, "%d%s", s>>u.shift, u.name), nil
		}
	}
	return fmt.Appendf(nil, "%dB", uint64(s)), nil
}

// UnmarshalText reads a number and one of B, KiB, MiB, GiB, TiB.
func (s *Size) UnmarshalText(b []byte) error {
	text, shift := string(b), uint(0)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			text, shift = rest+"B", u.shift
			break
		}
	}
	digits, ok := strings.CutSuffix(text, "B")
	n, err := strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil || n<<shift>>shift != n {
		return fmt.Errorf("parse size %q: want a number and B, KiB, MiB, GiB or TiB", b)
	}
	*s = Size(n << shift)
	return nil
}

// KeyDigest is the pin of the verifier's key: SHA-256 of its raw 32 bytes.
func (v Verifier) KeyDigest() (enclave.Digest, error) {
	var d enclave.Digest
	digits, ok := strings.CutPrefix(v.Key, "sha256:")
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != len(d) {
		return d, fmt.Errorf("parse verifier.key %q: want sha256: and 64 hexadecimal digits", v.Key)
	}
	copy(d[:], raw)
	return d, nil
}
