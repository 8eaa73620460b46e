package ladder

import "fmt"

const (
	needAMD   = "use a machine with an AMD EPYC 7003 (Milan) or later: SEV-SNP is AMD's"
	bootSNP   = "boot this node as an SEV-SNP guest (QEMU: sev-snp-guest, libvirt: launchSecurity type='sev-snp')"
	biosSNP   = "switch SEV-SNP on in the BIOS (SMEE, SNP memory coverage, IOMMU), boot Linux 6.11 or later, load kvm_amd with sev_snp=1"
	simulates = "not looked at: the lab's attester stands in for it"
)

// SYSCFG of a host (AMD APM volume 2, 3.2.1): whether BIOS and kernel switched it on.
const (
	syscfgSME = 1 << 23
	syscfgSNP = 1 << 24
)

// processorRows are cpu to sev-snp.
func (f Facts) processorRows() []Row {
	cpu := f.cpuRow()
	names := []string{"sme", "sev", "sev-es", "sev-snp"}
	skip := func(reason string) []Row {
		rows := []Row{cpu}
		for _, n := range names {
			rows = append(rows, none(n, reason))
		}
		return rows
	}
	switch {
	case f.simulated():
		cpu = none("cpu", f.cpuName()+"; "+simulates)
		return skip(simulates)
	case f.Processor.Vendor != amd:
		return skip("needs cpu: it is AMD's")
	case f.kind() == host:
		return []Row{cpu, f.hostSME(), f.hostRow("sev", sev), f.hostRow("sev-es", es), f.hostSNP()}
	}
	return []Row{
		cpu, none("sme", "the host's: a guest does not see it"),
		f.guestRow("sev", sev), f.guestRow("sev-es", es), f.guestRow("sev-snp", snp),
	}
}

func (f Facts) cpuName() string {
	p := f.Processor
	return fmt.Sprintf("%s (%s family %#x model %#x stepping %d)", or(p.Name, "no name"), or(p.Vendor, "no vendor"), p.Family, p.Model, p.Stepping)
}

func (f Facts) cpuRow() Row {
	p := f.Processor
	if p.Vendor != amd {
		return fail("cpu", f.cpuName()+": no SEV", needAMD)
	}
	name, has := epyc(p.Family, p.Model)
	switch {
	case f.kind() != host:
		return pass("cpu", f.generation()+": "+f.cpuName()+", as the hypervisor shows it")
	case name == "":
		return warn("cpu", f.cpuName()+": no generation of EPYC that this release knows", "see docs/compatibility.md, or use a newer release")
	case !has:
		return fail("cpu", "AMD EPYC "+name+": SEV-SNP begins with Milan", needAMD)
	}
	return pass("cpu", "AMD EPYC "+name+": "+f.cpuName())
}

// guestRow says whether this guest runs under the feature.
func (f Facts) guestRow(name string, want feature) Row {
	on, sure, source := f.active(want)
	switch {
	case on && sure:
		return pass(name, "on, says "+source)
	case on:
		return warn(name, "on, says "+source+"; SEV_STATUS was not read: "+or(f.Encryption.StatusError, "no reason given"),
			"modprobe msr, then run enclave ok as root")
	}
	return fail(name, "off, says "+source, bootSNP)
}

func (f Facts) hostSME() Row {
	c := f.Encryption.SysCfg
	switch {
	case !f.Processor.SME:
		return fail("sme", "the processor does not show it", needAMD)
	case c != nil && *c&syscfgSME == 0:
		return fail("sme", fmt.Sprintf("off in the BIOS, says SYSCFG %#x", *c), biosSNP)
	case c != nil:
		return pass("sme", fmt.Sprintf("on, says SYSCFG %#x", *c))
	}
	return pass("sme", "the processor has it; whether the BIOS switched it on was not read")
}

// hostRow says whether guests of this host can have the feature.
func (f Facts) hostRow(name string, want feature) Row {
	value, known := f.Encryption.KVM[want.kvm]
	switch {
	case !want.cpuid(f.Processor):
		return fail(name, "the processor does not show it", needAMD)
	case f.Encryption.KVM == nil:
		return warn(name, "the processor has it; kvm_amd is not loaded", "modprobe kvm_amd")
	case !known:
		return fail(name, "kvm_amd of this kernel has no parameter "+want.kvm, biosSNP)
	case value != "Y" && value != "1":
		return fail(name, "kvm_amd: "+want.kvm+"="+value, biosSNP)
	}
	return pass(name, "kvm_amd: "+want.kvm+"="+value)
}

// hostSNP tells a BIOS that has it off from a kernel that does.
func (f Facts) hostSNP() Row {
	row := f.hostRow("sev-snp", snp)
	c := f.Encryption.SysCfg
	if row.Result != Fail || !f.Processor.SNP || c == nil {
		return row
	}
	if *c&syscfgSNP == 0 {
		row.Reason += fmt.Sprintf("; off in BIOS or kernel, says SYSCFG %#x", *c)
		return row
	}
	row.Reason += "; BIOS and kernel have it on"
	row.Fix = "load kvm_amd with sev_snp=1 (kvm_amd.sev_snp=1 on the kernel's command line)"
	return row
}
