package verifier

import (
	"context"
	"slices"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Nonce gives a node the nonce for its evidence. The first one of a job starts the deadline of
// both its barriers.
func (v *Verifier) Nonce(ctx context.Context, node string, r api.NonceRequest) (api.NonceAnswer, error) {
	switch {
	case r.Node != node:
		return api.NonceAnswer{}, foreign(node, r.Node)
	case r.Purpose == claim.PurposeRenew:
		return v.renewNonce(ctx, node, r)
	case r.Purpose != claim.PurposeJob:
		return api.NonceAnswer{}, enclave.Refuse("E129", enclave.FaultService, "purpose %d has no nonce here", r.Purpose)
	}
	s, x, err := v.find(r.Job, node)
	if err != nil {
		if kept := v.kept(ctx, r.Job, node); kept != nil {
			return api.NonceAnswer{}, kept
		}
		return api.NonceAnswer{}, err
	}
	if err = v.speak(s, x); err != nil {
		return api.NonceAnswer{}, err
	}
	v.prepare(x, r.HPKE)
	n, err := v.tickets.give(holder{r.Job, node, r.Purpose}, v.Config.Limits.Nonce())
	if err != nil {
		return api.NonceAnswer{}, err
	}
	return v.nonceAnswer(n, s.plan, s.epoch, x.node), nil
}

func (v *Verifier) nonceAnswer(n enclave.Nonce, p ledger.Plan, epoch uint32, node enclave.Node) api.NonceAnswer {
	return api.NonceAnswer{
		Nonce: n, Seconds: v.Config.Limits.NonceSeconds, Epoch: epoch,
		HetOffset: p.Job.HetOffset, Policy: p.Policy, Self: node,
	}
}

// speak notes that the node is there; the first node to be starts the deadline and the watcher.
func (v *Verifier) speak(s *start, x *seat) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.life.Err() != nil {
		return enclave.Refuse("E509", enclave.FaultService, "enclaved is stopping")
	}
	if s.phase > first {
		return tooLate(s.plan.Job.JobKey, x.denial)
	}
	x.spoke = true
	if s.phase == registered {
		s.phase, s.deadline = first, time.Now().Add(v.Config.Limits.Barrier())
		v.jobs.Go(func() { v.watch(s) })
	}
	return nil
}

func foreign(node, claimed string) error {
	return enclave.Refuse("E128", enclave.FaultService, "node %s speaks for node %q", node, claimed)
}

// tooLate is the answer to a node that comes after the decision.
func tooLate(k enclave.JobKey, denial *enclave.Refusal) error {
	if denial != nil {
		return denial
	}
	return enclave.Refuse("E125", enclave.FaultService, "barrier 1 of job %s is closed", k)
}

// kept is the refusal of a registration, for the nodes of that job: nil when there is none.
func (v *Verifier) kept(ctx context.Context, k enclave.JobKey, node string) error {
	e, err := v.Ledger.Entry(ctx, k)
	if err != nil || e.Refusal == nil || e.Refusal.Fault != enclave.FaultRequest || !slices.Contains(e.Job.Nodes, node) {
		return nil //nolint:nilerr // no entry: the caller knows what to say
	}
	return e.Refusal
}
