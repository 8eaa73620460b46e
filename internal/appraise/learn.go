package appraise

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Sample is a verified report to learn from.
type Sample struct {
	From   string // node or file, for the comments
	Report enclave.SNPReport
}

// Draft is a policy for an admin to decide on.
type Draft struct {
	Text   string   `json:"policy"`
	Decide []string `json:"decide"` // what only the admin can know
}

// ErrNotGenuine is returned for evidence that proves nothing.
var ErrNotGenuine = errors.New("the evidence is not genuine")

// Learn writes the policy that admits the samples' machines and as little else as can be. It
// never fills in covers, so what it writes affirms nothing before an admin has. Evidence that is not
// genuine is refused, a lab's too unless simulated is true, and what no policy can allow.
func Learn(name string, samples []Sample, simulated bool) (Draft, error) {
	if len(samples) == 0 {
		return Draft{}, errors.New("learn policy: no evidence")
	}
	for _, s := range samples {
		if err := learnable(s.Report, simulated); err != nil {
			return Draft{}, fmt.Errorf("learn policy from %s: %w", s.From, err)
		}
	}
	d := &draft{samples: samples}
	d.head(name)
	d.references()
	d.levels()
	if err := d.rest(); err != nil {
		return Draft{}, err
	}
	if _, err := Load(strings.NewReader(d.text.String())); err != nil {
		return Draft{}, fmt.Errorf("learn policy: %w", err)
	}
	return Draft{Text: d.text.String(), Decide: d.decide}, nil
}

func learnable(r enclave.SNPReport, simulated bool) error {
	switch {
	case !r.Genuine || r.Version == 0 || len(r.Checks) == 0:
		return ErrNotGenuine
	case r.Simulated && !simulated:
		return fmt.Errorf("%w: it is SIMULATED, and --allow-simulated is not given", ErrNotGenuine)
	case r.Debug:
		return errors.New("its guest policy allows debugging, which no policy can accept")
	case r.MigrationAgent:
		return errors.New("its guest policy allows a migration agent, which no policy can accept")
	case r.Measurement == enclave.Measurement{}:
		return errors.New("its measurement is zero")
	case !slices.Contains(parts(), r.Part):
		return fmt.Errorf("its product %q has no patch levels here", r.Part)
	}
	return nil
}

type draft struct {
	samples []Sample
	minimum map[string]enclave.TCB // as it was written
	text    strings.Builder
	decide  []string
}

func (d *draft) line(format string, args ...any) { fmt.Fprintf(&d.text, format+"\n", args...) }

// question writes a comment that begins with DECIDE, and notes it for those who read no comments.
func (d *draft) question(format string, args ...any) {
	q := fmt.Sprintf(format, args...)
	d.decide = append(d.decide, q)
	d.line("# DECIDE %s", q)
}

func (d *draft) any(f func(enclave.SNPReport) bool) bool {
	return slices.ContainsFunc(d.samples, func(s Sample) bool { return f(s.Report) })
}

func (d *draft) head(name string) {
	if d.any(func(r enclave.SNPReport) bool { return r.Simulated }) {
		d.line("# SIMULATED: learned from a lab's evidence, which proves nothing about hardware.")
	}
	d.line("# A draft by enclave policy learn. It would admit these machines as they are today:")
	for _, s := range d.samples {
		d.line("#   %s: %s, chip %s, version %d, %s, firmware %s", comment(s.From), s.Report.Part, chipName(s.Report), s.Report.Version, s.Report.Signer,
			levels(s.Report.Part, s.Report.ReportedTCB))
	}
	d.line("# That they run what you installed is not shown by this: learn from machines that you have installed yourself and trust today.")
	d.line("# Nothing is affirmed before you have filled in covers. Then: enclave policy check FILE. All keys: slurm-enclave-policy(5).")
	d.line("")
	d.line("name: %s", name)
	d.line("")
}

func chipName(r enclave.SNPReport) string {
	if r.ChipID == (enclave.ChipID{}) {
		return "masked"
	}
	return r.ChipID.String()[:16] + "..."
}

// comment makes text safe for a comment and a name.
func comment(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, s)
}

func (d *draft) references() {
	d.question("covers: what does each digest say something about? firmware; kernel (with initrd and command line); rootfs (dm-verity, its root hash in the command line). Plain OVMF: firmware only, and the host may swap the disk")
	d.line("reference_values:")
	seen := map[enclave.Measurement]bool{}
	for _, s := range d.samples {
		if m := s.Report.Measurement; !seen[m] {
			seen[m] = true
			d.line("  - name: \"learned from %s\"", comment(s.From))
			d.line("    measurement: \"%s\"", m)
			d.line("    covers: []")
		}
	}
	d.line("")
}

// levels names for each part the newest preset that its machines meet, and else what they have.
func (d *draft) levels() {
	least := map[string]enclave.TCB{}
	for _, s := range d.samples {
		t := s.Report.ReportedTCB
		if old, ok := least[s.Report.Part]; ok {
			t = lower(old, t)
		}
		least[s.Report.Part] = t
	}
	var presets []string
	own := map[string]enclave.TCB{}
	for _, part := range slices.Sorted(maps.Keys(least)) {
		met := d.level(part, least[part])
		switch {
		case met == "":
			own[part] = least[part]
		case !slices.Contains(presets, met):
			presets = append(presets, met)
		}
	}
	d.write(presets, own)
}

