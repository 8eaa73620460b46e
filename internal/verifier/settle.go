package verifier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Settled is EpilogSlurmctld's word that a start is over. A start that never got its GO through
// nobody's fault goes back to the queue.
func (v *Verifier) Settled(ctx context.Context, k enclave.JobKey) (api.Settlement, error) {
	k, requeued, err := v.meant(ctx, k)
	if err != nil {
		return api.Settlement{}, ledgerRefusal(err)
	}
	v.mu.Lock()
	s := v.starts[k]
	if s != nil && (s.phase == first || s.phase == second) {
		v.mu.Unlock()
		v.stopAll(s, v.cutShort(ctx, s))
		select {
		case <-s.decided:
		case <-ctx.Done():
			return api.Settlement{}, ctx.Err()
		}
		v.mu.Lock()
	}
	delete(v.starts, k)
	v.mu.Unlock()
	v.tickets.forget(k)
	v.forget(k)
	e, err := v.Ledger.Entry(ctx, k)
	switch {
	case errors.Is(err, ledger.ErrNotFound): // PrologSlurmctld was killed, or enclaved away
		return v.requeue(ctx, k, api.Settlement{Verdict: enclave.VerdictRefused, Refusal: undecided(k)}, int(k.Restart)+1)
	case err != nil:
		return api.Settlement{}, ledgerRefusal(err)
	}
	return v.settle(ctx, e, requeued)
}

// cutShort is why a start is over that nobody has decided. A state that can't be had is an end by somebody's will,
// for a job that its owner has cancelled must not come back.
func (v *Verifier) cutShort(ctx context.Context, s *start) *enclave.Refusal {
	state, err := v.Site.JobState(ctx, s.plan.Job.Job)
	if err == nil && ended(state) == gaveUp {
		return s.why(gaveUp)
	}
	return enclave.Refuse("E503", enclave.FaultRequest, "job %s ended while it was starting", s.plan.Job.JobKey)
}

// meant finds the start that EpilogSlurmctld speaks of. When Slurm has put the job back itself,
// for a prolog that failed, it says the count of the start to come (ADR 0015).
func (v *Verifier) meant(ctx context.Context, k enclave.JobKey) (start enclave.JobKey, requeued bool, err error) {
	if _, err = v.Ledger.Entry(ctx, k); err == nil || k.Restart == 0 || !errors.Is(err, ledger.ErrNotFound) {
		return k, false, ignore(err, ledger.ErrNotFound)
	}
	before := k
	before.Restart--
	e, err := v.Ledger.Entry(ctx, before)
	if err != nil || e.Ended != nil {
		return k, false, ignore(err, ledger.ErrNotFound)
	}
	return before, true, nil
}

// ignore is err, unless it is that one.
func ignore(err, one error) error {
	if errors.Is(err, one) {
		return nil
	}
	return err
}

// settle ends a start in the ledger, and gives the job another one if it deserves it and Slurm
// has not done so already.
func (v *Verifier) settle(ctx context.Context, e ledger.Entry, requeued bool) (api.Settlement, error) {
	k := e.Job.JobKey
	out := api.Settlement{Go: e.Started != nil, Verdict: e.Verdict, Refusal: e.Refusal}
	if e.Ended != nil { // a second call must not requeue what the first one did
		return out, nil
	}
	if !out.Go && out.Refusal == nil {
		out.Verdict, out.Refusal = enclave.VerdictRefused, undecided(k)
		if err := v.Ledger.Decide(ctx, k, ledger.Verdict{Verdict: out.Verdict, Refusal: out.Refusal}, time.Now()); err != nil {
			v.endLater(e)
			return api.Settlement{}, ledgerRefusal(err)
		}
	}
	if err := v.Ledger.End(ctx, k, time.Now()); err != nil {
		v.endLater(e)
		return api.Settlement{}, ledgerRefusal(err)
	}
	v.wakeSealer()
	if out.Requeued = requeued; out.Go || requeued {
		return out, nil
	}
	n, err := v.Ledger.Refusals(ctx, k.Cluster, k.Job, enclave.FaultNode, enclave.FaultService)
	if err != nil {
		return out, ledgerRefusal(err)
	}
	return v.requeue(ctx, k, out, n)
}

// endLater keeps a start's end that the ledger can't take. EpilogSlurmctld then decides alone whether the
// job is put back.
func (v *Verifier) endLater(e ledger.Entry) {
	v.later.keep(e.Job.JobKey, "the end", func(ctx context.Context) error {
		now, err := v.Ledger.Entry(ctx, e.Job.JobKey) // its decision may have been kept, too
		if err == nil {
			err = v.settleForgotten(ctx, now)
		}
		if err == nil {
			v.wakeSealer()
		}
		return err
	})
}

func undecided(k enclave.JobKey) *enclave.Refusal {
	return enclave.Refuse("E516", enclave.FaultService, "the start of job %s was never decided", k)
}

// requeue puts a job back, unless its user or admin ended it, or it was refused too many times.
// Starts that the policy refused don't count: those jobs wait for the admin.
func (v *Verifier) requeue(ctx context.Context, k enclave.JobKey, out api.Settlement, times int) (api.Settlement, error) {
	if out.Refusal.Fault == enclave.FaultRequest {
		return out, nil
	}
	state, err := v.Site.JobState(ctx, k.Job)
	if err == nil && slices.Contains([]string{"CANCELLED", "TIMEOUT", "DEADLINE", "PREEMPTED"}, state.State) {
		return out, nil
	}
	if most := v.Config.Controller.MaxRestarts; uint64(times) > uint64(most) {
		out.Refusal = enclave.Refuse("E505", enclave.FaultService, "job %s was refused %d times, last: %s", k, times, out.Refusal.Reason)
		out.Refusal.Fix = "see enclave why, then submit again"
		v.alarm(ctx, "E505", out.Refusal.Reason)
		return out, nil
	}
	err = v.Site.Requeue(ctx, k, fmt.Sprintf("enclave:%s %s", out.Refusal.Code, printable(out.Refusal.Reason, maxReason)))
	if unfit, ok := enclave.AsRefusal(err); ok { // salloc, srun, --no-requeue
		out.Refusal = unfit
		return out, nil
	}
	if err != nil {
		v.alarm(ctx, "E515", fmt.Sprintf("job %s could not be requeued: %v", k, err))
		return out, nil
	}
	out.Requeued = true
	return out, nil
}
