package verifier

import (
	"context"
	"os"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

// pollJob is how often Slurm is asked whether a job is still alive while a barrier is open.
const pollJob = 2 * time.Second

// closeTimeout bounds the work of closing a barrier: ledger, drains, go file.
const closeTimeout = 30 * time.Second

// chorus is how long the others' word is awaited once a node has said that it is broken: what
// breaks all nodes in the same moment (a plugin that was not installed, a kernel without a module) is the
// policy's fault, and the first of them must not have been drained by then.
const chorus = time.Second

// standstill is how long the watcher must have seen nothing, although it looks every pollJob, to
// take it that enclaved itself stood still: stopped, swapped out, its machine paused. What nodes
// have sent meanwhile lies unread then, and silence is no fault of theirs.
const standstill = 5 * pollJob

// Codes of starts that enclaved was too late for.
const (
	codeSlept  enclave.Code = "E541"
	codeGaveUp enclave.Code = "E542"
)

// event is why the watcher looks at a start.
type event int

const (
	changed event = iota // a node posted something
	waited               // for the others' word
	polled               // it is time to ask Slurm
	deadline
	slept    // the deadline passed while enclaved stood still
	dead     // Slurm says that the job is over
	gaveUp   // and that it failed: its nodes waited no longer, and the gate refused its tasks
	shutdown // of enclaved
)

// watch owns a start from the first node's call to GO or refusal. One deadline covers both
// barriers: Slurm ends a prolog after PrologEpilogTimeout, however the time was spent.
func (v *Verifier) watch(s *start) {
	end := time.NewTimer(time.Until(s.deadline))
	defer end.Stop()
	poll := time.NewTicker(pollJob)
	defer poll.Stop()
	var others <-chan time.Time
	stood, looked := false, time.Now()
	for {
		e := changed
		select {
		case <-s.wake:
		case <-others:
			e = waited
		case <-end.C:
			e = deadline
		case <-v.life.Done():
			e = shutdown
		case <-poll.C:
			e = polled
		}
		stood = stood || time.Since(looked) > standstill
		looked = time.Now()
		switch {
		case e == deadline && stood:
			e = slept
		case e == polled:
			if e = v.ask(s); e == polled {
				continue
			}
		}
		switch v.step(s, e) {
		case wait:
		case listen:
			if others == nil {
				others = time.After(chorus)
			}
		default:
			return
		}
	}
}

// ask asks Slurm, and gives polled when the job is as it was. No answer is no proof of death.
func (v *Verifier) ask(s *start) event {
	ctx, cancel := context.WithTimeout(v.life, pollJob)
	defer cancel()
	state, err := v.Site.JobState(ctx, s.plan.Job.Job)
	if err != nil || state.Alive {
		return polled
	}
	return ended(state)
}

// ended tells a job that was ended from one whose prologs gave up. Nothing of a start that is not decided runs but
// what the gate refuses, and that fails.
func ended(state enclave.JobState) event {
	if state.State == "FAILED" {
		return gaveUp
	}
	return dead
}

// step looks at a start after an event, and says how it was decided: wait and listen are no
// decision yet. Only the watcher calls it, so a start is decided once.
func (v *Verifier) step(s *start, e event) outcome {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.life), closeTimeout)
	defer cancel()
	v.mu.Lock()
	next := s.next(e)
	v.mu.Unlock()
	switch next {
	case wait, listen:
		return next
	case admit:
		if err := v.admit(ctx, s); err != nil {
			v.refuse(ctx, s, changed, ledgerRefusal(err))
			return deny
		}
		return wait // for barrier 2
	case letIn:
		if err := v.letIn(ctx, s); err != nil {
			_ = os.Remove(v.goFile(s.plan.Job.JobKey)) // no node has heard GO
			r := enclave.Refuse("E506", enclave.FaultService, "GO can't be recorded: %v", err)
			r.Fix = "check space and permissions of the state directory on the controller"
			v.refuse(ctx, s, changed, r)
			return deny
		}
		return letIn
	case deny:
	}
	v.refuse(ctx, s, e, s.why(e))
	return deny
}

type outcome int

const (
	wait   outcome = iota
	listen         // a node is broken: are all
	admit
	letIn
	deny
)

// next decides what an event leads to. It is pure; the caller holds the lock.
func (s *start) next(e event) outcome {
	switch {
	case e != changed || s.stop != nil:
		return deny
	case !s.everyone(func(x *seat) bool { return !x.word }):
		if s.everyone(func(x *seat) bool { return x.word || s.through(x) }) {
			return deny
		}
		return listen
	case s.phase == first && s.everyone(s.through):
		if s.everyone(func(x *seat) bool { return x.broken == nil }) {
			return admit
		}
		return deny
	case s.phase == second && s.everyone(s.through):
		return letIn
	}
	return wait
}

// through is true when a node has done its part of the open barrier. The caller holds the lock.
func (s *start) through(x *seat) bool {
	if s.phase == second {
		return x.ready != nil
	}
	return x.post != nil && x.result != nil
}

// why is the refusal of an event that no node caused, nil when nodes did.
func (s *start) why(e event) *enclave.Refusal {
	k := s.plan.Job.JobKey
	switch e {
	case dead:
		return enclave.Refuse("E503", enclave.FaultRequest, "job %s is no longer alive in Slurm", k)
	case gaveUp:
		return enclave.Refuse(codeGaveUp, enclave.FaultService, "the nodes of job %s did not wait for the verifier's decision", k)
	case slept:
		return enclave.Refuse(codeSlept, enclave.FaultService, "enclaved stood still while the nodes of job %s were waiting", k)
	case shutdown:
		return enclave.Refuse("E509", enclave.FaultService, "enclaved is stopping")
	}
	return s.stop
}

