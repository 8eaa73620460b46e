package verifier

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Leaves gives all peers of a job whose barrier 1 was passed.
func (v *Verifier) Leaves(_ context.Context, node string, r api.NodeRequest) (api.Packed, error) {
	if r.Node != node {
		return nil, foreign(node, r.Node)
	}
	s, x, err := v.find(r.Job, node)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case s.phase == refused:
		return nil, x.denial
	case s.phase < second || r.Epoch != s.epoch:
		return nil, enclave.Refuse("E502", enclave.FaultService, "job %s has no roster of epoch %d", r.Job, r.Epoch)
	}
	return s.leaves, nil
}

// PostReady takes a node's word that it is up, and blocks until barrier 2 is decided. The
// answer is the GO.
func (v *Verifier) PostReady(ctx context.Context, node string, r api.ReadyRequest) (api.ReadyAnswer, error) {
	if r.Node != node {
		return api.ReadyAnswer{}, foreign(node, r.Node)
	}
	s, x, err := v.find(r.Job, node)
	if err != nil {
		return api.ReadyAnswer{}, err
	}
	v.mu.Lock()
	if s.phase < second || r.Epoch != s.epoch {
		v.mu.Unlock()
		return api.ReadyAnswer{}, enclave.Refuse("E502", enclave.FaultService, "job %s has no roster of epoch %d", r.Job, r.Epoch)
	}
	if x.ready == nil && s.phase == second {
		x.ready = &r
		s.readies++
		s.pokeWhenAll()
	}
	v.mu.Unlock()
	if err := v.Decision(ctx, node, r.NodeRequest); err != nil {
		return api.ReadyAnswer{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.Config.Limits
	return api.ReadyAnswer{Lifetime: min(s.life, l.RenewGraceSeconds), Renew: l.RenewSeconds, Verdict: s.verdict, Weak: s.weak}, nil
}

// Decision blocks until the start is decided: nil for GO. A node that waits for its neighbours, and
// not at a barrier, hears in this way that they will never come.
func (v *Verifier) Decision(ctx context.Context, node string, r api.NodeRequest) error {
	if r.Node != node {
		return foreign(node, r.Node)
	}
	s, x, err := v.find(r.Job, node)
	if err != nil {
		return err
	}
	select {
	case <-s.decided:
	case <-ctx.Done():
		return ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if s.phase != released || x.denial != nil {
		return tooLate(r.Job, x.denial)
	}
	return nil
}

// Broken takes a node's word that it can't take part, ends the job's start at once, and blocks
// until it is decided whose fault that is. The node obeys the answer.
func (v *Verifier) Broken(ctx context.Context, node string, r api.BrokenRequest) (api.BrokenAnswer, error) {
	if r.Node != node {
		return api.BrokenAnswer{}, foreign(node, r.Node)
	}
	s, x, err := v.find(r.Job, node)
	if err != nil {
		return api.BrokenAnswer{}, err
	}
	own, late := v.noteWord(s, x, clean(node, r.Refusal))
	if late {
		return v.brokenLate(ctx, s, x, own)
	}
	if err := v.speak(s, x); err != nil && s.phaseNow(v) == registered {
		return api.BrokenAnswer{}, err
	}
	s.poke()
	select {
	case <-s.decided:
	case <-ctx.Done():
		return api.BrokenAnswer{}, ctx.Err()
	}
	return v.brokenLate(ctx, s, x, own)
}

// noteWord gives what counts of a node: its word, or what was known of it before. late is true when the
// start was decided already.
func (v *Verifier) noteWord(s *start, x *seat, word enclave.Refusal) (own enclave.Refusal, late bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if x.broken == nil {
		x.broken, x.word = &word, true
		s.words++
	}
	return *x.broken, s.phase >= released
}

func (s *start) phaseNow(v *Verifier) phase {
	v.mu.Lock()
	defer v.mu.Unlock()
	return s.phase
}

// brokenLate rules on a failure that came after the decision, or that the decision did not see:
// with the job's earlier failures it may turn out to be the policy's.
func (v *Verifier) brokenLate(ctx context.Context, s *start, x *seat, own enclave.Refusal) (api.BrokenAnswer, error) {
	all, fresh, denial := v.unruled(s, x)
	if len(fresh) == 0 {
		if denial == nil {
			denial = &own
		}
		return api.BrokenAnswer{Refusal: *denial}, nil
	}
	storm, err := v.blame(context.WithoutCancel(ctx), len(s.seats), all, fresh)
	if err != nil {
		return api.BrokenAnswer{}, ledgerRefusal(err)
	}
	final := &own
	if storm[name(own)] {
		final = stormRefusal(own)
	}
	if went, weak := v.deny(s, x, final); went {
		v.recant(context.WithoutCancel(ctx), s.plan, x.node.Name, weak, final)
	}
	return api.BrokenAnswer{Refusal: *final}, nil
}

// unruled is failures, and what the node was told already.
func (v *Verifier) unruled(s *start, x *seat) (all, fresh []enclave.Refusal, denial *enclave.Refusal) {
	v.mu.Lock()
	defer v.mu.Unlock()
	all, fresh = s.failures()
	return all, fresh, x.denial
}

// deny notes what a node is told after the decision. went is true when that was GO.
func (v *Verifier) deny(s *start, x *seat, r *enclave.Refusal) (went, weak bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x.denial = r
	return s.phase == released, s.weak
}

// recant puts on record that a start which was let in was not kept: a node broke before it could let its
// tasks in. Its prolog fails, and Slurm puts the job back.
func (v *Verifier) recant(ctx context.Context, p ledger.Plan, node string, weak bool, why *enclave.Refusal) {
	k, now := p.Job.JobKey, time.Now()
	row := ledger.Verdict{Verdict: enclave.VerdictRefused, Weak: weak, Refusal: why, Members: []ledger.Member{{Node: node, Refusal: why}}}
	decide := func(ctx context.Context) error { return v.Ledger.Decide(ctx, k, row, now) }
	if err := decide(ctx); err != nil {
		v.later.keep(k, "the decision", decide)
		v.alarm(ctx, codeLedger, err.Error())
	}
	v.record(ctx, p, row)
}

var codeForm = regexp.MustCompile(`^E[0-9]{3}$`)

// clean keeps of a node's word what it may say: of itself, in bounded printable text. A node
// speaks for itself only and cannot blame the policy.
func clean(node string, r enclave.Refusal) enclave.Refusal {
	if !codeForm.MatchString(string(r.Code)) {
		r.Code = "E201"
	}
	if r.Fault != enclave.FaultNode && r.Fault != enclave.FaultRequest {
		r.Fault = enclave.FaultService
	}
	r.Node = node
	r.Check, r.Reason, r.Fix = printable(r.Check, 64), printable(r.Reason, maxReason), printable(r.Fix, maxReason)
	return r
}

// TeardownReport takes a node's last word on a job. It needs the ledger only. A node that is
// not what it was before the job goes through the storm guard as any other failure.
func (v *Verifier) TeardownReport(ctx context.Context, node string, r api.TeardownRequest) error {
	if r.Node != node {
		return foreign(node, r.Node)
	}
	e, err := v.Ledger.Entry(ctx, r.Job)
	if errors.Is(err, ledger.ErrNotFound) {
		return unknownJob(r.Job)
	}
	if err != nil {
		return ledgerRefusal(err)
	}
	if !slices.Contains(e.Job.Nodes, node) {
		return enclave.Refuse("E128", enclave.FaultRequest, "node %s is not one of job %s", node, r.Job)
	}
	if r.Refusal != nil {
		word := clean(node, *r.Refusal)
		r.Refusal = &word
	}
	if slices.ContainsFunc(r.Checks, func(c enclave.Check) bool { return c.Result != enclave.CheckPass }) {
		r.Closed = false // whatever the node calls it
	}
	if err := v.tornDown(ctx, node, r); err != nil {
		v.later.keep(r.Job, "the last word of "+node, func(ctx context.Context) error { return v.tornDown(ctx, node, r) })
		return ledgerRefusal(err)
	}
	return nil
}

// tornDown stores a node's last word and rules on what it says.
func (v *Verifier) tornDown(ctx context.Context, node string, r api.TeardownRequest) error {
	if err := v.Ledger.Teardown(ctx, r.Job, node, r, time.Now()); err != nil {
		return err
	}
	v.wakeSealer()
	if r.Closed || r.Refusal == nil || r.Refusal.Fault != enclave.FaultNode {
		return nil
	}
	// Slurm runs epilogs one by one: of the other nodes nothing is known, so only the window counts.
	fresh := []enclave.Refusal{*r.Refusal}
	_, err := v.blame(ctx, 1, fresh, fresh)
	return err
}
