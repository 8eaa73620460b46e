package enclave

// CheckResult is the outcome of one named check.
type CheckResult string

// A check that could not be made is a CheckUnknown, never a pass.
const (
	CheckPass    CheckResult = "pass"
	CheckFail    CheckResult = "fail"
	CheckUnknown CheckResult = "unknown"
)

// Check is one line of an attestation result.
type Check struct {
	Name   string      `json:"name"`
	Result CheckResult `json:"result"`
	Reason string      `json:"reason"` // never empty for a failed check
}

// Status is the verdict on one node in the words of the EAT attestation result (EAR) draft.
type Status string

// StatusNone is the zero value: nothing is affirmed.
const (
	StatusNone            Status = "none"
	StatusAffirming       Status = "affirming"
	StatusWarning         Status = "warning"
	StatusContraindicated Status = "contraindicated"
)

// AttestationResult is what the verifier says of one node's evidence.
type AttestationResult struct {
	Node        string  `json:"node"`
	Status      Status  `json:"result"`
	Simulated   bool    `json:"simulated"` // the chain ends in a lab's test root
	Weak        bool    `json:"weak"`      // the reference value does not cover the root file system
	Product     string  `json:"product,omitempty"`
	TCB         string  `json:"tcb,omitempty"`         // "bl/tee/snp/ucode" in decimal
	Measurement string  `json:"measurement,omitempty"` // 96 hexadecimal digits
	ChipID      string  `json:"chip_id,omitempty"`     // 128 hexadecimal digits
	ReportID    string  `json:"report_id,omitempty"`   // 64 hexadecimal digits
	Checks      []Check `json:"checks"`

	// Endorsements are what the checks were made with. They are kept apart from the result.
	Endorsements Endorsements `json:"-"`
	// Unjudged is SNPReport's: the node is not to blame.
	Unjudged string `json:"-"`
}

// Endorsements are what a report was judged by, in DER. With them it can be judged again later,
// by somebody who has neither the store nor the lists of that day.
type Endorsements struct {
	Certificates [][]byte // VCEK or VLEK, and what else came with it
	Authorities  [][]byte // the pinned intermediate that made it, and its root; none when none did
	CRLs         [][]byte // of that root, all that were there
}

// Failed is the first failed check, or nil.
func (r AttestationResult) Failed() *Check {
	for i := range r.Checks {
		if r.Checks[i].Result != CheckPass {
			return &r.Checks[i]
		}
	}
	return nil
}

// Verdict is what is said of a whole job.
type Verdict string

// A job is protected only when all its nodes were affirmed by real hardware evidence.
const (
	VerdictProtected  Verdict = "protected"
	VerdictSimulated  Verdict = "simulated"
	VerdictRefused    Verdict = "refused"
	VerdictIncomplete Verdict = "incomplete"
)
