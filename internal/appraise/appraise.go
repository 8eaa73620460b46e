package appraise

import (
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Expectation is what the verifier knows of a node before it sees the evidence.
type Expectation struct {
	Node       string
	ReportData [64]byte // of the claim that the verifier computed itself
	Chip       string   // the enrolled CHIP_ID in hexadecimal, all zero when it was masked
	ReportID   string   // then the enrolled REPORT_ID, which is another one after every start of the guest
	Enrolment  bool     // no chip is enrolled yet: an admin will see it and decide
}

// appraisal is one run of Appraise.
type appraisal struct {
	policy Policy
	report enclave.SNPReport
	want   Expectation

	reference *reference // the value that matched
}

// judgement is one named check; its result and reason are for the attestation result.
type judgement struct {
	name string
	code enclave.Code
	run  func(*appraisal) (ok bool, reason string)
}

func judgements() []judgement {
	return []judgement{
		{"report_data", "E228", (*appraisal).reportData},
		{"report_version", "E260", (*appraisal).reportVersion},
		{"signer", "E261", (*appraisal).signer},
		{"measurement", "E229", (*appraisal).measurement},
		{"debug", "E231", (*appraisal).debug},
		{"migration", "E232", (*appraisal).migration},
		{"vmpl", "E233", (*appraisal).vmpl},
		{"smt", "E234", (*appraisal).smt},
		{"guest_policy", "E262", (*appraisal).guestPolicy},
		{"host_data", "E264", (*appraisal).hostData},
		{"id_key", "E266", (*appraisal).idKey},
		{"author_key", "E267", (*appraisal).authorKey},
		{"guest_svn", "E268", (*appraisal).guestSVN},
		{"tcb_minimum", "E235", (*appraisal).tcbMinimum},
		{"tcb_launch", "E265", (*appraisal).tcbLaunch},
		{"tcb_committed", "E236", (*appraisal).tcbCommitted},
		{"platform", "E263", (*appraisal).platform},
		{"alias_check", "E269", (*appraisal).aliasCheck},
		{"mitigations", "E270", (*appraisal).mitigations},
		{"chip", "E237", (*appraisal).chip},
		{"simulated", "E238", (*appraisal).simulated},
		{"covers", "E230", (*appraisal).covers},
	}
}

// CodeGenuine is the code of every check that snp makes but crl.
const CodeGenuine enclave.Code = "E220"

// CodeOf is the code of a failed check, by its name in the attestation result.
func CodeOf(check string) enclave.Code {
	if check == "crl" {
		return "E239"
	}
	for _, j := range judgements() {
		if j.name == check {
			return j.code
		}
	}
	return CodeGenuine
}

// Appraise makes all checks, whatever fails: an admin wants to mend a node once. The checks of
// snp come first. The node is affirmed only when the report is genuine and every check passed.
func Appraise(p Policy, r enclave.SNPReport, want Expectation) enclave.AttestationResult {
	a := &appraisal{policy: p, report: r, want: want}
	res := enclave.AttestationResult{
		Node: want.Node, Status: enclave.StatusContraindicated, Simulated: r.Simulated, Product: r.Product,
		Endorsements: r.Endorsements, Unjudged: r.Unjudged,
	}
	for _, c := range r.Checks {
		if c.Name == "crl" && res.Failed() == nil { // it was reached
			c = a.crl(c)
		}
		res.Checks = append(res.Checks, c)
	}
	read := r.Version != 0 // else there are no fields, and zeros must not pass for some
	if read {
		res.Measurement, res.ChipID = r.Measurement.String(), r.ChipID.String()
		res.ReportID = enclave.Digest(r.ReportID).String()
	}
	if r.Product != "" {
		res.TCB = r.ReportedTCB.String()
	}
	affirmed := read && r.Genuine && len(r.Checks) != 0
	for _, j := range judgements() {
		c := enclave.Check{Name: j.name, Result: enclave.CheckUnknown, Reason: "the report could not be read"}
		if read {
			var ok bool
			ok, c.Reason = j.run(a)
			c.Result = enclave.CheckFail
			if ok {
				c.Result = enclave.CheckPass
			}
		}
		res.Checks = append(res.Checks, c)
	}
	res.Weak = p.weak && a.reference != nil && !a.reference.covers[rootfs]
	if affirmed && res.Failed() == nil {
		res.Status = enclave.StatusAffirming
	}
	return res
}

// crl decides what an open question of revocation is worth.
func (a *appraisal) crl(c enclave.Check) enclave.Check {
	if c.Result != enclave.CheckUnknown {
		return c
	}
	if a.policy.crl {
		return enclave.Check{Name: c.Name, Result: enclave.CheckFail, Reason: c.Reason + ", and the policy requires one"}
	}
	return enclave.Check{Name: c.Name, Result: enclave.CheckPass, Reason: c.Reason + ", and the policy does not require one"}
}

func (a *appraisal) reportData() (bool, string) {
	if a.report.ReportData != a.want.ReportData || a.want.ReportData == [64]byte{} {
		return false, "the report was made for other keys, another job, nonce, node or verifier"
	}
	return true, "the report names this node's keys, this job and this nonce"
}

func (a *appraisal) measurement() (bool, string) {
	r, ok := a.policy.references[a.report.Measurement]
	if !ok {
		return false, fmt.Sprintf("launch digest %s... is none of the policy's %d reference values",
			a.report.Measurement.String()[:16], len(a.policy.references))
	}
	a.reference = &r
	return true, "launch digest of " + r.name
}

func (a *appraisal) debug() (bool, string) {
	if a.report.Debug {
		return false, "the guest policy lets the host decrypt the guest (debug)"
	}
	return true, "the host may not decrypt the guest"
}

func (a *appraisal) migration() (bool, string) {
	if a.report.MigrationAgent {
		return false, "the guest policy allows a migration agent"
	}
	return true, "no migration agent"
}

func (a *appraisal) vmpl() (bool, string) {
	if a.report.VMPL != a.policy.vmpl {
		return false, fmt.Sprintf("the report was asked for at VMPL %d, the policy wants %d", a.report.VMPL, a.policy.vmpl)
	}
	return true, fmt.Sprintf("VMPL %d", a.report.VMPL)
}

func (a *appraisal) smt() (bool, string) {
	switch {
	case !a.report.SMT:
		return true, "two threads of a core are not used"
	case !a.policy.smt:
		return false, "the guest policy allows SMT, the site's does not"
	case a.report.PlatformInfo&platformSMT != 0:
		return true, "SMT is allowed, and on"
	}
	return true, "SMT is allowed, and off on this machine"
}

func (a *appraisal) tcbMinimum() (bool, string) {
	minimum, ok := a.policy.minimum[a.report.Part]
	got := a.report.ReportedTCB
	switch {
	case !ok:
		return false, fmt.Sprintf("the policy names no minimum_tcb for product %q", a.report.Part)
	case !got.AtLeast(minimum):
		return false, fmt.Sprintf("firmware bl/tee/snp/ucode %s is older than the policy's %s%s", got, minimum, fmc(a.report.Part, got, minimum))
	}
	return true, fmt.Sprintf("firmware bl/tee/snp/ucode %s, at least %s", got, minimum)
}

func fmc(part string, got, minimum enclave.TCB) string {
	if !hasFMC(part) {
		return ""
	}
	return fmt.Sprintf(" (fmc %d, %d)", got.FMC, minimum.FMC)
}

// tcbCommitted refuses firmware that the host can still take back.
func (a *appraisal) tcbCommitted() (bool, string) {
	current, committed := a.report.CurrentTCB, a.report.CommittedTCB
	if current == committed && a.report.Part != "" {
		return true, "the running firmware is committed"
	}
	if !a.policy.committed && a.report.Part != "" {
		return true, fmt.Sprintf("running %s, committed %s, which the policy allows", current, committed)
	}
	return false, fmt.Sprintf("the host runs firmware %s and may go back to %s, which is what it committed", current, committed)
}

// chip holds the report to the machine that an admin enrolled under the node's name. Where the
// host masks CHIP_ID, the enrolled REPORT_ID stands for it: the firmware draws it when the guest is
// launched, and no host can choose it.
func (a *appraisal) chip() (bool, string) {
	got := a.report.ChipID
	masked := got == enclave.ChipID{}
	switch {
	case masked && !a.policy.masked:
		return false, "CHIP_ID is masked: it names no machine"
	case masked && a.report.ReportID == [32]byte{}:
		return false, "CHIP_ID is masked and there is no REPORT_ID"
	case a.want.Enrolment && masked:
		return true, "CHIP_ID is masked, REPORT_ID " + a.reportID()[:16] + "... is for the admin to confirm"
	case a.want.Enrolment:
		return true, "CHIP_ID " + got.String()[:16] + "... is for the admin to confirm"
	case a.want.Chip == "":
		return false, "no chip is enrolled for this node"
	}
	var want enclave.ChipID
	if err := want.UnmarshalText([]byte(a.want.Chip)); err != nil {
		return false, "the enrolled chip is no CHIP_ID"
	}
	switch {
	case got != want && masked:
		return false, fmt.Sprintf("CHIP_ID is masked, enrolled is chip %s...", want.String()[:16])
	case got != want && want == enclave.ChipID{}:
		return false, fmt.Sprintf("the report is of chip %s..., and the node was enrolled with its CHIP_ID masked", got.String()[:16])
	case got != want:
		return false, fmt.Sprintf("the report is of chip %s..., enrolled is %s...", got.String()[:16], want.String()[:16])
	case masked:
		return a.sameGuest()
	}
	return true, "the enrolled chip " + got.String()[:16] + "..."
}

func (a *appraisal) reportID() string { return enclave.Digest(a.report.ReportID).String() }

func (a *appraisal) sameGuest() (bool, string) {
	var want enclave.Digest
	if err := want.UnmarshalText([]byte(a.want.ReportID)); err != nil {
		return false, "CHIP_ID is masked, and no REPORT_ID is enrolled for this node"
	}
	if a.report.ReportID != want {
		return false, fmt.Sprintf("CHIP_ID is masked, and REPORT_ID is %s..., enrolled is %s...: the guest was started anew, or it is another one",
			a.reportID()[:16], want.String()[:16])
	}
	return true, "CHIP_ID is masked; the enrolled REPORT_ID " + a.reportID()[:16] + "..."
}

func (a *appraisal) simulated() (bool, string) {
	switch {
	case !a.report.Simulated:
		return true, "the keys are AMD's"
	case a.policy.simulated:
		return true, "SIMULATED evidence, which the policy allows"
	}
	return false, "SIMULATED evidence: a lab's keys, no hardware"
}

func (a *appraisal) covers() (bool, string) {
	switch {
	case a.reference == nil:
		return false, "no reference value matched, so nothing is covered"
	case a.reference.covers[rootfs]:
		return true, "the reference value covers the root file system"
	case a.policy.weak:
		return true, "WEAK: the reference value does not cover the root file system; the host may have changed it"
	}
	return false, "the reference value does not cover the root file system: the host may have changed it"
}
