package appraise

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// maxPolicy bounds a policy file: some thousand reference values fit.
const maxPolicy = 1 << 20

// file is a policy as it is written.
type file struct {
	Name            string             `yaml:"name"`
	ReferenceValues []fileReference    `yaml:"reference_values"`
	Presets         []string           `yaml:"presets"`
	MinimumTCB      map[string]fileTCB `yaml:"minimum_tcb"`
	VMPL            uint32             `yaml:"vmpl"`
	MinimumGuestSVN uint32             `yaml:"minimum_guest_svn"`
	GuestPolicy     []string           `yaml:"guest_policy"`
	Platform        []string           `yaml:"platform"`
	Mitigations     []uint             `yaml:"mitigations"`
	HostData        []string           `yaml:"host_data"`
	IDKeys          []string           `yaml:"id_keys"`
	AuthorKeys      []string           `yaml:"author_keys"`
	SMT             string             `yaml:"smt"`
	CXL             string             `yaml:"cxl"`
	Committed       *bool              `yaml:"committed_equals_current"`
	LaunchTCB       string             `yaml:"launch_tcb"`
	AliasCheck      string             `yaml:"alias_check"`
	RequireCRL      bool               `yaml:"require_crl"`
	WeakBoot        string             `yaml:"weak_boot"`
	Version2        string             `yaml:"version_2_reports"`
	VLEK            string             `yaml:"vlek"`
	MaskedChips     string             `yaml:"masked_chips"`
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
	b, err := io.ReadAll(io.LimitReader(r, maxPolicy+1))
	if err != nil {
		return Policy{}, fmt.Errorf("read policy: %w", err)
	}
	if len(b) > maxPolicy {
		return Policy{}, fmt.Errorf("read policy: over %d bytes", maxPolicy)
	}
	var f file
	if err = config.Strict(strings.NewReader(string(b)), &f); err != nil {
		return Policy{}, fmt.Errorf("read policy: %w", err)
	}
	p, err := f.policy()
	if err != nil {
		return Policy{}, fmt.Errorf("check policy %q: %w", f.Name, err)
	}
	p.text = string(b)
	return p, nil
}

func (f file) policy() (Policy, error) {
	p := Policy{
		name: f.Name, vmpl: f.VMPL, guestSVN: f.MinimumGuestSVN, crl: f.RequireCRL, simulated: f.AllowSimulated,
		committed: f.Committed == nil || *f.Committed, presets: f.Presets,
	}
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if f.Name == "" {
		note(errors.New("name is missing"))
	}
	if f.VMPL > 3 {
		note(fmt.Errorf("vmpl %d: want 0 to 3", f.VMPL))
	}
	var err error
	p.references, err = references(f.ReferenceValues)
	note(err)
	p.minimum, err = minimums(f.Presets, f.MinimumTCB)
	note(err)
	p.guest, err = chosen("guest_policy", guestFlags(), f.GuestPolicy)
	note(err)
	p.platform, err = chosen("platform", platformFlags(), f.Platform)
	note(err)
	p.mitigations, err = mitigations(f.Mitigations)
	note(err)
	p.hostData, err = digests("host_data", f.HostData, (*enclave.Digest).UnmarshalText)
	note(err)
	p.idKeys, err = digests("id_keys", f.IDKeys, (*enclave.KeyDigest).UnmarshalText)
	note(err)
	p.authorKeys, err = digests("author_keys", f.AuthorKeys, (*enclave.KeyDigest).UnmarshalText)
	note(err)
	for _, c := range f.choices(&p) {
		note(c.set())
	}
	if len(errs) != 0 {
		return Policy{}, errors.Join(errs...)
	}
	return p, nil
}

// choiceOf is a key with two words; no stands for false.
type choiceOf struct {
	key, value, no, yes string
	preset              bool
	to                  *bool
}

func (f file) choices(p *Policy) []choiceOf {
	return []choiceOf{
		{"smt", f.SMT, "deny", "allow", true, &p.smt},
		{"cxl", f.CXL, "refuse", "accept", false, &p.cxl},
		{"launch_tcb", f.LaunchTCB, "ignore", "check", true, &p.launch},
		{"alias_check", f.AliasCheck, "ignore", "require", true, &p.alias},
		{"weak_boot", f.WeakBoot, "refuse", "accept", false, &p.weak},
		{"version_2_reports", f.Version2, "refuse", "accept", false, &p.version2},
		{"vlek", f.VLEK, "refuse", "accept", false, &p.vlek},
		{"masked_chips", f.MaskedChips, "refuse", "accept", false, &p.masked},
	}
}

func (c choiceOf) set() error {
	switch c.value {
	case "":
		*c.to = c.preset
	case c.no, c.yes:
		*c.to = c.value == c.yes
	default:
		return fmt.Errorf("%s %q: want %s or %s", c.key, c.value, c.no, c.yes)
	}
	return nil
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

// minimums are the presets' levels, replaced by minimum_tcb's for the parts that it names.
func minimums(presets []string, list map[string]fileTCB) (map[string]enclave.TCB, error) {
	minimum, from := map[string]enclave.TCB{}, map[string]string{}
	for _, name := range presets {
		p, ok := FindPreset(name)
		if !ok {
			return nil, fmt.Errorf("presets: unknown preset %q: want some of %s", name, strings.Join(presetNames(), ", "))
		}
		for part, t := range p.Minimum {
			if from[part] != "" {
				return nil, fmt.Errorf("presets: %s and %s both name %s: keep one", from[part], name, part)
			}
			minimum[part], from[part] = t, name
		}
	}
	for _, part := range slices.Sorted(maps.Keys(list)) {
		f := list[part]
		if !slices.Contains(parts(), part) {
			return nil, fmt.Errorf("minimum_tcb: unknown product %q: want %s", part, strings.Join(parts(), ", "))
		}
		if f.Bootloader == nil || f.TEE == nil || f.SNP == nil || f.Microcode == nil || (f.FMC == nil) == hasFMC(part) {
			return nil, fmt.Errorf("minimum_tcb: %s: want bl, tee, snp and ucode, and fmc for turin and zen5c only", part)
		}
		t := enclave.TCB{Bootloader: *f.Bootloader, TEE: *f.TEE, SNP: *f.SNP, Microcode: *f.Microcode}
		if f.FMC != nil {
			t.FMC = *f.FMC
		}
		minimum[part] = t
	}
	if len(minimum) == 0 {
		return nil, errors.New("presets and minimum_tcb are empty: no product could be affirmed")
	}
	return minimum, nil
}

func presetNames() []string {
	var out []string
	for _, p := range Presets() {
		out = append(out, p.Name)
	}
	return out
}

func mitigations(list []uint) (uint64, error) {
	var out uint64
	for _, bit := range list {
		if bit > 63 || out>>bit&1 == 1 {
			return 0, fmt.Errorf("mitigations: bit %d: want 0 to 63, each once", bit)
		}
		out |= 1 << bit
	}
	return out, nil
}

// digests reads a list of digests, none of them zero: zero is what a report says that has none.
func digests[T ~[32]byte | ~[48]byte](key string, list []string, parse func(*T, []byte) error) (map[T]bool, error) {
	if list == nil {
		return nil, nil //nolint:nilnil // no list: the policy does not ask
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s is empty: leave it out if it is not to be asked", key)
	}
	out := map[T]bool{}
	var zero T
	for i, s := range list {
		var v T
		if err := parse(&v, []byte(s)); err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", key, i, err)
		}
		if v == zero || out[v] {
			return nil, fmt.Errorf("%s[%d]: it is zero or listed twice", key, i)
		}
		out[v] = true
	}
	return out, nil
}
