// Package api is what travels between nodes, controller, people and the verifier: the paths,
// the JSON bodies, and the bytes that a node signs.
//
// It has no client and no server. Decode is strict: a field it does not know, a second
// document after the first, or one byte over the limit is an error.
package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
)

// Paths of the verifier's API. Node paths need a node's certificate, people's a munge
// credential; controller and admin paths exist on the controller's Unix socket only.
const (
	PathNonce    = "/v1/node/nonce"
	PathEvidence = "/v1/node/evidence"
	PathLeaves   = "/v1/node/leaves"
	PathReady    = "/v1/node/ready"
	PathBroken   = "/v1/node/broken"
	PathDecision = "/v1/node/decision"
	PathRenew    = "/v1/node/renew"
	PathWatch    = "/v1/node/watch"
	PathLost     = "/v1/node/lost"
	PathTeardown = "/v1/node/teardown"
	PathProve    = "/v1/node/prove"

	PathEnrolNonce   = "/v1/enrol/nonce"
	PathEnrolRequest = "/v1/enrol/request"
	PathEnrolStatus  = "/v1/enrol/status"

	PathReport = "/v1/people/report"
	PathJobs   = "/v1/people/jobs"
	PathMe     = "/v1/people/me"
	PathShares = "/v1/people/shares"
	PathNodes  = "/v1/people/nodes"
	PathLatest = "/v1/people/evidence"

	PathReceipt     = "/v1/people/receipt"
	PathReceipts    = "/v1/people/receipts"
	PathReceiptKeys = "/v1/people/receipt-keys"

	PathRegister     = "/v1/controller/register"
	PathSettled      = "/v1/controller/epilog"
	PathEnrolPending = "/v1/admin/enrol/pending"
	PathEnrolApprove = "/v1/admin/enrol/approve"
	PathRevoke       = "/v1/admin/revoke"
	PathReturn       = "/v1/admin/return"
	PathChips        = "/v1/admin/chips"
)

// MaxBody bounds every request; the largest is evidence with a full certificate table. MaxLocal
// bounds those over the Unix socket, whose callers the kernel has named before anything is read:
// the registration of a job of 16,384 nodes with names of 40 letters.
const (
	MaxBody  = 256 << 10
	MaxLocal = 1 << 20
)

// RegisterRequest is the controller's word on a job, before any node starts it.
type RegisterRequest struct {
	Job    enclave.Job `json:"job"`
	Tenant string      `json:"tenant"`            // as the user chose; "" leaves it to the account
	HetJob uint32      `json:"het_job,omitempty"` // id of the heterogeneous job that this is a component of; 0 for other jobs
}

// RegisterAnswer says what the job will be given.
type RegisterAnswer struct {
	Tenant string `json:"tenant"`
	Epoch  uint32 `json:"epoch"`
}

// SettledRequest is the controller's word that a job's start is over on all nodes.
type SettledRequest struct {
	Job enclave.JobKey `json:"job"`
}

// Settlement is what became of the start.
type Settlement struct {
	Go       bool             `json:"go"`       // all ranks were let in
	Requeued bool             `json:"requeued"` // the site role put the job back in the queue
	Verdict  enclave.Verdict  `json:"verdict"`
	Refusal  *enclave.Refusal `json:"refusal,omitempty"`
}

// NonceRequest opens a node's part in a job. HPKE (1216 bytes, MLKEM768X25519) is the key that its
// announcement will hold, when it has it already: the verifier prepares the seed's envelope
// meanwhile. It binds nobody; what counts is the key of the announcement.
type NonceRequest struct {
	Job     enclave.JobKey `json:"job"`
	Node    string         `json:"node"`
	Purpose claim.Purpose  `json:"purpose"`
	HPKE    []byte         `json:"hpke,omitempty"`
}

