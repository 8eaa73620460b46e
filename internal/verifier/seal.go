package verifier

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
)

// Limits of one round of sealing.
const (
	sealAtOnce               = 64          // receipts in one round
	askSlurm                 = time.Minute // between questions about jobs that nobody said to be over
	codeReceipt enclave.Code = "E525"
)

// ReceiptKeys sign receipts. A simulated receipt never bears the key of a real one, and neither is
// the verifier's own.
type ReceiptKeys struct {
	Real      ed25519.PrivateKey
	Simulated ed25519.PrivateKey
}

func (k ReceiptKeys) check(verifier ed25519.PrivateKey) error {
	switch {
	case len(k.Real) != ed25519.PrivateKeySize || len(k.Simulated) != ed25519.PrivateKeySize:
		return errors.New("the keys of receipts are missing")
	case bytes.Equal(k.Real, k.Simulated), bytes.Equal(k.Real, verifier), bytes.Equal(k.Simulated, verifier):
		return errors.New("two of the keys of verifier, receipts and simulated receipts are one")
	}
	return nil
}

func (k ReceiptKeys) of(role string) ed25519.PrivateKey {
	if role == receipt.RoleReal {
		return k.Real
	}
	return k.Simulated
}

// Over tells that a job may have become ready for its receipt.
func (v *Verifier) Over() <-chan struct{} { return v.over }

// Enrolments tells that a node was enrolled or revoked.
func (v *Verifier) Enrolments() <-chan struct{} { return v.fleet }

func (v *Verifier) tellFleet() {
	select {
	case v.fleet <- struct{}{}:
	default:
	}
}

func (v *Verifier) wakeSealer() {
	select {
	case v.over <- struct{}{}:
	default:
	}
}

// SealDue makes the receipts of all starts that are over and whose nodes have said their last word,
// or were waited for long enough. What can't be sealed is an alarm and stays due: nothing is lost.
// It is called in turn, never twice at the same time.
func (v *Verifier) SealDue(ctx context.Context) error {
	errs := errors.Join(v.later.write(ctx), v.endForgotten(ctx))
	list, err := v.Ledger.Unsealed(ctx, v.Config.Cluster, sealAtOnce)
	if err != nil {
		return errors.Join(errs, err)
	}
	now := time.Now()
	for _, e := range list {
		if ctx.Err() != nil {
			return errors.Join(errs, ctx.Err())
		}
		due, err := v.due(ctx, e, now)
		if err == nil && due {
			err = v.seal(ctx, e)
		}
		errs = errors.Join(errs, err)
	}
	return errs
}

// due is true when there is nothing to wait for any more.
func (v *Verifier) due(ctx context.Context, e ledger.Entry, now time.Time) (bool, error) {
	if now.Sub(v.since(e, now)) >= v.Config.Limits.Receipt() {
		return true, nil
	}
	told, err := v.Ledger.TornDown(ctx, e.Job.JobKey)
	return err == nil && told >= len(e.Job.Nodes), err
}

// since is when a start's receipt began to wait. The ledger's time is the wall's, which somebody may
// set meanwhile: once it is known how long ago that was, this process's own clock counts.
func (v *Verifier) since(e ledger.Entry, now time.Time) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	at, known := v.ended[e.Job.JobKey]
	if !known {
		at = now.Add(-max(0, now.Sub(*e.Ended)))
		v.ended[e.Job.JobKey] = at
	}
	return at
}

