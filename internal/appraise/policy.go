// Package appraise holds an attestation report against the site's policy: what was booted, on
// which firmware, on whose chip, and for which question.
//
// Whether the report is genuine is snp's matter and arrives as a value. The package reads policies
// and judges; it asks nobody, drains nothing and keeps nothing. A policy that is not loaded from
// a file affirms nothing, and no policy can allow the debug bit or a migration agent.
package appraise

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Policy is one file of policy.d. The zero Policy affirms nothing.
type Policy struct {
	text       string
	name       string
	references map[enclave.Measurement]reference
	minimum    map[string]enclave.TCB // by part: milan, genoa, zen4c, turin
	vmpl       uint32
	smt        bool // two threads of a core may be in use
	committed  bool // COMMITTED_TCB must equal CURRENT_TCB
	crl        bool // an unanswered revocation check refuses
	weak       bool // a reference value need not cover the root file system
	simulated  bool // a lab's evidence is taken, and said to be a lab's
}

// reference is one known launch digest.
type reference struct {
	name   string
	covers map[cover]bool
}

// cover is a part of what runs on a node that a launch digest says something about.
type cover string

const (
	firmware cover = "firmware"
	kernel   cover = "kernel" // with initrd and command line
	rootfs   cover = "rootfs" // by dm-verity
)

// file is the YAML. Pointers tell a key that is missing from one that is zero.
type file struct {
	Name            string             `yaml:"name"`
	ReferenceValues []fileReference    `yaml:"reference_values"`
	MinimumTCB      map[string]fileTCB `yaml:"minimum_tcb"`
	VMPL            uint32             `yaml:"vmpl"`
	SMT             string             `yaml:"smt"`
	Committed       *bool              `yaml:"committed_equals_current"`
	RequireCRL      bool               `yaml:"require_crl"`
	WeakBoot        string             `yaml:"weak_boot"`
	AllowSimulated  bool               `yaml:"allow_simulated"`
}

type fileReference struct {
	Name        string   `yaml:"name"`
	Measurement string   `yaml:"measurement"`
	Covers      []string `yaml:"covers"`
}

type fileTCB struct {
	FMC        *uint8 `yaml:"fmc"`
	Bootloader *uint8 `yaml:"bl"`
	TEE        *uint8 `yaml:"tee"`
	SNP        *uint8 `yaml:"snp"`
	Microcode  *uint8 `yaml:"ucode"`
}

// Load reads one policy file. An unknown key, an empty list of reference values and a patch
// level left out are errors: each would let in more than its writer meant.
func Load(r io.Reader) (Policy, error) {
	var text strings.Builder
	f, err := parse(io.TeeReader(r, &text)) // which reads all of it or fails
	if err != nil {
		return Policy{}, fmt.Errorf("read policy: %w", err)
	}
	p, err := f.policy()
	if err != nil {
		return Policy{}, fmt.Errorf("check policy %q: %w", f.Name, err)
	}
	p.text = text.String()
	return p, nil
}

// parse makes an error of the YAML library's panics: go-yaml 1.19.2 dereferences nil where a tag
// without a value stands for a list ("covers: !x"), and a typing error must not end a verifier.
func parse(r io.Reader) (f file, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, err = file{}, fmt.Errorf("not YAML that can be decoded: %v", p)
		}
	}()
	err = config.Strict(r, &f)
	return f, err
}

