package enclave

import (
	"errors"
	"fmt"
)

// Secret holds bytes that must not leave the process by accident: no format verb, no
// encoder and no comparison shows them, not even from an unexported field, because the
// bytes stand behind a pointer. The zero Secret is empty.
type Secret struct {
	_ [0]func() // not comparable: compare with crypto/subtle
	b *[]byte
}

// NewSecret takes a copy of b and wipes b.
func NewSecret(b []byte) Secret {
	c := append([]byte(nil), b...)
	clear(b)
	return Secret{b: &c}
}

// Bytes gives the bytes themselves, not a copy. The caller neither keeps nor changes them.
func (s Secret) Bytes() []byte {
	if s.b == nil {
		return nil
	}
	return *s.b
}

// Wipe overwrites the bytes and forgets them. All copies of the Secret are wiped with it.
func (s Secret) Wipe() {
	if s.b != nil {
		clear(*s.b)
		*s.b = nil
	}
}

// Format prints "[secret]" for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// MarshalText refuses: a secret has no text form.
func (Secret) MarshalText() ([]byte, error) { return nil, errors.New("encode secret: refused") }

// MarshalBinary refuses as MarshalText does.
func (Secret) MarshalBinary() ([]byte, error) { return nil, errors.New("encode secret: refused") }
