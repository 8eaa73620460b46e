package ladder

import (
	"fmt"
	"slices"
	"strings"
)

// kind is what sort of machine asks.
type kind string

const (
	host     kind = "bare-metal host"
	plainVM  kind = "plain VM"
	sevGuest kind = "SEV guest"
	esGuest  kind = "SEV-ES guest"
	snpGuest kind = "SNP guest"
	tdxGuest kind = "TDX guest"
)

const amd = "AuthenticAMD"

// feature is one step of AMD's memory encryption.
type feature struct {
	name   string // as the kernel's log and our rows spell it
	status uint64 // its bit in SEV_STATUS
	cpuid  func(Processor) bool
	kvm    string // its parameter of kvm_amd
}

var (
	sev = feature{"SEV", 1 << 0, func(p Processor) bool { return p.SEV }, "sev"}
	es  = feature{"SEV-ES", 1 << 1, func(p Processor) bool { return p.SEVES }, "sev_es"}
	snp = feature{"SEV-SNP", 1 << 2, func(p Processor) bool { return p.SNP }, "sev_snp"}
)

// active says whether this guest runs under a feature, and who says so. It is sure unless CPUID
// alone speaks: some hypervisors show a guest what the host could do.
func (f Facts) active(want feature) (on, sure bool, source string) {
	e := f.Encryption
	switch {
	case f.genuine() && !f.Attester.Verdict.Simulated:
		return true, true, "the verified report"
	case !f.Processor.SEV:
		return false, true, "CPUID"
	case e.Status != nil:
		return *e.Status&want.status != 0, true, fmt.Sprintf("SEV_STATUS %#x", *e.Status)
	case e.Active != nil:
		return slices.Contains(e.Active, want.name), true, "the kernel's log"
	case e.VMPL != "":
		return true, true, "sysfs"
	}
	return want.cpuid(f.Processor), false, "CPUID alone"
}

// genuine is true for a verified report that answers our question.
func (f Facts) genuine() bool {
	v := f.Attester.Verdict
	return v != nil && v.Genuine && v.Bound
}

func (f Facts) simulated() bool { return f.genuine() && f.Attester.Verdict.Simulated }

func (f Facts) kind() kind {
	switch {
	case f.Processor.TDX:
		return tdxGuest
	case !f.Processor.Hypervisor:
		return host
	case f.Processor.Vendor != amd:
		return plainVM
	}
	for _, k := range []struct {
		feature
		kind
	}{{snp, snpGuest}, {es, esGuest}, {sev, sevGuest}} {
		if on, _, _ := f.active(k.feature); on {
			return k.kind
		}
	}
	return plainVM
}

// machine is the kind with processor, hypervisor and container.
func (f Facts) machine() string {
	p := f.Processor
	s := string(f.kind())
	if p.Hypervisor && p.HypervisorVendor != "" {
		s += " of " + p.HypervisorVendor
	}
	s += ", " + f.generation()
	if p.Container != "" {
		s += ", inside a container (" + p.Container + ")"
	}
	return s
}

// generation names the processor. In a guest the report knows better than CPUID, which shows
// the model that the hypervisor was told to show.
func (f Facts) generation() string {
	p := f.Processor
	switch {
	case p.Vendor == "GenuineIntel":
		return "Intel"
	case p.Vendor == "":
		return "unknown processor"
	case p.Vendor != amd:
		return p.Vendor
	}
	if f.genuine() && !f.simulated() {
		return "AMD EPYC " + partName(f.Attester.Verdict.Part)
	}
	if name, _ := epyc(p.Family, p.Model); name != "" {
		return "AMD EPYC " + name
	}
	return fmt.Sprintf("AMD family %#x model %#x", p.Family, p.Model)
}

func partName(part string) string {
	switch part {
	case "":
		return "unknown"
	case "zen4c":
		return "Siena or Bergamo"
	case "zen5c":
		return "Turin Dense"
	}
	name, more, _ := strings.Cut(part, "-")
	name = strings.ToUpper(name[:1]) + name[1:]
	if more != "" {
		name += "-" + strings.ToUpper(more) // with stacked cache
	}
	return name
}

// epyc names a generation of server processors by family and model, and says whether it has
// SEV-SNP. The ranges are those of AMD's revision guides; Ryzen and Threadripper share some.
func epyc(family, model int) (name string, hasSNP bool) {
	switch {
	case family == 0x17 && model <= 0x0f:
		return "Naples", false
	case family == 0x17 && model >= 0x30 && model <= 0x3f:
		return "Rome", false
	case family == 0x19 && model <= 0x0f:
		return "Milan", true
	case family == 0x19 && model >= 0x10 && model <= 0x1f:
		return "Genoa", true
	case family == 0x19 && model >= 0xa0 && model <= 0xaf:
		return "Siena or Bergamo", true
	case family == 0x1a && model <= 0x1f:
		return "Turin", true
	}
	return "", false
}
