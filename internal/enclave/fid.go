package enclave

import (
	"fmt"
	"strconv"
	"strings"
)

// FID is how Lustre names an object of a file system, for ever: "[0x200000401:0x1:0x0]". The zero
// FID names none.
type FID struct {
	Sequence uint64
	Object   uint32
	Version  uint32
}

// RootFID names the root of every Lustre file system.
func RootFID() FID { return FID{Sequence: 0x200000007, Object: 1} }

// String is Lustre's own spelling.
func (f FID) String() string { return fmt.Sprintf("[%#x:%#x:%#x]", f.Sequence, f.Object, f.Version) }

// MarshalText is String, and nothing for the zero FID.
func (f FID) MarshalText() ([]byte, error) {
	if f == (FID{}) {
		return nil, nil
	}
	return []byte(f.String()), nil
}

// UnmarshalText reads String's spelling, with or without brackets; nothing is the zero FID.
func (f *FID) UnmarshalText(b []byte) error {
	*f = FID{}
	if len(b) == 0 {
		return nil
	}
	text := strings.TrimSuffix(strings.TrimPrefix(string(b), "["), "]")
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return fmt.Errorf("parse FID %q: want [SEQUENCE:OBJECT:VERSION]", b)
	}
	var n [3]uint64
	for i, bits := range []int{64, 32, 32} {
		var err error
		if n[i], err = strconv.ParseUint(parts[i], 0, bits); err != nil {
			return fmt.Errorf("parse FID %q: want [SEQUENCE:OBJECT:VERSION]", b)
		}
	}
	*f = FID{Sequence: n[0], Object: uint32(n[1]), Version: uint32(n[2])}
	if *f == (FID{}) {
		return fmt.Errorf("parse FID %q: it names nothing", b)
	}
	return nil
}
