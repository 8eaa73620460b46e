package ladder

import "fmt"

// Result is how a rung stands.
type Result string

// The results.
const (
	Pass Result = "pass"
	Fail Result = "fail"
	Warn Result = "warn" // not needed, or not known
	None Result = "none" // does not apply to this machine, or the rung below it fails
)

// Row is one rung.
type Row struct {
	Name   string `json:"name"`
	Result Result `json:"result"`
	Reason string `json:"reason"`
	Fix    string `json:"fix,omitempty"`
}

func pass(name, reason string) Row      { return Row{name, Pass, reason, ""} }
func none(name, reason string) Row      { return Row{name, None, reason, ""} }
func fail(name, reason, fix string) Row { return Row{name, Fail, reason, fix} }
func warn(name, reason, fix string) Row { return Row{name, Warn, reason, fix} }

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Outcome is what the rungs come to. The zero value is no outcome.
type Outcome string

// The outcomes.
const (
	Ready   Outcome = "ready"   // every needed rung holds
	Below   Outcome = "below"   // the evidence is genuine, and a needed rung fails
	Unknown Outcome = "unknown" // no attestation is possible here, or it could not be judged
	Invalid Outcome = "invalid" // a report was made, and it is not genuine
)

// Ladder is one machine, judged.
type Ladder struct {
	Machine    string  `json:"machine"`   // what kind of machine it is
	Simulated  bool    `json:"simulated"` // the report chains to a lab's root: nothing is proved
	Outcome    Outcome `json:"outcome"`
	Fix        string  `json:"fix"` // the one thing to do first; "" when there is nothing
	Rows       []Row   `json:"rows"`
	Conclusion string  `json:"conclusion"`
}

// Climb judges the facts.
func Climb(f Facts) Ladder {
	l := Ladder{Machine: f.machine(), Simulated: f.simulated()}
	for _, rows := range [][]Row{f.processorRows(), f.evidenceRows(), f.kernelRows(), f.slurmRows()} {
		l.Rows = append(l.Rows, rows...)
	}
	l.Outcome = l.outcome(f)
	l.Fix = l.first(f)
	l.Conclusion = l.conclusion(f)
	return l
}

func (l Ladder) outcome(f Facts) Outcome {
	switch {
	case f.invalid():
		return Invalid
	case !f.genuine() || f.Attester.Appraisal.Error != "":
		return Unknown
	case l.count(Fail) > 0:
		return Below
	}
	return Ready
}

func (l Ladder) count(r Result) int {
	n := 0
	for _, row := range l.Rows {
		if row.Result == r {
			n++
		}
	}
	return n
}

// first is the fix of the lowest rung that fails, else of the lowest that warns: what stands
// above may mend itself.
func (l Ladder) first(f Facts) string {
	for _, r := range []Result{Fail, Warn} {
		if f.kind() == host && r == Warn && l.Outcome == Unknown {
			return "nothing here; boot SNP guests on this host and run enclave ok in them"
		}
		for _, row := range l.Rows {
			if row.Result == r && row.Fix != "" {
				return row.Fix
			}
		}
	}
	return ""
}

const cpuSEVNeedsSNP = "no attestation is possible; cpu-sev needs SNP"

func (l Ladder) conclusion(f Facts) string {
	switch l.Outcome {
	case Invalid:
		return "the report is not genuine: this machine proves nothing"
	case Unknown:
		return f.unknown()
	case Below:
		return fmt.Sprintf("%d of %d rungs fail: cpu-sev cannot use this node yet", l.count(Fail), len(l.Rows))
	}
	if l.Simulated {
		return "SIMULATED: every needed rung holds in the lab; it proves nothing about hardware"
	}
	return "every needed rung holds: cpu-sev can use this node"
}

// unknown says why no attestation came about.
func (f Facts) unknown() string {
	a := f.Attester
	switch k := f.kind(); {
	case a.Appraisal.Error != "" && f.genuine():
		return "the report is genuine, and could not be appraised here"
	case a.Verdict != nil:
		return "the report could not be verified here: its certificate is missing"
	case a.Refusal != nil:
		return "no report could be made: no attestation is possible until that is mended"
	case f.Encryption.TSM:
		return "no report was made: only root may ask for one"
	case k == snpGuest:
		return "SNP guest without a device for reports: no attestation is possible until it is there"
	case k == esGuest:
		return "SEV-ES without SNP: " + cpuSEVNeedsSNP
	case k == sevGuest:
		return "SEV without SNP: " + cpuSEVNeedsSNP
	case k == tdxGuest:
		return "TDX guest: " + cpuSEVNeedsSNP
	case f.Processor.Vendor != amd:
		return "no AMD processor: " + cpuSEVNeedsSNP
	case k == host && f.hostSNP().Result == Pass:
		return "a host makes no report: nodes of cpu-sev are its SNP guests"
	case k == host:
		return "SEV-SNP is off on this host: its guests cannot be attested; cpu-sev needs SNP"
	}
	return "VM without SEV: " + cpuSEVNeedsSNP
}
