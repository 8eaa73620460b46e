package appraise

import (
	"fmt"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// reportVersion: a report of version 2 names no processor, so an old firmware's numbers can pass
// for another line's, and it does not say whether memory is aliased.
func (a *appraisal) reportVersion() (bool, string) {
	if a.report.Version >= 3 {
		return true, fmt.Sprintf("version %d", a.report.Version)
	}
	if a.policy.version2 {
		return true, fmt.Sprintf("version %d, which the policy accepts", a.report.Version)
	}
	return false, fmt.Sprintf("version %d names no processor and no alias check", a.report.Version)
}

// signer: a VLEK is a cloud's, the same on all of its machines.
func (a *appraisal) signer() (bool, string) {
	switch {
	case a.report.Signer == "VCEK":
		return true, "VCEK"
	case a.report.Signer == "VLEK" && a.policy.vlek:
		return true, "VLEK, which the policy accepts"
	}
	return false, fmt.Sprintf("signed by %s, not by the chip's own key (VCEK)", a.report.Signer)
}

func (a *appraisal) guestPolicy() (bool, string) {
	if a.report.Policy&guestCXL != 0 && !a.policy.cxl {
		return false, "the guest policy allows memory in CXL devices"
	}
	if m := missing(a.policy.guest, a.report.Policy); len(m) != 0 {
		return false, "the guest policy does not demand " + strings.Join(m, ", ")
	}
	return true, fmt.Sprintf("guest policy %#x", a.report.Policy)
}

func (a *appraisal) hostData() (bool, string) {
	got := enclave.Digest(a.report.HostData)
	switch {
	case len(a.policy.hostData) == 0:
		return true, "HOST_DATA is not asked for"
	case a.policy.hostData[got]:
		return true, "HOST_DATA " + got.String()[:16] + "..."
	}
	return false, "HOST_DATA " + got.String()[:16] + "... is not in the policy's list"
}

func (a *appraisal) idKey() (bool, string) {
	return listed("ID key", a.report.IDKeyDigest, a.policy.idKeys)
}

func (a *appraisal) authorKey() (bool, string) {
	return listed("author key", a.report.AuthorKeyDigest, a.policy.authorKeys)
}

func listed(what string, got enclave.KeyDigest, want map[enclave.KeyDigest]bool) (bool, string) {
	switch {
	case len(want) == 0:
		return true, "no " + what + " is asked for"
	case want[got]:
		return true, what + " " + got.String()[:16] + "..."
	case got == enclave.KeyDigest{}:
		return false, "the guest was launched without " + what
	}
	return false, what + " " + got.String()[:16] + "... is not in the policy's list"
}

func (a *appraisal) guestSVN() (bool, string) {
	if a.report.GuestSVN < a.policy.guestSVN {
		return false, fmt.Sprintf("the image's security version is %d, at least %d is wanted", a.report.GuestSVN, a.policy.guestSVN)
	}
	return true, fmt.Sprintf("security version %d of the image", a.report.GuestSVN)
}

// tcbLaunch: firmware can be updated under a running guest, but what an old one did to the guest
// when it was launched stays done.
func (a *appraisal) tcbLaunch() (bool, string) {
	got := a.report.LaunchTCB
	minimum, ok := a.policy.minimum[a.report.Part]
	switch {
	case ok && got.AtLeast(minimum):
		return true, fmt.Sprintf("launched on firmware %s", got)
	case !a.policy.launch && ok:
		return true, fmt.Sprintf("launched on firmware %s, which the policy ignores", got)
	case !ok:
		return false, fmt.Sprintf("the policy names no minimum_tcb for product %q", a.report.Part)
	}
	return false, fmt.Sprintf("the guest was launched on firmware %s, older than the policy's %s%s", got, minimum, fmc(a.report.Part, got, minimum))
}

func (a *appraisal) platform() (bool, string) {
	if m := missing(a.policy.platform, a.report.PlatformInfo); len(m) != 0 {
		return false, "the machine does not have " + strings.Join(m, ", ")
	}
	return true, fmt.Sprintf("platform info %#x", a.report.PlatformInfo)
}

// aliasCheck: BadRAM makes two addresses of one cell of memory, and the host writes by the one
// what the guest owns by the other (AMD-SB-3015).
func (a *appraisal) aliasCheck() (bool, string) {
	switch {
	case a.report.PlatformInfo&platformAlias != 0:
		return true, "the firmware looked for aliased memory and found none"
	case !a.policy.alias:
		return true, "no alias check was made, which the policy ignores"
	case a.report.Version < 3:
		return true, "a version 2 report does not say"
	}
	return false, "the firmware did not look for aliased memory (BadRAM, AMD-SB-3015)"
}

// mitigations asks for both: what was in force at launch, and what is now.
func (a *appraisal) mitigations() (bool, string) {
	want := a.policy.mitigations
	if want&^(a.report.LaunchMitigations&a.report.CurrentMitigations) != 0 {
		return false, fmt.Sprintf("mitigation vector at launch %#x, now %#x, the policy wants %#x in both",
			a.report.LaunchMitigations, a.report.CurrentMitigations, want)
	}
	return true, fmt.Sprintf("mitigation vector %#x", a.report.CurrentMitigations)
}
