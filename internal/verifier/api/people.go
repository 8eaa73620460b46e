package api

import (
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Network is what a node counted, summed over the nodes in a report.
type Network struct {
	Peers        uint32 `json:"peers"`
	TunnelBytes  uint64 `json:"tunnel_bytes"`
	OutsideBytes uint64 `json:"outside_bytes"`
	Rejected     uint64 `json:"rejected"`
	Dropped      uint64 `json:"dropped"`
}

// Storage is what a node mounted.
type Storage struct {
	Backend   string `json:"backend"`             // bind or lustre
	Isolation string `json:"isolation,omitempty"` // node or namespace: where the view is seen; "" from a release that did not say
	Subtree   string `json:"subtree"`             // relative to the file system's root
	Public    string `json:"public"`              // where the job sees it
	Assurance string `json:"assurance"`           // L1 client view, L2 enforced by the server
	Transport string `json:"transport"`           // fabric-trusted, ssk or wireguard

	// Visible are the other network mounts that the site lets jobs see.
	Visible []string `json:"visible,omitempty"`
}

// NodeReport is one node of a report.
type NodeReport struct {
	Name        string           `json:"name"`
	Result      enclave.Status   `json:"result"`
	Simulated   bool             `json:"simulated"`
	Weak        bool             `json:"weak"`
	Product     string           `json:"product,omitempty"`
	TCB         string           `json:"tcb,omitempty"`
	Measurement string           `json:"measurement,omitempty"`
	ChipID      string           `json:"chip_id,omitempty"`
	Checks      []enclave.Check  `json:"checks"`
	Refusal     *enclave.Refusal `json:"refusal,omitempty"`
	Renewals    int              `json:"renewals"` // how often it was affirmed again while the job ran
	Renewed     *time.Time       `json:"renewed,omitempty"`
	Closed      *bool            `json:"closed,omitempty"` // what the epilog found; absent while the job runs
	TimelineMS  map[string]int64 `json:"timeline_ms"`
}

// Departure is a node that left the roster of a running job.
type Departure struct {
	Node    string           `json:"node"`
	Epoch   uint32           `json:"epoch"` // of the roster without it
	At      time.Time        `json:"at"`
	Refusal *enclave.Refusal `json:"refusal,omitempty"`
}

// Report is the document behind `enclave report JOBID`.
type Report struct {
	Job        uint32           `json:"job"`
	Restart    uint32           `json:"restart"`
	Cluster    string           `json:"cluster"`
	User       string           `json:"user"`
	UID        uint32           `json:"uid"`
	Account    string           `json:"account"`
	Partition  string           `json:"partition"`
	Tenant     string           `json:"tenant"`
	Verdict    enclave.Verdict  `json:"verdict"`
	Weak       bool             `json:"weak"`
	Nodes      []NodeReport     `json:"nodes"`
	Network    Network          `json:"network"`
	Storage    Storage          `json:"storage"`
	TimelineMS map[string]int64 `json:"timeline_ms"` // per phase, the slowest node's
	NotCovered []string         `json:"not_covered"`
	Receipt    string           `json:"receipt"` // "not yet", or "sha256:" and the digest of its file
	Sequence   uint64           `json:"receipt_sequence,omitempty"`
	Refusal    *enclave.Refusal `json:"refusal,omitempty"`
	Departures []Departure      `json:"departures,omitempty"`
	Registered time.Time        `json:"registered"`
	Started    *time.Time       `json:"started,omitempty"` // GO
	Ended      *time.Time       `json:"ended,omitempty"`
}

// JobLine is one job of a list.
type JobLine struct {
	Job        uint32          `json:"job"`
	Restart    uint32          `json:"restart"`
	User       string          `json:"user"`
	Account    string          `json:"account"`
	Partition  string          `json:"partition"`
	Tenant     string          `json:"tenant"`
	Nodes      []string        `json:"nodes"`
	Verdict    enclave.Verdict `json:"verdict"`
	Weak       bool            `json:"weak"`
	Code       enclave.Code    `json:"code,omitempty"`
	Registered time.Time       `json:"registered"`
	Ended      *time.Time      `json:"ended,omitempty"`
}

// Jobs is the document behind `enclave jobs`.
type Jobs struct {
	Jobs []JobLine `json:"jobs"`
}

// NodeLine is one node's posture.
type NodeLine struct {
	Name        string           `json:"name"`
	Enrolled    bool             `json:"enrolled"`
	ChipID      string           `json:"chip_id,omitempty"`
	ReportID    string           `json:"report_id,omitempty"`   // where the chip is masked
	Fingerprint string           `json:"fingerprint,omitempty"` // SHA-256 of the certificate
	EnrolledAt  *time.Time       `json:"enrolled_at,omitempty"`
	Result      enclave.Status   `json:"result"` // of the latest evidence
	LastJob     string           `json:"last_job,omitempty"`
	LastSeen    *time.Time       `json:"last_seen,omitempty"`
	RevokedAt   *time.Time       `json:"revoked_at,omitempty"` // of the last enrolment, when none is in force
	Drained     bool             `json:"drained"`              // by us, and not resumed by us since
	Refusal     *enclave.Refusal `json:"refusal,omitempty"`
}

// Nodes is the document behind `enclave nodes`.
type Nodes struct {
	Nodes    []NodeLine        `json:"nodes"`
	Alarms   []Alarm           `json:"alarms"`
	Counters map[string]uint64 `json:"counters"`
}

// NodeEvidence is the last evidence that a node sent, as it came. What the verifier said of it
// then stands beside it; who asks can judge it again.
type NodeEvidence struct {
	Node     string                    `json:"node"`
	Job      string                    `json:"job,omitempty"` // JOBID.RESTART, none for an enrolment
	At       time.Time                 `json:"at"`
	Evidence enclave.Evidence          `json:"evidence"`
	Result   enclave.AttestationResult `json:"result"`
}

// Alarm is something an admin should know of.
type Alarm struct {
	Code   enclave.Code `json:"code"`
	Reason string       `json:"reason"`
	At     time.Time    `json:"at"`
}

// Question is what a person's munge credential is made for: method and request URI. A
// credential that was caught on the way can't ask anything else.
func Question(method, uri string) string { return "slurm-enclave/people/v1 " + method + " " + uri }