func (f file) policy() (Policy, error) {
	p := Policy{
		name: f.Name, vmpl: f.VMPL, crl: f.RequireCRL, simulated: f.AllowSimulated,
		committed: f.Committed == nil || *f.Committed,
	}
	var errs []error
	if f.Name == "" {
		errs = append(errs, errors.New("name is missing"))
	}
	if f.VMPL > 3 {
		errs = append(errs, fmt.Errorf("vmpl %d: want 0 to 3", f.VMPL))
	}
	var err error
	if p.references, err = references(f.ReferenceValues); err != nil {
		errs = append(errs, err)
	}
	if p.minimum, err = minimums(f.MinimumTCB); err != nil {
		errs = append(errs, err)
	}
	if p.smt, err = choice("smt", f.SMT, "deny", "allow", true); err != nil {
		errs = append(errs, err)
	}
	if p.weak, err = choice("weak_boot", f.WeakBoot, "refuse", "accept", false); err != nil {
		errs = append(errs, err)
	}
	if len(errs) != 0 {
		return Policy{}, errors.Join(errs...)
	}
	return p, nil
}

func choice(key, value, no, yes string, preset bool) (bool, error) {
	switch value {
	case "":
		return preset, nil
	case no:
		return false, nil
	case yes:
		return true, nil
	}
	return false, fmt.Errorf("%s %q: want %s or %s", key, value, no, yes)
}

func references(list []fileReference) (map[enclave.Measurement]reference, error) {
	if len(list) == 0 {
		return nil, errors.New("reference_values is empty: nothing could be affirmed")
	}
	known := map[enclave.Measurement]reference{}
	for i, f := range list {
		var m enclave.Measurement
		if err := m.UnmarshalText([]byte(f.Measurement)); err != nil {
			return nil, fmt.Errorf("reference_values[%d]: %w", i, err)
		}
		if m == (enclave.Measurement{}) {
			return nil, fmt.Errorf("reference_values[%d]: measurement is zero", i)
		}
		if _, ok := known[m]; ok {
			return nil, fmt.Errorf("reference_values[%d]: measurement is listed twice", i)
		}
		if f.Name == "" {
			return nil, fmt.Errorf("reference_values[%d]: name is missing", i)
		}
		r := reference{name: f.Name, covers: map[cover]bool{}}
		for _, c := range f.Covers {
			switch c := cover(c); c {
			case firmware, kernel, rootfs:
				r.covers[c] = true
			default:
				return nil, fmt.Errorf("reference_values[%d]: covers %q: want firmware, kernel or rootfs", i, c)
			}
		}
		known[m] = r
	}
	return known, nil
}

func minimums(list map[string]fileTCB) (map[string]enclave.TCB, error) {
	if len(list) == 0 {
		return nil, errors.New("minimum_tcb is empty: no product could be affirmed")
	}
	minimum := map[string]enclave.TCB{}
	for _, part := range slices.Sorted(maps.Keys(list)) {
		f := list[part]
		switch part {
		case "milan", "genoa", "zen4c", "turin":
		default:
			return nil, fmt.Errorf("minimum_tcb: unknown product %q: want milan, genoa, zen4c or turin", part)
		}
		if f.Bootloader == nil || f.TEE == nil || f.SNP == nil || f.Microcode == nil || (f.FMC == nil) != (part != "turin") {
			return nil, fmt.Errorf("minimum_tcb: %s: want bl, tee, snp and ucode, and fmc for turin only", part)
		}
		t := enclave.TCB{Bootloader: *f.Bootloader, TEE: *f.TEE, SNP: *f.SNP, Microcode: *f.Microcode}
		if f.FMC != nil {
			t.FMC = *f.FMC
		}
		minimum[part] = t
	}
	return minimum, nil
}

// Name is the policy's name.
func (p Policy) Name() string { return p.name }

// AllowsSimulated is true when a lab's evidence may be affirmed under the policy.
func (p Policy) AllowsSimulated() bool { return p.simulated }

// Text is the file as it was read. A receipt carries it: whoever holds one can judge again.
func (p Policy) Text() string { return p.text }

// Digest is the SHA-256 of the text, to the last byte. Nodes have it in their reports, so one
// policy is in force in a job, and sha256sum on the file is enough to find it there. The digest of
// what a text means would change with every key that a later release knows.
func (p Policy) Digest() enclave.Digest { return sha256.Sum256([]byte(p.text)) }
