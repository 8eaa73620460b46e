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
	Part    string // Product, or zen4c: a genoa with patch levels of its own (Siena, Bergamo)
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
	ReportID    [32]byte
	ChipID      ChipID

	CurrentTCB, ReportedTCB, CommittedTCB, LaunchTCB TCB
}
