package enclave

import (
	"encoding/hex"
	"fmt"
)

// Measurement is the launch digest of an SEV-SNP guest, a SHA-384.
type Measurement [48]byte

func (m Measurement) String() string { return hex.EncodeToString(m[:]) }

// MarshalText writes lower-case hexadecimal.
func (m Measurement) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads exactly 96 hexadecimal digits.
func (m *Measurement) UnmarshalText(b []byte) error { return fromHex("measurement", m[:], b) }

// KeyDigest is the SHA-384 of a key that signed a guest's ID block, or of that key's author. All
// zero: there is none (AMD publication 56860, table 23).
type KeyDigest [48]byte

func (d KeyDigest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText writes lower-case hexadecimal.
func (d KeyDigest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads exactly 96 hexadecimal digits.
func (d *KeyDigest) UnmarshalText(b []byte) error { return fromHex("key digest", d[:], b) }

// TCB is the security patch levels of a platform's firmware parts.
type TCB struct {
	FMC        uint8 `json:"fmc"` // Turin and later
	Bootloader uint8 `json:"bl"`
	TEE        uint8 `json:"tee"`
	SNP        uint8 `json:"snp"`
	Microcode  uint8 `json:"ucode"`
}

// String is "bl/tee/snp/ucode" in decimal.
func (t TCB) String() string {
	return fmt.Sprintf("%d/%d/%d/%d", t.Bootloader, t.TEE, t.SNP, t.Microcode)
}

// AtLeast is true when no part is below minimum's. Parts are never weighed against each other.
func (t TCB) AtLeast(minimum TCB) bool {
	return t.FMC >= minimum.FMC && t.Bootloader >= minimum.Bootloader && t.TEE >= minimum.TEE &&
		t.SNP >= minimum.SNP && t.Microcode >= minimum.Microcode
}

// SNPReport is what an SEV-SNP attestation report says, and whether its word counts: nothing in
// it may be believed unless Genuine is true.
type SNPReport struct {
	Genuine   bool    // the signature and the chain to a pinned root hold
	Simulated bool    // the root is a lab's, or may be
	Checks    []Check // of signature, chain and certificate

	Product string // milan, genoa, turin
	Part    string // Product, or a line of it whose microcode levels are its own: milan-x, genoa-x, zen4c (Siena, Bergamo), zen5c
	Version uint32
	Signer  string // VCEK or VLEK

	Policy         uint64
	Debug          bool // the host may decrypt the guest
	MigrationAgent bool // another guest may move this one's memory
	SMT            bool // two threads may share a core

	VMPL        uint32
	Measurement Measurement
	ReportData  [64]byte
	HostData    [32]byte
	ReportID    [32]byte // of this guest, until it is started anew
	ChipID      ChipID

	GuestSVN                     uint32 // of the ID block, 0 without one
	IDKeyDigest, AuthorKeyDigest KeyDigest
	PlatformInfo                 uint64 // AMD publication 56860, table 24

	CurrentTCB, ReportedTCB, CommittedTCB, LaunchTCB TCB

	LaunchMitigations, CurrentMitigations uint64 // bit sets since report version 5, 0 before

	Endorsements Endorsements // what the checks were made with

	// Unjudged is why one of these checks failed although the node did nothing wrong: the judge's clock
	// or its store. It is empty where the evidence is to blame.
	Unjudged string
}
