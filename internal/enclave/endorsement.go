package enclave

import "time"

// Endorsement is AMD's word on a key that signs reports: a VCEK's is for one chip at one patch
// level, a VLEK's for one cloud.
type Endorsement struct {
	Product   string // milan, genoa, turin
	Signer    string // VCEK or VLEK
	Chip      ChipID // all zero for a VLEK; Turin's has 8 bytes and 56 zeros
	TCB       TCB
	Simulated bool      // the root is a lab's
	NotBefore time.Time // of it and of all above it
	NotAfter  time.Time
}

// RevocationList is what a root's list says, without its serial numbers.
type RevocationList struct {
	Product    string
	Root       string // common name
	ThisUpdate time.Time
	NextUpdate time.Time // the zero time when it does not say
	Revoked    []string  // the pinned keys that it names, by common name
	Simulated  bool
}

// Anchor is a key that the program trusts, or that a trusted root has made.
type Anchor struct {
	Name      string    `json:"name"` // common name
	Product   string    `json:"product"`
	Root      bool      `json:"root"`
	SHA256    Digest    `json:"sha256"` // of the certificate, DER
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Simulated bool      `json:"simulated"`
}