// seal makes a receipt for the place that it will most likely have, before the ledger is held: a
// large job's takes seconds. If the chain has grown since, which this process alone could have done, it
// is made again for the place that it gets.
func (v *Verifier) seal(ctx context.Context, e ledger.Entry) error {
	k, now := e.Job.JobKey, time.Now()
	parts, err := v.parts(ctx, e)
	if err != nil {
		v.alarmOnce(ctx, k, err)
		return err
	}
	s := statement(parts)
	file := func(sequence uint64, previous enclave.Digest) (ledger.Sealed, error) {
		s.Predicate.Chain = receipt.Chain{Sequence: sequence, Previous: previous}
		s.Predicate.Times.Sealed = now.UTC().Truncate(time.Millisecond)
		key := v.Receipts.of(receipt.RoleFor(s.PredicateType))
		s.Predicate.Signer = receipt.Endorse(v.Key, receipt.RoleFor(s.PredicateType), key.Public().(ed25519.PublicKey)) //nolint:forcetypeassert // an Ed25519 key's is
		b, bad := receipt.Seal(key, s)
		return ledger.Sealed{Digest: sha256.Sum256(b), Envelope: b}, bad
	}
	var ahead ledger.Sealed
	head, err := v.Ledger.Head(ctx, k.Cluster)
	if err == nil || errors.Is(err, ledger.ErrNotFound) {
		ahead, err = file(head.Sequence+1, head.Digest)
	}
	if err == nil {
		_, err = v.Ledger.Seal(ctx, k, now, func(sequence uint64, previous enclave.Digest) (ledger.Sealed, error) {
			if sequence == head.Sequence+1 && previous == head.Digest {
				return ahead, nil
			}
			return file(sequence, previous)
		})
	}
	if err != nil {
		v.alarmOnce(ctx, k, err)
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.ended, k)
	delete(v.unsealed, k)
	return nil
}

// alarmOnce tells of a receipt that can't be made when it fails for the first time, and then every
// hour or so: the sealer comes by every few seconds.
func (v *Verifier) alarmOnce(ctx context.Context, k enclave.JobKey, err error) {
	v.mu.Lock()
	last, told := v.unsealed[k]
	again := !told || time.Since(last) >= time.Hour
	if again {
		v.unsealed[k] = time.Now()
	}
	v.mu.Unlock()
	if again {
		v.alarm(ctx, codeReceipt, fmt.Sprintf("job %s has no receipt yet, it is tried again: %v", k, err))
	}
}

// endForgotten ends starts whose end nobody reported, because enclaved was away then: a later
// start is there, or Slurm has said twice that the job is no longer alive. Once is not enough:
// EpilogSlurmctld may be on its way, and decides on the requeue.
func (v *Verifier) endForgotten(ctx context.Context) error {
	if time.Since(v.asked) < askSlurm {
		return nil
	}
	v.asked = time.Now()
	v.sweepGo(ctx)
	list, err := v.Ledger.Unended(ctx, v.Config.Cluster, maxList)
	if err != nil {
		return err
	}
	dead := map[enclave.JobKey]bool{}
	for _, e := range list {
		over, err := v.forgotten(ctx, e)
		if err != nil {
			return err
		}
		k := e.Job.JobKey
		dead[k] = over
		if !over || !v.dead[k] {
			continue
		}
		if err = v.settleForgotten(ctx, e); err != nil {
			return err
		}
	}
	v.dead = dead
	return nil
}

func (v *Verifier) forgotten(ctx context.Context, e ledger.Entry) (bool, error) {
	k := e.Job.JobKey
	v.mu.Lock()
	s := v.starts[k]
	deciding := s != nil && (s.phase == first || s.phase == second)
	v.mu.Unlock()
	if deciding {
		return false, nil
	}
	latest, err := v.Ledger.Latest(ctx, k.Cluster, k.Job)
	if err != nil || latest.Job.Restart > k.Restart {
		return err == nil, err
	}
	// A later one with a lower count is of another job with this number, or its registration was read late.
	state, err := v.Site.JobState(ctx, k.Job)
	return err == nil && !isAlive(state, k), nil // Slurm may be away: it is asked again
}

// isAlive is true while Slurm has this very start of the job: the number may be another job's by now.
func isAlive(s enclave.JobState, k enclave.JobKey) bool { return s.Alive && s.Restart == k.Restart }

// settleForgotten is settle without a requeue, which was EpilogSlurmctld's to do without enclaved.
func (v *Verifier) settleForgotten(ctx context.Context, e ledger.Entry) error {
	k := e.Job.JobKey
	if e.Started == nil && e.Refusal == nil {
		row := ledger.Verdict{Verdict: enclave.VerdictRefused, Refusal: undecided(k)}
		if err := v.Ledger.Decide(ctx, k, row, time.Now()); err != nil {
			return err
		}
	}
	if err := v.Ledger.End(ctx, k, time.Now()); err != nil {
		return err
	}
	v.mu.Lock()
	delete(v.starts, k)
	v.mu.Unlock()
	v.tickets.forget(k)
	v.forget(k)
	return nil
}