// level finds the newest preset that t meets, and asks about newer ones.
func (d *draft) level(part string, t enclave.TCB) string {
	newest, known := NewestPreset(part)
	if !known {
		d.question("minimum_tcb %s: no preset of this release has it. These are the levels of the machine itself: compare them with AMD's bulletins", part)
		return ""
	}
	for _, p := range slices.Backward(Presets()) {
		minimum, ok := p.Minimum[part]
		if !ok || !t.AtLeast(minimum) {
			continue
		}
		if p.Name != newest.Name {
			d.question("presets %s: %s is newer and asks for %s, which these machines (%s) do not meet. Update their firmware, then raise it",
				part, newest.Name, levels(part, newest.Minimum[part]), levels(part, t))
		}
		return p.Name
	}
	d.question("minimum_tcb %s: these machines (%s) meet no preset, %s asks for %s. Their firmware has known holes: update it rather than admit it",
		part, levels(part, t), newest.Name, levels(part, newest.Minimum[part]))
	return ""
}

// write puts presets and own levels down. Two presets that name one part can't stand together:
// then all levels are written out.
func (d *draft) write(presets []string, own map[string]enclave.TCB) {
	if _, err := minimums(presets, nil); err != nil && len(presets) != 0 {
		for _, s := range d.samples {
			for _, name := range presets {
				p, _ := FindPreset(name)
				if t, ok := p.Minimum[s.Report.Part]; ok && own[s.Report.Part] == (enclave.TCB{}) {
					own[s.Report.Part] = t
				}
			}
		}
		presets = nil
	}
	d.minimum, _ = minimums(presets, nil) // no error is left, and empty is none
	if d.minimum == nil {
		d.minimum = map[string]enclave.TCB{}
	}
	maps.Copy(d.minimum, own)
	if len(presets) != 0 {
		d.line("presets: [%s]", strings.Join(presets, ", "))
	}
	if len(own) != 0 {
		d.line("minimum_tcb:")
		for _, part := range slices.Sorted(maps.Keys(own)) {
			d.line("  %s: %s", part, levels(part, own[part]))
		}
	}
	d.line("")
}

func lower(a, b enclave.TCB) enclave.TCB {
	return enclave.TCB{
		FMC: min(a.FMC, b.FMC), Bootloader: min(a.Bootloader, b.Bootloader), TEE: min(a.TEE, b.TEE), SNP: min(a.SNP, b.SNP),
		Microcode: min(a.Microcode, b.Microcode),
	}
}

// rest are the switches: the default wherever the machines allow it.
func (d *draft) rest() error {
	vmpl := d.samples[0].Report.VMPL
	if d.any(func(r enclave.SNPReport) bool { return r.VMPL != vmpl }) {
		return errors.New("learn policy: the machines make their reports at different VMPLs: they need a policy each")
	}
	if vmpl != 0 {
		d.question("vmpl: reports are made at level %d. What runs at the levels below (an SVSM, a paravisor) has to be in the reference values", vmpl)
	}
	d.line("vmpl: %d", vmpl)
	d.choice("smt", "deny", "allow", "two threads may share a core, and a sibling may be another guest's", func(r enclave.SNPReport) bool { return r.SMT })
	d.choice("cxl", "refuse", "accept", "the guest's memory may be in CXL devices", func(r enclave.SNPReport) bool { return r.Policy&guestCXL != 0 })
	d.choice("committed_equals_current", "true", "false", "the host can go back to older firmware (snphost commit ends that)",
		func(r enclave.SNPReport) bool { return r.CurrentTCB != r.CommittedTCB })
	d.choice("launch_tcb", "check", "ignore", "a guest was launched on firmware below the minimum: start it anew and keep check",
		func(r enclave.SNPReport) bool { return !r.LaunchTCB.AtLeast(d.minimum[r.Part]) })
	d.choice("alias_check", "require", "ignore", "the firmware did not look for aliased memory (BadRAM, AMD-SB-3015)",
		func(r enclave.SNPReport) bool { return r.Version >= 3 && r.PlatformInfo&platformAlias == 0 })
	d.choice("version_2_reports", "refuse", "accept", "these reports do not name their processor: update the SEV firmware", func(r enclave.SNPReport) bool { return r.Version < 3 })
	d.choice("vlek", "refuse", "accept", "a cloud provider's key signed, not the chip's own", func(r enclave.SNPReport) bool { return r.Signer == "VLEK" })
	d.choice("masked_chips", "refuse", "accept", "the host masks CHIP_ID: nodes have to be enrolled after every start",
		func(r enclave.SNPReport) bool { return r.ChipID == enclave.ChipID{} })
	d.line("weak_boot: refuse")
	d.question("require_crl: true once enclave certs sync or you keep AMD's revocation lists current")
	d.line("require_crl: false")
	d.choice("allow_simulated", "false", "true", "a lab's evidence; never in production", func(r enclave.SNPReport) bool { return r.Simulated })
	d.optional()
	return nil
}

// choice writes the strict word, or the lax one with a question where a machine needs it.
func (d *draft) choice(key, strict, lax, why string, needed func(enclave.SNPReport) bool) {
	if !d.any(needed) {
		d.line("%s: %s", key, strict)
		return
	}
	d.question("%s: %s", key, why)
	d.line("%s: %s", key, lax)
}

// optional shows what the reports have and the policy could ask for.
func (d *draft) optional() {
	seen := map[string]bool{}
	add := func(key, value string) {
		if s := key + value; !seen[s] {
			seen[s] = true
			d.line("# %s: [\"%s\"]   # as these machines have it; asked for only when it is no comment", key, value)
		}
	}
	for _, s := range d.samples {
		if h := enclave.Digest(s.Report.HostData); h != (enclave.Digest{}) {
			add("host_data", h.String())
		}
		if s.Report.IDKeyDigest != (enclave.KeyDigest{}) {
			add("id_keys", s.Report.IDKeyDigest.String())
		}
		if s.Report.AuthorKeyDigest != (enclave.KeyDigest{}) {
			add("author_keys", s.Report.AuthorKeyDigest.String())
		}
	}
}