// NonceAnswer is every field of the claim that the node cannot know itself.
type NonceAnswer struct {
	Nonce     enclave.Nonce  `json:"nonce"`
	Seconds   uint32         `json:"seconds"` // of the nonce's life
	Epoch     uint32         `json:"epoch"`
	HetOffset uint32         `json:"het_offset"`
	Policy    enclave.Digest `json:"policy"`
	Self      enclave.Node   `json:"self"` // the node's line of the inventory
}

// NodeRequest names a node's part in a job; it is all that leaves need.
type NodeRequest struct {
	Job   enclave.JobKey `json:"job"`
	Node  string         `json:"node"`
	Epoch uint32         `json:"epoch"`
}

// EvidenceAnswer wraps the roster's answer.
type EvidenceAnswer struct {
	Answer roster.Answer `json:"answer"`
}

// ReadyRequest says that mesh, fence and subtree of a node are up and read back.
type ReadyRequest struct {
	NodeRequest
	PhasesMS map[string]int64 `json:"phases_ms"`
	Network  Network          `json:"network"`
	Storage  Storage          `json:"storage"`
}

// ReadyAnswer is the GO. Lifetime is how long it counts without a renewal, Renew how often the
// node proves itself again.
type ReadyAnswer struct {
	Lifetime uint32          `json:"lifetime_seconds"`
	Renew    uint32          `json:"renew_seconds"`
	Verdict  enclave.Verdict `json:"verdict"`
	Weak     bool            `json:"weak"`
}

// BrokenRequest is a node's own word that it can't take part: before GO to PathBroken, in a job that
// runs to PathLost.
type BrokenRequest struct {
	NodeRequest
	Refusal enclave.Refusal `json:"refusal"`
}

// BrokenAnswer is what was decided of it: the node obeys this fault, not its own.
type BrokenAnswer struct {
	Refusal enclave.Refusal `json:"refusal"`
}

// RenewAnswer prolongs a node's GO.
type RenewAnswer struct {
	Lifetime uint32 `json:"lifetime_seconds"` // from receipt; never beyond the job's own end
	Renew    uint32 `json:"renew_seconds"`
}

// WatchRequest asks to be told when the roster is no longer that of Epoch. The nonce is the
// node's own and new for each call: an answer with a new roster names it.
type WatchRequest struct {
	NodeRequest
	Nonce enclave.Nonce `json:"nonce"`
}

// WatchAnswer comes at once when the roster has changed, and without one when nothing happened
// for WatchSeconds. A node that left, or whose job is over, gets a refusal in its place.
type WatchAnswer struct {
	Gone   []string       `json:"gone,omitempty"` // all nodes that left the first roster
	Answer *roster.Answer `json:"answer,omitempty"`
}

// WatchSeconds is how long a watch is held.
const WatchSeconds = 25

// TeardownRequest is a node's last word on a job.
type TeardownRequest struct {
	NodeRequest
	Closed   bool             `json:"closed"` // the node equals its recorded closed state
	Checks   []enclave.Check  `json:"checks"`
	PhasesMS map[string]int64 `json:"phases_ms"`
	Network  Network          `json:"network"`
	Refusal  *enclave.Refusal `json:"refusal,omitempty"` // set when Closed is false
}

// Packed is the answer to a call for leaves: all peers in the roster's order, by roster.Pack. It is
// the same for all nodes of a job and never changes.
type Packed []byte

// Empty is the answer that says nothing but yes.
type Empty struct{}

// ErrorBody is the body of every answer that is not 200.
type ErrorBody struct {
	Refusal enclave.Refusal `json:"refusal"`
}

// Decode reads exactly one JSON document of at most limit bytes into v.
func Decode(r io.Reader, limit int64, v any) error {
	in := &io.LimitedReader{R: r, N: limit + 1}
	d := json.NewDecoder(in)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	switch {
	case in.N <= 0:
		return fmt.Errorf("decode body: over %d bytes", limit)
	case err != nil:
		return fmt.Errorf("decode body: %w", err)
	}
	if _, err = d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("decode body: more than one document")
	}
	return nil
}
