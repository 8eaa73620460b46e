package verifier

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// PostEvidence takes a node's announcement and blocks until barrier 1 is decided for all nodes.
func (v *Verifier) PostEvidence(ctx context.Context, node string, a api.Announcement) (roster.Answer, error) {
	if err := v.TakeEvidence(ctx, node, a, time.Now()); err != nil {
		return roster.Answer{}, err
	}
	return v.Roster(ctx, node, a.Job)
}

// TakeEvidence appraises a node's announcement and stores it. The same announcement again changes
// nothing; another one is refused. An announcement that is not this node's, or without a nonce in
// force when the call began, changes nothing either: on a busy machine its turn may come after that.
func (v *Verifier) TakeEvidence(ctx context.Context, node string, a api.Announcement, began time.Time) error {
	if a.Node != node {
		return foreign(node, a.Node)
	}
	s, x, err := v.find(a.Job, node)
	if err != nil {
		return err
	}
	return v.accept(ctx, s, x, &a, began)
}

// Roster waits until barrier 1 is decided for all nodes, and gives what a node whose evidence was
// taken is told.
func (v *Verifier) Roster(ctx context.Context, node string, job enclave.JobKey) (roster.Answer, error) {
	s, x, err := v.find(job, node)
	if err != nil {
		return roster.Answer{}, err
	}
	select {
	case <-s.rostered:
	case <-ctx.Done():
		return roster.Answer{}, ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case x.answer != nil && s.phase != refused:
		return *x.answer, nil
	case x.denial != nil:
		return roster.Answer{}, x.denial
	}
	return roster.Answer{}, unknownJob(job)
}

// accept admits an announcement once, and appraises it outside the lock.
func (v *Verifier) accept(ctx context.Context, s *start, x *seat, a *api.Announcement, began time.Time) error {
	var unsigned error
	v.inTurn(func() { unsigned = a.CheckSignature() })
	again, prepared, err := v.beginJudging(s, x, a, unsigned, began)
	if err != nil || again {
		return err
	}
	// A node that hangs up must not look like a ledger that can't be written.
	got, broken := v.judge(context.WithoutCancel(ctx), s, x.node, a, prepared)
	v.mu.Lock()
	defer v.mu.Unlock()
	x.judging = nil
	if s.phase != first { // decided in between
		return nil
	}
	x.post, x.appraised = a, got
	if broken == nil && s.keyTaken(a) {
		broken = keyRefusal(a.Node)
	}
	if x.broken == nil { // else the node's own word, which came in between
		x.broken = broken
	}
	s.posts++
	s.pokeWhenAll()
	return nil
}

// beginJudging reserves the seat for an announcement; again is true for one that has it already.
func (v *Verifier) beginJudging(s *start, x *seat, a *api.Announcement, unsigned error, began time.Time) (again bool, prepared *early, err error) {
	v.mu.Lock()
	defer v.mu.Unlock() // not left locked by a panic, which net/http would take and live on
	x.spoke = true
	again, prepared = x.repeats(a), x.early
	if err = v.admissible(s, x, a, unsigned, began); err == nil && !again {
		x.judging, x.early = a.Signature, nil
	}
	return again, prepared, err
}

// admissible checks what needs no appraisal, and uses the nonce up. unsigned is what the check of
// the signature said, which is made before the lock is taken. The caller holds v.mu.
func (v *Verifier) admissible(s *start, x *seat, a *api.Announcement, unsigned error, began time.Time) error {
	switch {
	case x.repeats(a):
		return nil
	case s.phase > first:
		return tooLate(a.Job, x.denial)
	case x.post != nil || x.judging != nil || x.broken != nil:
		return enclave.Refuse("E125", enclave.FaultService, "node %s has announced itself already", a.Node)
	case a.Epoch != s.epoch || a.Purpose != claim.PurposeJob:
		return enclave.Refuse("E502", enclave.FaultService, "announcement of epoch %d and purpose %d, want %d and %d", a.Epoch, a.Purpose, s.epoch, claim.PurposeJob)
	}
	if unsigned != nil {
		return enclave.Refuse("E127", enclave.FaultService, "%v", unsigned)
	}
	return v.tickets.take(a.Nonce, holder{a.Job, a.Node, a.Purpose}, began)
}

// judge has the evidence appraised for the claim that the verifier computes itself, adds the
// checks against the inventory, and stores it all. The envelope is what the seed will be sealed in:
// the prepared one, where that is for the key announced. Most of that work is done by here, and not when
// the last node's evidence is in.
func (v *Verifier) judge(ctx context.Context, s *start, node enclave.Node, a *api.Announcement, prepared *early) (appraised, *enclave.Refusal) {
	name := s.plan.Tenant.Policy
	if !v.inForce(name, s.plan.Policy) {
		v.stopAll(s, enclave.Refuse("E508", enclave.FaultService, "policy %q changed while the job started", name))
		return appraised{}, nil
	}
	c := api.JobClaim(a.Job, s.plan.Job.HetOffset, v.digest, s.plan.Policy, a)
	envelope := prepared.take(a.Keys.HPKE)
	result, machine, refusal := v.appraise(ctx, name, node, c, a, func() (err error) {
		if envelope == nil {
			envelope, err = roster.NewEnvelope(a.Node, a.Keys.HPKE)
		}
		return err
	})
	work, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	err := v.Ledger.AddEvidence(work, ledger.Evidence{
		Key: a.Job, Node: a.Node, Purpose: uint8(a.Purpose), Epoch: a.Epoch, Nonce: a.Nonce, Keys: a.Keys,
		Evidence: a.Evidence, Result: *result, Machine: machine, Unjudged: isUnjudged(refusal), At: time.Now(),
	})
	if err != nil {
		v.stopAll(s, ledgerRefusal(err))
	}
	a.Evidence, result.Endorsements = enclave.Evidence{}, enclave.Endorsements{} // the ledger has them: a large job's would fill the memory
	if err == nil {
		result.Checks = nil // as above
	}
	return appraised{result, err == nil, envelope}, refusal
}

