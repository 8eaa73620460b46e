package ladder

import (
	"fmt"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

const (
	rootFix  = "run enclave ok as root"
	certsFix = "let the host hand out the certificates with the report, or put this chip's into /var/lib/slurm-enclave/certs"
)

// evidenceRows are device, report, verify and policy. Reports are made wherever the kernel serves
// them, whatever CPUID says.
func (f Facts) evidenceRows() []Row {
	return []Row{f.deviceRow(), f.reportRow(), f.verifyRow(), f.policyRow()}
}

func (f Facts) deviceRow() Row {
	e := f.Encryption
	switch k := f.kind(); {
	case e.TSM:
		reason := "configfs-tsm serves reports"
		if e.GuestDevice {
			reason += ", /dev/sev-guest is there"
		}
		return pass("device", reason)
	case k == host && e.HostDevice:
		return pass("device", "/dev/sev, the firmware's; reports are made in guests")
	case k == host && f.Processor.Vendor == amd:
		return fail("device", "no /dev/sev: the kernel does not talk to the firmware", "modprobe ccp, and look for ccp in the kernel's log")
	case k != snpGuest:
		return none("device", "needs sev-snp")
	case !e.GuestDevice:
		return fail("device", "no /dev/sev-guest and no configfs-tsm: module sev-guest is not loaded", "modprobe sev-guest")
	case !e.Configfs:
		return fail("device", "/dev/sev-guest is there, configfs is not mounted", "mount -t configfs configfs /sys/kernel/config")
	}
	return fail("device", "/dev/sev-guest is there, configfs-tsm is not (kernel "+or(e.Kernel, "unknown")+")",
		"boot Linux 6.7 or later with CONFIG_TSM_REPORTS, and modprobe tsm (tsm_report)")
}

func (f Facts) reportRow() Row {
	a := f.Attester
	switch {
	case a.Made:
		return pass("report", "made over random bytes")
	case a.Refusal != nil:
		return fail("report", a.Refusal.Reason, a.Refusal.Fix)
	case f.Encryption.TSM && !f.Root:
		return warn("report", "not tried: only root may ask", rootFix)
	case f.kind() == host:
		return none("report", "a host makes none; its SNP guests do")
	}
	return none("report", "needs device")
}

func (f Facts) verifyRow() Row {
	v := f.Attester.Verdict
	switch {
	case v == nil:
		return none("verify", "needs report")
	case f.invalid() && len(v.Failed) == 0:
		return fail("verify", "the report is not about our random bytes", "something between this guest and its firmware replays reports: suspect the machine")
	case f.invalid():
		return fail("verify", checksText(v.Failed), "enclave explain E220")
	case v.NoCertificate:
		return warn("verify", "unknown: no certificate of the "+or(v.Signer, "signing key")+" came with the report, and none is stored here", certsFix)
	case v.Simulated:
		return warn("verify", "SIMULATED: the chain ends in a lab's root", "")
	}
	return pass("verify", fmt.Sprintf("%s, %s, report version %d, VMPL %d, TCB %s", partName(v.Part), v.Signer, v.Version, v.VMPL, v.TCB))
}

func (f Facts) policyRow() Row {
	a := f.Attester.Appraisal
	switch {
	case !f.genuine():
		return none("policy", "needs verify")
	case a.Error != "":
		return fail("policy", "unknown: "+a.Error, "correct the file that the reason names")
	case a.Policy == "":
		return none("policy", "unknown: no policy on this machine; enclaved appraises at every job")
	case !a.Affirms:
		return f.refused()
	case a.Weak:
		return warn("policy", a.Policy+" affirms, but WEAK: what was measured does not cover the root file system", "enclave explain E230")
	}
	return pass("policy", a.Policy+" affirms; the enrolled chip is the verifier's to compare")
}

func (f Facts) refused() Row {
	a := f.Attester.Appraisal
	var checks []enclave.Check
	fix := "enclave explain E239"
	for i, failed := range a.Failed {
		checks = append(checks, failed.Check)
		if i == 0 && failed.Code != "" {
			fix = "enclave explain " + string(failed.Code)
		}
	}
	return fail("policy", a.Policy+" refuses: "+or(checksText(checks), "no reason given"), fix)
}

// invalid is true for a report that was judged and is not what it should be.
func (f Facts) invalid() bool {
	v := f.Attester.Verdict
	return v != nil && (!v.Bound || !v.Genuine && !v.NoCertificate)
}

func checksText(checks []enclave.Check) string {
	var all []string
	for _, c := range checks {
		all = append(all, c.Name+": "+c.Reason)
	}
	return strings.Join(all, "; ")
}
