package attesttest

import (
	"bytes"
	"crypto/elliptic"
	"crypto/sha512"
	"encoding/binary"

	"github.com/google/go-sev-guest/abi"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// The guest policy's bits (AMD publication 56860, table 9); bit 17 is always set.
const (
	PolicySMT      = 1 << 16
	PolicyReserved = 1 << 17
	PolicyMigrate  = 1 << 18
	PolicyDebug    = 1 << 19
)

// signerVLEK is SIGNER_INFO of a report that a VLEK signs.
const signerVLEK = 1 << 2

// Report is every field of a report, versions 2 to 5.
type Report struct {
	Version, GuestSVN                                uint32
	Policy                                           uint64
	FamilyID, ImageID                                [16]byte
	VMPL, SignatureAlgorithm                         uint32
	PlatformInfo                                     uint64
	SignerInfo                                       uint32
	ReportData                                       [64]byte
	Measurement                                      enclave.Measurement
	HostData                                         [32]byte
	IDKeyDigest, AuthorKeyDigest                     [48]byte
	ReportID, ReportIDMA                             [32]byte
	Family, Model, Stepping                          byte // since version 3
	ChipID                                           enclave.ChipID
	CurrentTCB, ReportedTCB, CommittedTCB, LaunchTCB uint64
	CurrentFirmware, CommittedFirmware               [3]byte // build, minor, major
	LaunchMitigations, CurrentMitigations            uint64  // since version 5
}

// LabMeasurement is the launch digest of a lab's guests.
func LabMeasurement() enclave.Measurement {
	return sha512.Sum384([]byte("slurm-enclave lab launch digest"))
}

// Report is what the chip says to 64 bytes of REPORT_DATA: version 3, everything as it should be.
func (c *Chip) Report(reportData [64]byte) Report {
	tcb := c.tcb()
	r := Report{
		Version: 3, Policy: PolicyReserved | PolicySMT, SignatureAlgorithm: abi.SignEcdsaP384Sha384, PlatformInfo: 0x25,
		ReportData: reportData, Measurement: LabMeasurement(), ReportID: [32]byte(c.ID[32:]), ChipID: c.ID,
		Family: 0x19, Model: 0x01, Stepping: 1, CurrentTCB: tcb, ReportedTCB: tcb, CommittedTCB: tcb, LaunchTCB: tcb,
		CurrentFirmware: [3]byte{29, 55, 1}, CommittedFirmware: [3]byte{29, 55, 1},
	}
	if c.hierarchy.vlek {
		r.SignerInfo = signerVLEK
	}
	switch c.hierarchy.product {
	case "Genoa":
		r.Model = 0x11
	case "Turin":
		r.Version, r.Family, r.Model = 5, 0x1a, 0x02
	}
	return r
}

func (c *Chip) tcb() uint64 {
	t := c.TCB
	if c.hierarchy.product == "Turin" {
		return uint64(t.FMC) | uint64(t.Bootloader)<<8 | uint64(t.TEE)<<16 | uint64(t.SNP)<<24 | uint64(t.Microcode)<<56
	}
	return uint64(t.Bootloader) | uint64(t.TEE)<<8 | uint64(t.SNP)<<48 | uint64(t.Microcode)<<56
}

// Signed is the report's bytes with the chip's signature.
func (c *Chip) Signed(r Report) ([]byte, error) {
	b := r.Marshal()
	return b, c.Sign(b)
}

// Marshal is the report's 1184 bytes, not signed.
func (r Report) Marshal() []byte {
	b := make([]byte, abi.ReportSize)
	le := binary.LittleEndian
	le.PutUint32(b[0x00:], r.Version)
	le.PutUint32(b[0x04:], r.GuestSVN)
	le.PutUint64(b[0x08:], r.Policy)
	copy(b[0x10:], r.FamilyID[:])
	copy(b[0x20:], r.ImageID[:])
	le.PutUint32(b[0x30:], r.VMPL)
	le.PutUint32(b[0x34:], r.SignatureAlgorithm)
	le.PutUint64(b[0x38:], r.CurrentTCB)
	le.PutUint64(b[0x40:], r.PlatformInfo)
	le.PutUint32(b[0x48:], r.SignerInfo)
	copy(b[0x50:], r.ReportData[:])
	copy(b[0x90:], r.Measurement[:])
	copy(b[0xc0:], r.HostData[:])
	copy(b[0xe0:], r.IDKeyDigest[:])
	copy(b[0x110:], r.AuthorKeyDigest[:])
	copy(b[0x140:], r.ReportID[:])
	copy(b[0x160:], r.ReportIDMA[:])
	le.PutUint64(b[0x180:], r.ReportedTCB)
	if r.Version >= abi.ReportVersion3 {
		b[0x188], b[0x189], b[0x18a] = r.Family, r.Model, r.Stepping
	}
	copy(b[0x1a0:], r.ChipID[:])
	le.PutUint64(b[0x1e0:], r.CommittedTCB)
	copy(b[0x1e8:], r.CurrentFirmware[:])
	copy(b[0x1ec:], r.CommittedFirmware[:])
	le.PutUint64(b[0x1f0:], r.LaunchTCB)
	if r.Version >= abi.ReportVersion5 {
		le.PutUint64(b[0x1f8:], r.LaunchMitigations)
		le.PutUint64(b[0x200:], r.CurrentMitigations)
	}
	return b
}

// NegateS turns a report's signature (r, s) into (r, n-s), which is as good: signatures of
// ECDSA are malleable.
func NegateS(report []byte) []byte {
	b := bytes.Clone(report)
	const at, size = 0x2a0, 72
	r := abi.AmdBigInt(b[at : at+size])
	s := abi.AmdBigInt(b[at+size : at+2*size])
	s.Sub(elliptic.P384().Params().N, s)
	if err := abi.SetSignature(r, s, b); err != nil {
		panic(err) // a report too short to sign: the caller's mistake
	}
	return b
}
