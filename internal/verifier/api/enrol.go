package api

import (
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// EnrolNonceRequest asks for the nonce of an enrolment.
type EnrolNonceRequest struct {
	Node string `json:"node"`
}

// EnrolNonceAnswer holds what the enrolment's claim needs; job, restart and epoch are 0.
type EnrolNonceAnswer struct {
	Cluster string         `json:"cluster"`
	Nonce   enclave.Nonce  `json:"nonce"`
	Seconds uint32         `json:"seconds"`
	Policy  enclave.Digest `json:"policy"`
}

// EnrolRequest is a node's wish to be known. CSR holds the node's long-lived Ed25519 key, which
// is also the claim's Ed25519 key; Evidence is a report of purpose 3.
type EnrolRequest struct {
	Node     string           `json:"node"`
	Nonce    enclave.Nonce    `json:"nonce"`
	HPKE     []byte           `json:"hpke"` // thrown away; the claim has no empty field
	CSR      []byte           `json:"csr"`  // PKCS #10, DER
	Evidence enclave.Evidence `json:"evidence"`
}

// EnrolTicket names a pending wish; Fingerprint is SHA-256 of the CSR's public key, for the admin to compare.
type EnrolTicket struct {
	Fingerprint enclave.Digest `json:"fingerprint"`
}

// EnrolStatusRequest polls for the certificate.
type EnrolStatusRequest struct {
	Node        string         `json:"node"`
	Fingerprint enclave.Digest `json:"fingerprint"`
}

// EnrolStatus is "pending" or "enrolled", then with the certificate.
type EnrolStatus struct {
	State       string `json:"state"`
	Certificate []byte `json:"certificate,omitempty"` // X.509, DER
}

// States of an enrolment.
const (
	EnrolPending  = "pending"
	EnrolEnrolled = "enrolled"
)

// PendingEnrol is what the admin sees before saying yes.
type PendingEnrol struct {
	Node        string                    `json:"node"`
	Fingerprint enclave.Digest            `json:"fingerprint"`
	ChipID      string                    `json:"chip_id"`             // all zero when masked
	ReportID    string                    `json:"report_id,omitempty"` // then what stands for it until the guest is started anew
	Result      enclave.AttestationResult `json:"result"`
	Replaces    string                    `json:"replaces,omitempty"` // chip of the enrolment that this one would replace
	At          time.Time                 `json:"at"`
	From        string                    `json:"from"`
}

// PendingEnrols lists them.
type PendingEnrols struct {
	Pending []PendingEnrol `json:"pending"`
}

// ApproveRequest is the admin's yes, to this key on this chip only.
type ApproveRequest struct {
	Node        string         `json:"node"`
	Fingerprint enclave.Digest `json:"fingerprint"`
	ChipID      string         `json:"chip_id"`
	ReportID    string         `json:"report_id,omitempty"` // where the chip is masked
}

// RevokeRequest takes a node's certificate out of use, and the node out of the jobs that it is in.
type RevokeRequest struct {
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

// RevokeAnswer says which jobs that ended.
type RevokeAnswer struct {
	Ended []enclave.JobKey `json:"ended"`
}

// ProveRequest is an enrolled node's evidence outside of a job, of purpose 3: that it may come
// back to work. The claim's Ed25519 key is the node's long-lived one, as at enrolment.
type ProveRequest struct {
	Nonce    enclave.Nonce    `json:"nonce"`
	HPKE     []byte           `json:"hpke"` // thrown away; the claim has no empty field
	Evidence enclave.Evidence `json:"evidence"`
}

// ProveAnswer is how the evidence was judged.
type ProveAnswer struct {
	Result enclave.AttestationResult `json:"result"`
}

// ReturnRequest puts a node back to work that was drained by us.
type ReturnRequest struct {
	Node string `json:"node"`
}

// EnrolKeys are the claim's keys of an enrolment.
func (r EnrolRequest) EnrolKeys(node enclave.PublicKey) enclave.NodeKeys {
	return enclave.NodeKeys{Ed25519: node, HPKE: r.HPKE}
}

// EnrolClaim is the claim that node and verifier both compute.
func EnrolClaim(cluster string, verifier enclave.Digest, policy enclave.Digest, node string, nonce enclave.Nonce, k enclave.NodeKeys) claim.Claim {
	return claim.Claim{
		Cluster: cluster, VerifierKey: verifier, Nonce: nonce, Node: node, WireGuard: k.WireGuard,
		Ed25519: k.Ed25519, HPKE: k.HPKE, Policy: policy, Purpose: claim.PurposeEnrol,
	}
}

// JobClaim is the claim of a job's or a renewal's evidence.
func JobClaim(key enclave.JobKey, het uint32, verifier enclave.Digest, policy enclave.Digest, a *Announcement) claim.Claim {
	return claim.Claim{
		Cluster: key.Cluster, VerifierKey: verifier, Nonce: a.Nonce, Job: uint64(key.Job), HetOffset: het, Restart: key.Restart,
		Node: a.Node, WireGuard: a.Keys.WireGuard, Ed25519: a.Keys.Ed25519, HPKE: a.Keys.HPKE,
		Policy: policy, Purpose: a.Purpose, Epoch: a.Epoch,
	}
}
