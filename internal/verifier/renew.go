package verifier

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// renewNonce needs the ledger only: a job runs on when enclaved is restarted.
func (v *Verifier) renewNonce(ctx context.Context, node string, r api.NonceRequest) (api.NonceAnswer, error) {
	e, err := v.running(ctx, r.Job, node)
	if err != nil {
		return api.NonceAnswer{}, err
	}
	h := holder{r.Job, node, r.Purpose}
	if err = v.tickets.inPace(h, time.Duration(v.Config.Limits.RenewSeconds)*time.Second); err != nil {
		return api.NonceAnswer{}, err
	}
	n, err := v.tickets.give(h, v.Config.Limits.Nonce())
	if err != nil {
		return api.NonceAnswer{}, err
	}
	return v.nonceAnswer(n, e.Plan, firstEpoch, v.lines[node]), nil
}

// running finds a job that was let in, is not over, and has this node.
func (v *Verifier) running(ctx context.Context, k enclave.JobKey, node string) (ledger.Entry, error) {
	e, err := v.Ledger.Entry(ctx, k)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return e, unknownJob(k)
	case err != nil:
		return e, ledgerRefusal(err)
	case !slices.Contains(e.Job.Nodes, node):
		return e, enclave.Refuse("E128", enclave.FaultRequest, "node %s is not one of job %s", node, k)
	case e.Refusal != nil && e.Ended == nil:
		return e, e.Refusal
	case e.Started == nil || e.Ended != nil:
		return e, enclave.Refuse("E502", enclave.FaultService, "job %s is not running", k)
	}
	return e, nil
}

// Renew appraises a running job's node again. What fails ends the job: later renewals of the
// other nodes are refused with it.
func (v *Verifier) Renew(ctx context.Context, node string, a api.Announcement) (api.RenewAnswer, error) {
	if a.Node != node {
		return api.RenewAnswer{}, foreign(node, a.Node)
	}
	e, err := v.running(ctx, a.Job, node)
	if err != nil {
		return api.RenewAnswer{}, err
	}
	if err = a.CheckSignature(); err != nil || a.Epoch != firstEpoch || a.Purpose != claim.PurposeRenew {
		return api.RenewAnswer{}, enclave.Refuse("E127", enclave.FaultService, "renewal of epoch %d and purpose %d, or not signed by its key", a.Epoch, a.Purpose)
	}
	if err = v.tickets.take(a.Nonce, holder{a.Job, node, a.Purpose}, time.Now()); err != nil {
		return api.RenewAnswer{}, err
	}
	refusal, err := v.rejudge(ctx, e, node, &a)
	if err != nil {
		return api.RenewAnswer{}, ledgerRefusal(err)
	}
	switch {
	case refusal == nil:
	case refusal.Code == codeUnjudged, refusal.Code == codeLedger: // asked again, until GO ends
		return api.RenewAnswer{}, refusal
	default:
		return api.RenewAnswer{}, v.lose(ctx, a.Job, refusal)
	}
	v.affirmed(a.Job, node)
	l := v.Config.Limits
	return api.RenewAnswer{Lifetime: l.RenewGraceSeconds, Renew: l.RenewSeconds}, nil
}

// Lost takes a node's word that its part of a running job's enclave is no longer whole: somebody
// changed its fence or its mesh. A node speaks for itself only; what follows is what follows from
// evidence that fails. It is heard in a job that is being ended, too: that many nodes say the same
// is for the storm guard to know.
func (v *Verifier) Lost(ctx context.Context, node string, r api.BrokenRequest) (api.BrokenAnswer, error) {
	if r.Node != node {
		return api.BrokenAnswer{}, foreign(node, r.Node)
	}
	v.mu.Lock()
	here := v.runs[r.Job]
	stranger := here != nil && here.seen[node].IsZero()
	v.mu.Unlock()
	switch {
	case here == nil:
		return api.BrokenAnswer{}, v.notRunning(ctx, r.Job, node)
	case stranger:
		return api.BrokenAnswer{}, enclave.Refuse("E128", enclave.FaultRequest, "node %s is not one of job %s", node, r.Job)
	}
	why := clean(node, r.Refusal)
	err := v.lose(ctx, r.Job, &why)
	if decided, ok := enclave.AsRefusal(err); ok {
		return api.BrokenAnswer{Refusal: *decided}, nil
	}
	return api.BrokenAnswer{}, ledgerRefusal(err)
}

// rejudge is judge without a barrier. The policy is the one of the job's start.
func (v *Verifier) rejudge(ctx context.Context, e ledger.Entry, node string, a *api.Announcement) (*enclave.Refusal, error) {
	m, err := v.Ledger.Member(ctx, a.Job, node)
	if err != nil {
		return nil, err
	}
	c := api.JobClaim(a.Job, e.Job.HetOffset, v.digest, e.Policy, a)
	result, machine, refusal := v.appraise(ctx, e.Tenant.Policy, v.lines[node], c, a, func() error { return roster.CheckKey(a.Keys.HPKE) })
	same := m.Keys != nil && m.Keys.WireGuard == a.Keys.WireGuard && m.Keys.Ed25519 == a.Keys.Ed25519 && slices.Equal(m.Keys.HPKE, a.Keys.HPKE)
	if !same && refusal == nil {
		refusal = enclave.Refuse("E224", enclave.FaultNode, "renews with other keys than it started with")
		refusal.Node, refusal.Check = node, "keys"
	}
	return refusal, v.Ledger.AddRenewal(ctx, ledger.Evidence{
		Key: a.Job, Node: node, Purpose: uint8(a.Purpose), Epoch: a.Epoch, Nonce: a.Nonce, Keys: a.Keys,
		Evidence: a.Evidence, Result: *result, Machine: machine, Unjudged: isUnjudged(refusal), At: time.Now(),
	}, bodyDigest(a.Evidence.Report), refusal == nil)
}

// signedBody is the part of a report that its signature is over (AMD publication 56860, table
// 23): the signature itself has two spellings, and so no digest of the whole names a report.
const signedBody = 0x2a0

func bodyDigest(report []byte) enclave.Digest {
	return sha256.Sum256(report[:min(len(report), signedBody)])
}