// inForce is true when the policy is still what the node was told.
func (v *Verifier) inForce(name string, digest enclave.Digest) bool {
	now, err := v.Appraiser.Policy(name)
	return err == nil && now == digest
}

// appraise gives the result, what the node was held against and, unless it is affirmed, whose fault
// that is. seal says whether a seed can be sealed for the node.
func (v *Verifier) appraise(ctx context.Context, policy string, node enclave.Node, c claim.Claim, a *api.Announcement, seal func() error) (*enclave.AttestationResult, *ledger.Machine, *enclave.Refusal) {
	enrolled, err := v.enrolled(ctx, node.Name)
	unread := err != nil && !errors.Is(err, ledger.ErrNotFound)
	machine := &ledger.Machine{Chip: enrolled.Chip, ReportID: enrolled.ReportID}
	rules, unknown := v.rules(ctx, policy, c.Policy)
	result := enclave.AttestationResult{Node: node.Name, Status: enclave.StatusNone}
	var unsealable error
	v.inTurn(func() {
		switch {
		case unknown != nil:
			result = noRules(node.Name, unknown)
		case err == nil:
			result = v.Appraiser.Appraise(rules, a.Evidence, c, Machine(*machine))
		}
		unsealable = seal()
	})
	result.Node = node.Name
	result.Checks = append(result.Checks, enrolCheck(err), addressCheck(node, a), sealCheck(unsealable))
	failed := result.Failed()
	switch {
	case failed != nil:
		result.Status = enclave.StatusContraindicated
	case result.Status != enclave.StatusAffirming:
		failed = &enclave.Check{Name: "appraisal", Result: enclave.CheckUnknown, Reason: "nothing was affirmed"}
	default:
		return &result, machine, nil
	}
	switch {
	case unread && failed.Name == checkEnrolled:
		return &result, machine, ledgerRefusal(err)
	case result.Unjudged != "" && slices.Contains([]string{"chain", "validity", "crl", checkPolicy}, failed.Name):
		return &result, machine, v.unjudged(ctx, node.Name, failed.Name, result.Unjudged)
	}
	r := enclave.Refuse(codeOf(failed.Name), enclave.FaultNode, "check %s: %s", failed.Name, failed.Reason)
	r.Node, r.Check, r.Fix = node.Name, failed.Name, "see enclave why "+node.Name
	if failed.Name == checkChip && enrolled.ReportID != "" {
		r.Fix = "if it was only started anew, enrol it again: enclave node enrol --request there, enclave node enrol " + node.Name + " here"
	}
	return &result, machine, r
}

// codeOf is the code of a failed check: of appraisal's, or of this package's three.
func codeOf(check string) enclave.Code {
	switch check {
	case checkAddresses:
		return "E250"
	case checkSealing:
		return "E251"
	case checkEnrolled:
		return "E252"
	}
	return appraise.CodeOf(check)
}

// The checks that appraisal cannot make: they need the inventory and the ledger.
const (
	checkAddresses = "addresses"
	checkSealing   = "sealing_key"
	checkEnrolled  = "enrolled"
)

// checkChip is appraisal's, against the enrolment.
const checkChip = "chip"

func check(name string, ok bool, reason string) enclave.Check {
	if ok {
		return enclave.Check{Name: name, Result: enclave.CheckPass}
	}
	return enclave.Check{Name: name, Result: enclave.CheckFail, Reason: reason}
}

func enrolCheck(err error) enclave.Check {
	return check(checkEnrolled, err == nil, "the node has no enrolment in force")
}

// addressCheck holds the node to its line of the inventory: a node that could announce another's
// address would get that one's traffic.
func addressCheck(node enclave.Node, a *api.Announcement) enclave.Check {
	for _, x := range a.Addresses {
		if !slices.Contains(node.Addresses, x) {
			return check(checkAddresses, false, x.String()+" is not in the node's line of inventory.yaml")
		}
	}
	ok := slices.Contains(a.Addresses, node.Tunnel) && a.Endpoint.Addr() == node.Tunnel && a.Endpoint.Port() != 0
	return check(checkAddresses, ok, "the endpoint is not the inventory's tunnel address "+node.Tunnel.String())
}

// sealCheck makes sure that a seed can be sealed for the node later.
func sealCheck(err error) enclave.Check {
	return check(checkSealing, err == nil, "the HPKE key is not one of MLKEM768X25519")
}

// keyTaken is true when another node of the job announced the same tunnel key: WireGuard knows
// peers by key only. Else the key is this node's from now on. The caller holds v.mu.
func (s *start) keyTaken(a *api.Announcement) bool {
	if owner, taken := s.owners[a.Keys.WireGuard]; taken {
		return owner != a.Node
	}
	s.owners[a.Keys.WireGuard] = a.Node
	return false
}

func keyRefusal(node string) *enclave.Refusal {
	r := enclave.Refuse("E223", enclave.FaultNode, "tunnel key is another node's")
	r.Node, r.Check, r.Fix = node, "tunnel_key", "the node's random numbers repeat: was it cloned while running?"
	return r
}

// stopAll ends a start for a reason that is no node's.
func (v *Verifier) stopAll(s *start, r *enclave.Refusal) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s.stop == nil {
		s.stop = r
	}
	s.poke()
}
