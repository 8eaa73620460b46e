// Package receipt is the form of a receipt: what a verifier says of one start of one job, signed, for
// somebody who trusts neither the site nor us and reads it years later.
//
// A receipt is an in-toto Statement (v1) in a DSSE envelope (v1). It carries the raw evidence and
// everything that it was judged by, so that its reader can judge again. The package encodes, signs
// and opens, and is pure: no clock, no file, no network. It believes nothing: whether a receipt
// holds is said by receipt/check. The verifier makes receipts, the command line reads them.
//
// One statement has one encoding, and only that one is opened: the JSON of the types below without
// white space, in their order. A byte that changes on the way never goes by unseen.
package receipt

import (
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// The types of what is signed.
const (
	PayloadType   = "application/vnd.in-toto+json"
	StatementType = "https://in-toto.io/Statement/v1"

	// TypeReal is a receipt of evidence that processors gave.
	TypeReal = "https://github.com/slurm-enclave/slurm-enclave/job-receipt/v1"
	// TypeSimulated is one of a lab's: it proves nothing about hardware. Its key is another, too.
	TypeSimulated = "https://github.com/slurm-enclave/slurm-enclave/simulated-job-receipt/v1"
)

// Statement is the signed document.
type Statement struct {
	Type          string    `json:"_type"`
	Subject       []Subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     Predicate `json:"predicate"`
}

// Subject is the job's start: "CLUSTER/JOB.RESTART" and the SHA-256 of predicate.job as encoded.
type Subject struct {
	Name   string        `json:"name"`
	Digest SubjectDigest `json:"digest"`
}

// SubjectDigest is a DigestSet of in-toto with its one algorithm.
type SubjectDigest struct {
	SHA256 enclave.Digest `json:"sha256"`
}

// Predicate is what is said of the start.
type Predicate struct {
	Simulated bool             `json:"simulated"`
	Weak      bool             `json:"weak"`
	Verdict   enclave.Verdict  `json:"verdict"`
	Refusal   *enclave.Refusal `json:"refusal,omitempty"`
	Chain     Chain            `json:"chain"`
	Signer    Signer           `json:"signer"`
	Verifier  Verifier         `json:"verifier"`
	Job       enclave.Job      `json:"job"`
	Tenant    enclave.Tenant   `json:"tenant"`
	Times     Times            `json:"times"`
	Policy    Policy           `json:"policy"`
	Rosters   []Roster         `json:"rosters"` // one of each epoch
	Nodes     []Node           `json:"nodes"`   // in the job's order

	// Authorities are the keys that made the certificates. None of them is to be trusted for
	// being here: a reader brings AMD's.
	Authorities []Authority `json:"authorities"`
	// Documents are certificates and revocation lists, DER, by their SHA-256 in hexadecimal.
	Documents  map[string][]byte `json:"documents"`
	NotCovered []string          `json:"not_covered"`
}

// Chain ties the receipts of a cluster together in the order they were signed.
type Chain struct {
	Sequence uint64         `json:"sequence"` // from 1
	Previous enclave.Digest `json:"previous"` // SHA-256 of the previous receipt's file, zero in the first
}

// Signer is the key under the envelope. The verifier's key vouches for it and for its role.
type Signer struct {
	Role        string            `json:"role"`
	Key         enclave.PublicKey `json:"key"` // Ed25519, raw
	Endorsement []byte            `json:"endorsement"`
}

// Verifier is who appraised. The digest of its key is in every report.
type Verifier struct {
	Key     enclave.PublicKey `json:"key"` // Ed25519, raw: it signed the rosters
	Release string            `json:"release"`
}

// Times are the verifier's.
type Times struct {
	Registered time.Time  `json:"registered"`
	Started    *time.Time `json:"started"` // GO
	Ended      *time.Time `json:"ended"`
	Sealed     time.Time  `json:"sealed"`
}

// Policy is what the evidence was appraised by. The digest is the text's SHA-256; the text is
// empty when nothing was appraised.
type Policy struct {
	Name   string         `json:"name"`
	Digest enclave.Digest `json:"digest"`
	Text   string         `json:"text"`
}

// Roster is one epoch's signed header with the leaves under its root.
type Roster struct {
	Epoch     uint32           `json:"epoch"`
	At        time.Time        `json:"at"`
	Gone      string           `json:"gone,omitempty"` // the node that left with this epoch
	Refusal   *enclave.Refusal `json:"refusal,omitempty"`
	Header    []byte           `json:"header"`
	Signature []byte           `json:"signature"`
	Peers     []enclave.Peer   `json:"peers"`
}

// Node is one node's part.
type Node struct {
	Name     string           `json:"name"`
	Enrolled Enrolled         `json:"enrolled"`
	Refusal  *enclave.Refusal `json:"refusal,omitempty"`
	Evidence []Evidence       `json:"evidence"`
	Renewals Renewals         `json:"renewals"`
	Ready    *Ready           `json:"ready"`    // null: the node never was
	Teardown Teardown         `json:"teardown"` // its last word
}

// Enrolled is what the node's first evidence was held against: its enrolment then in force, empty without one.
type Enrolled struct {
	Chip     string `json:"chip"`                // CHIP_ID in hexadecimal, all zero when it is masked
	ReportID string `json:"report_id,omitempty"` // then the REPORT_ID
}

// Claim is every field that REPORT_DATA commits to, in the transcript's order.
type Claim struct {
	Cluster     string            `json:"cluster"`
	VerifierKey enclave.Digest    `json:"verifier_key"`
	Nonce       enclave.Nonce     `json:"nonce"`
	Job         uint64            `json:"job"`
	HetOffset   uint32            `json:"het_offset"`
	Restart     uint32            `json:"restart"`
	Node        string            `json:"node"`
	WireGuard   enclave.PublicKey `json:"wireguard"`
	Ed25519     enclave.PublicKey `json:"ed25519"`
	HPKE        []byte            `json:"hpke"`
	Intent      enclave.Digest    `json:"intent"`
	Policy      enclave.Digest    `json:"policy"`
	Purpose     uint8             `json:"purpose"`
	Epoch       uint32            `json:"epoch"`
}

// Evidence is one report, what it is held against, and what was said of it.
type Evidence struct {
	At           time.Time                 `json:"at"`
	Digest       enclave.Digest            `json:"digest"` // SHA-256 of the report's signed body
	Claim        Claim                     `json:"claim"`
	Report       []byte                    `json:"report"`
	Provider     string                    `json:"provider"`
	Certificates []enclave.Digest          `json:"certificates"` // the chip's first
	CRLs         []enclave.Digest          `json:"crls"`
	Unparsed     []byte                    `json:"unparsed,omitempty"` // certificates that are none
	Result       enclave.AttestationResult `json:"result"`
}

// Renewals counts the renewals while the job ran. Whole evidence is kept of the first and the
// last one that were affirmed and of each that was not.
type Renewals struct {
	Made     uint32     `json:"made"`
	Affirmed uint32     `json:"affirmed"`
	Last     *time.Time `json:"last"` // affirmed
}

// Authority is an intermediate certificate and its root.
type Authority struct {
	Simulated    bool           `json:"simulated"` // a lab's test root: NOT trusted by anybody
	Intermediate enclave.Digest `json:"intermediate"`
	Root         enclave.Digest `json:"root"`
}

// Ready is the attested node's word at barrier 2.
type Ready struct {
	Peers   uint32  `json:"peers"`
	Storage Storage `json:"storage"`
}

// Storage is the view that the job had.
type Storage struct {
	Backend   string `json:"backend"`
	Isolation string `json:"isolation,omitempty"` // node or namespace; receipts of earlier releases do not say
	Subtree   string `json:"subtree"`
	Public    string `json:"public"`
	Assurance string `json:"assurance"`
	Transport string `json:"transport"`

	// Visible are the other network mounts that the site lets jobs see.
	Visible []string `json:"visible,omitempty"`
}

// Teardown is the attested node's word after the job.
type Teardown struct {
	Reported bool             `json:"reported"` // false: no report came, and the rest says nothing
	Closed   bool             `json:"closed"`   // the node equals its recorded closed state
	Checks   []enclave.Check  `json:"checks"`
	TookMS   int64            `json:"took_ms,omitempty"` // from the epilog's start to the last check
	Network  Network          `json:"network"`
	Refusal  *enclave.Refusal `json:"refusal,omitempty"`
}

// Network is what the node counted.
type Network struct {
	TunnelBytes  uint64 `json:"tunnel_bytes"`
	OutsideBytes uint64 `json:"outside_bytes"`
	Rejected     uint64 `json:"rejected"`
	Dropped      uint64 `json:"dropped"`
}