// refuse closes the open barrier against everybody. Nodes at fault are drained, or found to be
// the policy's victims, before any answer goes out.
func (v *Verifier) refuse(ctx context.Context, s *start, e event, cause *enclave.Refusal) {
	v.mu.Lock()
	if e == deadline {
		s.blameSilent()
	}
	all, fresh := s.failures()
	if cause != nil && cause.Fault == enclave.FaultRequest { // the job was cancelled: nodes cut off by that are not broken
		fresh = nil
	}
	size := len(s.seats)
	v.mu.Unlock()
	var storm map[string]bool
	if len(fresh) > 0 {
		var err error
		if storm, err = v.blame(ctx, size, all, fresh); err != nil {
			cause = ledgerRefusal(err) // without a ledger no node is blamed: the storm guard is blind
			storm, fresh = nil, nil
		}
	}
	v.mu.Lock()
	s.refusal = s.verdictOf(cause, fresh, storm, e)
	for name, x := range s.seats {
		x.denial = s.denialOf(name, x, fresh, storm)
	}
	s.phase, s.verdict = refused, enclave.VerdictRefused
	row := s.row()
	v.mu.Unlock()
	k, now := s.plan.Job.JobKey, time.Now()
	decide := func(ctx context.Context) error { return v.Ledger.Decide(ctx, k, row, now) }
	if err := decide(ctx); err != nil {
		v.later.keep(k, "the decision", decide)
		v.alarm(ctx, codeLedger, err.Error())
	}
	v.record(ctx, s.plan, row) // while the job lives: afterwards Slurm takes it with losses only
	s.release()
	v.countSilent(ctx, s, e)
}

// blameSilent names the nodes that took a nonce and sent no acceptable evidence. One whose
// evidence is being appraised at this moment, or that never spoke, is not at fault.
// The caller holds the lock.
func (s *start) blameSilent() {
	for name, x := range s.seats {
		if s.phase == first && x.spoke && x.post == nil && x.judging == nil && x.broken == nil {
			x.broken = enclave.Refuse("E221", enclave.FaultNode, "took a nonce and sent no acceptable evidence by the deadline")
			x.broken.Node, x.broken.Check = name, "evidence"
			x.broken.Fix = "see slurmd's log and the prolog's journal on " + name
		}
	}
}

// failures lists the nodes' own failures, and those that were not ruled on yet, which are then
// taken as ruled on. The caller holds the lock.
func (s *start) failures() (all, fresh []enclave.Refusal) {
	for _, name := range s.plan.Job.Nodes {
		x := s.seats[name]
		if x.broken == nil || x.broken.Fault != enclave.FaultNode {
			continue
		}
		all = append(all, *x.broken)
		if !x.blamed {
			x.blamed = true
			fresh = append(fresh, *x.broken)
		}
	}
	return all, fresh
}

// verdictOf is the job's refusal: what stopped it as a whole, else the policy's, else the first
// node's, else a node's word on a fault that is not its own, else the deadline.
func (s *start) verdictOf(cause *enclave.Refusal, fresh []enclave.Refusal, storm map[string]bool, e event) *enclave.Refusal {
	if cause != nil {
		return cause
	}
	for _, r := range fresh {
		if storm[name(r)] {
			return stormRefusal(r)
		}
	}
	if len(fresh) > 0 {
		return &fresh[0]
	}
	for _, n := range s.plan.Job.Nodes {
		if x := s.seats[n]; x.broken != nil && x.broken.Fault != enclave.FaultNode {
			return x.broken
		}
	}
	for _, n := range s.plan.Job.Nodes {
		if e == deadline && !s.seats[n].spoke {
			r := enclave.Refuse("E510", enclave.FaultService, "node %s never spoke to the verifier", n)
			r.Fix = "can it reach the verifier, and is its certificate enrolled?"
			return r
		}
	}
	return enclave.Refuse("E504", enclave.FaultService, "not all nodes were ready by the deadline")
}

func stormRefusal(r enclave.Refusal) *enclave.Refusal {
	p := enclave.Refuse("E530", enclave.FaultPolicy, "check %s fails on many nodes at once: %s", name(r), r.Reason)
	p.Check, p.Fix = r.Check, "compare the appraisal policy with the nodes' image and firmware; jobs wait until then"
	return p
}

// denialOf is what one node is told: its own fault, or that the job is refused for another's.
func (s *start) denialOf(node string, x *seat, fresh []enclave.Refusal, storm map[string]bool) *enclave.Refusal {
	for i := range fresh {
		if fresh[i].Node == node && !storm[name(fresh[i])] {
			return &fresh[i]
		}
	}
	if s.refusal.Fault != enclave.FaultNode || s.refusal.Node == node {
		if x.denial != nil {
			return x.denial
		}
		return s.refusal
	}
	r := enclave.Refuse("E501", enclave.FaultService, "node %s of this job was refused (%s %s)", s.refusal.Node, s.refusal.Code, s.refusal.Reason)
	r.Fix = "nothing to do, the job is requeued"
	return r
}

// row is the start as the ledger keeps it. The caller holds the lock.
func (s *start) row() ledger.Verdict {
	row := ledger.Verdict{Verdict: s.verdict, Weak: s.weak, Refusal: s.refusal}
	for _, n := range s.plan.Job.Nodes {
		row.Members = append(row.Members, s.seats[n].member())
	}
	return row
}

// release opens both barriers for their answers.
func (s *start) release() {
	select {
	case <-s.rostered:
	default:
		close(s.rostered)
	}
	close(s.decided)
}
