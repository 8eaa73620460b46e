// Package appraise holds an attestation report against the site's policy: what was booted, on
// which firmware, on whose chip, and for which question.
//
// Whether the report is genuine is snp's matter and arrives as a value. The package reads policies,
// judges by them, and compares, reviews and drafts them; it asks nobody, drains nothing and keeps
// nothing. A policy that is not loaded from a file affirms nothing, and no policy can allow the
// debug bit or a migration agent.
package appraise

import (
	"crypto/sha256"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Policy is one file of policy.d. The zero Policy affirms nothing.
type Policy struct {
	text string
	name string

	references map[enclave.Measurement]reference
	presets    []string
	minimum    map[string]enclave.TCB // by part, presets and minimum_tcb together

	vmpl        uint32
	guestSVN    uint32 // the least GUEST_SVN
	guest       []flag // what the guest policy has to demand
	platform    []flag // what PLATFORM_INFO has to say
	mitigations uint64 // bits that launch and current mitigation vector must both have

	hostData   map[enclave.Digest]bool    // none: not asked
	idKeys     map[enclave.KeyDigest]bool // none: not asked
	authorKeys map[enclave.KeyDigest]bool // none: not asked

	smt       bool // two threads of a core may be in use
	cxl       bool // the guest's memory may be in CXL devices
	committed bool // COMMITTED_TCB must equal CURRENT_TCB
	launch    bool // LAUNCH_TCB must be at least the minimum, too
	alias     bool // the firmware must have looked for aliased memory
	crl       bool // an unanswered revocation check refuses
	weak      bool // a reference value need not cover the root file system
	version2  bool // reports of version 2, which name no processor, are taken
	vlek      bool // reports that a cloud's key signed are taken
	masked    bool // a node may be known by its REPORT_ID, where the host masks CHIP_ID
	simulated bool // a lab's evidence is taken, and said to be a lab's
}

// reference is one known launch digest.
type reference struct {
	name   string
	covers map[cover]bool
}

// cover is what a launch digest says something about.
type cover string

const (
	firmware cover = "firmware"
	kernel   cover = "kernel" // with initrd and command line
	rootfs   cover = "rootfs" // by dm-verity, whose root hash is in the command line
)

// Name is the policy's name.
func (p Policy) Name() string { return p.name }

// Text is the file as it was loaded, byte by byte.
func (p Policy) Text() string { return p.text }

// AllowsSimulated is true when a lab's evidence may be affirmed under the policy.
func (p Policy) AllowsSimulated() bool { return p.simulated }

// Digest is the SHA-256 of the file as it was loaded, the same that sha256sum prints of it. Nodes
// have it in their reports and rosters, so one policy is in force in a job, and whoever holds the
// text can tell without this program that it is the one.
func (p Policy) Digest() enclave.Digest { return sha256.Sum256([]byte(p.text)) }
