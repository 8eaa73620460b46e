package appraise

import (
	"fmt"
	"maps"
	"slices"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Finding is something in a policy that its writer should have meant.
type Finding struct {
	Key  string `json:"key"`
	Text string `json:"text"`
}

// Review names what makes a policy weaker than the defaults and AMD's bulletins, or useless. It
// forbids nothing: each of these is a site's decision.
func Review(p Policy) []Finding {
	var out []Finding
	add := func(key, format string, args ...any) { out = append(out, Finding{key, fmt.Sprintf(format, args...)}) }
	if p.simulated {
		add("allow_simulated", "a lab's evidence is affirmed: no hardware protects these jobs")
	}
	covered := 0
	for _, r := range p.references {
		if r.covers[rootfs] {
			covered++
		}
	}
	switch {
	case p.weak:
		add("weak_boot", "accept: the host may have changed the disk of a node whose reference value does not cover rootfs; reports say WEAK")
	case covered == 0:
		add("reference_values", "none covers rootfs and weak_boot is refuse: no node can be affirmed")
	case covered < len(p.references):
		add("reference_values", "%d of %d do not cover rootfs and weak_boot is refuse: nodes that booted them are refused", len(p.references)-covered, len(p.references))
	}
	for _, part := range slices.Sorted(maps.Keys(p.minimum)) {
		reviewMinimum(part, p.minimum[part], add)
	}
	for _, s := range []struct {
		lax       bool
		key, text string
	}{
		{!p.launch, "launch_tcb", "ignore: guests that were launched on vulnerable firmware are affirmed after the host's update"},
		{!p.committed, "committed_equals_current", "false: the host may go back to older firmware than it reports"},
		{!p.alias, "alias_check", "ignore: manipulated memory modules are not ruled out (BadRAM, AMD-SB-3015)"},
		{!p.crl, "require_crl", "false: without a revocation list at hand a revoked key is not noticed"},
		{p.version2, "version_2_reports", "accept: reports that do not name their processor; another line's levels may pass"},
		{p.vlek, "vlek", "accept: the cloud provider vouches for the machine, not the chip's own key"},
		{p.masked, "masked_chips", "accept: a node is not tied to a chip, and has to be enrolled after every start"},
		{p.cxl, "cxl", "accept: a guest's memory may be in CXL devices"},
		{p.smt, "smt", "allow: a sibling thread may be another guest's (AMD-SB-3027 and others)"},
		{p.vmpl != 0, "vmpl", fmt.Sprintf("%d: reports are made above level 0; what runs there has to be in the reference values", p.vmpl)},
	} {
		if s.lax {
			add(s.key, "%s", s.text)
		}
	}
	return out
}

func reviewMinimum(part string, t enclave.TCB, add func(key, format string, args ...any)) {
	key := "minimum_tcb " + part
	newest, ok := NewestPreset(part)
	if !ok {
		add(key, "no preset of this release has it: follow AMD's bulletins yourself")
		return
	}
	if want := newest.Minimum[part]; !t.AtLeast(want) {
		add(key, "%s is below preset %s, %s", levels(part, t), newest.Name, levels(part, want))
	}
}

// Standing is what a report is worth under a policy apart from the question that it was made for:
// whether a node would be let in if it asked now, on the machine where it is.
func Standing(p Policy, node string, r enclave.SNPReport) enclave.AttestationResult {
	res := Appraise(p, r, Expectation{
		Node: node, ReportData: r.ReportData, Chip: r.ChipID.String(), ReportID: enclave.Digest(r.ReportID).String(),
	})
	genuine := r.Genuine && r.Version != 0 && len(r.Checks) != 0
	res.Checks = slices.DeleteFunc(res.Checks, func(c enclave.Check) bool { return c.Name == "report_data" })
	res.Status = enclave.StatusContraindicated
	if genuine && res.Failed() == nil {
		res.Status = enclave.StatusAffirming
	}
	return res
}
