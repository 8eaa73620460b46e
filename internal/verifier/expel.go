package verifier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Codes of a job that is ended while it runs, beside those of the evidence.
const (
	codeOverdue enclave.Code = "E531" // a node did not prove itself again in time
	codeRevoked enclave.Code = "E532" // an operator took the node out
)

// expel takes a node off a running job's roster: a roster of the next epoch without it, a new
// seed that it can't open, and word to all who watch. The job is lost with it. It is on record
// before anybody hears of it, but a ledger that can't be written, or read, keeps no node in. Slurm is told
// afterwards, by endJob: the packets stop first.
func (v *Verifier) expel(ctx context.Context, k enclave.JobKey, why *enclave.Refusal) (ledger.Entry, error) {
	v.mu.Lock()
	r := v.runs[k]
	v.mu.Unlock()
	if r == nil {
		return ledger.Entry{}, v.notRunning(ctx, k, why.Node)
	}
	r.turn.Lock()
	defer r.turn.Unlock()
	e, unread := v.Ledger.Entry(ctx, k)
	v.mu.Lock()
	past, gone, ending := r.why[why.Node], slices.Concat(r.gone, []string{why.Node}), r.ending
	v.mu.Unlock()
	if unread != nil { // what memory has is enough to end the job
		e = ledger.Entry{Plan: r.plan, Refusal: ending}
	}
	if past != nil {
		return e, past
	}
	row := ledger.Roster{Key: k, Epoch: r.epoch + 1, Gone: why.Node, Refusal: why, At: time.Now()}
	var later *epoch
	failed := unread
	if unread == nil {
		later, failed = v.without(ctx, e, gone, &row)
	}
	signed := failed == nil
	e.Verdict, e.Refusal = enclave.VerdictRefused, cmp.Or(e.Refusal, why)
	record := func(ctx context.Context) error {
		if unread != nil {
			was, err := v.Ledger.Entry(ctx, k)
			if err != nil {
				return err
			}
			e.Weak = was.Weak
		}
		if signed {
			if err := v.Ledger.AddRoster(ctx, row); err != nil {
				return err
			}
			signed = false // once
		}
		return v.Ledger.Decide(ctx, k, ledger.Verdict{
			Verdict: e.Verdict, Weak: e.Weak, Refusal: e.Refusal, Members: []ledger.Member{{Node: why.Node, Refusal: why}},
		}, row.At)
	}
	if err := record(ctx); err != nil {
		v.later.keep(k, "that it lost "+why.Node, record)
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		v.alarm(ctx, "E507", fmt.Sprintf("node %s left job %s, and that is not on record: %v", why.Node, k, failed))
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	r.why[why.Node], r.gone, r.later = why, gone, later
	r.epoch, r.ending = row.Epoch, e.Refusal
	r.tell()
	return e, nil
}

// without makes the roster without the nodes that left, and seals a new seed for the others. Of
// a job of one node it is a roster of nobody.
func (v *Verifier) without(ctx context.Context, e ledger.Entry, gone []string, row *ledger.Roster) (*epoch, error) {
	rosters, err := v.Ledger.Rosters(ctx, row.Key)
	if err != nil {
		return nil, err
	}
	if len(rosters) == 0 { // let in by a release that kept none
		return nil, fmt.Errorf("the first roster of job %s is not in the ledger", row.Key)
	}
	members, err := v.Ledger.Members(ctx, row.Key)
	if err != nil {
		return nil, err
	}
	out := &epoch{place: map[string]int{}, sealed: map[string][]byte{}, keys: map[string]enclave.NodeKeys{}}
	out.peers = slices.DeleteFunc(rosters[0].Peers, func(p enclave.Peer) bool { return slices.Contains(gone, p.Node) })
	leaves, err := roster.Digests(out.peers)
	if err != nil {
		return nil, err
	}
	out.tree = roster.NewTree(leaves)
	h, err := roster.DecodeHeader(e.Header)
	if err != nil {
		return nil, err
	}
	h.Epoch, h.Size, h.Root = row.Epoch, uint32(len(leaves)), out.tree.Root() // at most maxNodes
	if out.signed, err = roster.Sign(v.Key, h); err != nil {
		return nil, err
	}
	row.Header, row.Signature, row.Peers = out.signed.Header, out.signed.Signature, out.peers
	return out, out.seal(members)
}

// seal draws a seed of which the verifier keeps no copy.
func (e *epoch) seal(members []ledger.MemberEntry) error {
	for _, m := range members {
		if m.Keys != nil {
			e.keys[m.Node] = *m.Keys
		}
	}
	seed := roster.NewSeed()
	defer seed.Wipe()
	sealed := make([][]byte, len(e.peers))
	err := onAllCores(len(e.peers), func(i int) (err error) {
		p := e.peers[i]
		sealed[i], err = roster.SealSeed(seed, e.signed.Digest(), p.Node, e.keys[p.Node].HPKE)
		return err
	})
	for i, p := range e.peers {
		e.place[p.Node], e.sealed[p.Node] = i, sealed[i]
	}
	return err
}

// endJob tells Slurm of a running job that is lost: the reason into the accounting while the job
// still lives, and then its end. It is not put back: its ranks had begun.
func (v *Verifier) endJob(ctx context.Context, e ledger.Entry) {
	v.record(ctx, e.Plan, ledger.Verdict{Verdict: e.Verdict, Weak: e.Weak, Refusal: e.Refusal})
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := v.Site.End(call, e.Job.JobKey, drainReason(*e.Refusal)); err != nil {
		v.alarm(ctx, "E515", fmt.Sprintf("job %s could not be ended: %v", e.Job.JobKey, err))
	}
}

// lose is what follows when a node failed its renewal, or said that its walls were changed: the node out of the roster, the ruling whose
// fault it is, and the job's end. It gives what the node is told.
func (v *Verifier) lose(ctx context.Context, k enclave.JobKey, why *enclave.Refusal) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	e, err := v.expel(ctx, k, why)
	if err != nil {
		return err
	}
	var storm map[string]bool
	if why.Fault == enclave.FaultNode {
		if storm, err = v.blame(ctx, 1, []enclave.Refusal{*why}, []enclave.Refusal{*why}); err != nil {
			v.alarm(ctx, "E507", err.Error()) // without a ledger no node is drained: the storm guard is blind
		}
	}
	if storm[name(*why)] && e.Refusal == why {
		e.Refusal = stormRefusal(*why)
		if err = v.Ledger.Decide(ctx, k, ledger.Verdict{Verdict: e.Verdict, Weak: e.Weak, Refusal: e.Refusal}, time.Now()); err != nil {
			v.alarm(ctx, "E507", err.Error())
		}
	}
	v.endJob(ctx, e)
	return e.Refusal
}

// Revoke takes a node's certificate out of use at once, for the next call as for an open
// connection, and the node out of every job that runs or starts on it. Those jobs end. That the ledger
// can't take it puts none of this off.
func (v *Verifier) Revoke(ctx context.Context, admin uint32, r api.RevokeRequest) (api.RevokeAnswer, error) {
	reason := printable(cmp.Or(r.Reason, "no reason given"), maxReason/2)
	unstored := v.revoke(ctx, r.Node, admin, ban{at: time.Now(), why: reason})
	if errors.Is(unstored, ledger.ErrNotFound) {
		return api.RevokeAnswer{}, enclave.Refuse("E138", enclave.FaultRequest, "%v", unstored)
	}
	v.tellFleet()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	why := revokedRefusal(r.Node, reason)
	out := api.RevokeAnswer{Ended: []enclave.JobKey{}}
	var lost []ledger.Entry
	for _, k := range v.jobsOf(why) {
		if e, err := v.expel(ctx, k, why); err == nil {
			out.Ended, lost = append(out.Ended, k), append(lost, e)
		}
	}
	v.drainRevoked(ctx, why)
	for _, e := range lost {
		v.endJob(ctx, e)
	}
	if unstored != nil {
		refusal := unstoredRevocation(r.Node, len(lost), unstored)
		v.alarm(ctx, refusal.Code, refusal.Reason)
		return api.RevokeAnswer{}, refusal
	}
	return out, nil
}

// unstoredRevocation tells an operator what holds and what does not: only a start of enclaved can let
// the node in again.
func unstoredRevocation(node string, ended int, cause error) *enclave.Refusal {
	r := enclave.Refuse(codeLedger, enclave.FaultService,
		"node %s is out now and %d of its jobs are being ended, but the ledger can't be written: if enclaved is restarted before it can, the node is enrolled again: %v", printable(node, 64), ended, cause)
	r.Fix = "make space on the controller, then again: enclave node revoke " + printable(node, 64)
	return r
}

func revokedRefusal(node, reason string) *enclave.Refusal {
	why := enclave.Refuse(codeRevoked, enclave.FaultNode, "the node was revoked by an operator: %s", reason)
	why.Node, why.Check, why.Fix = node, "revoked", "when it is trusted again: enrol it, then enclave node return "+node
	return why
}

// jobsOf lists the jobs that run with the node, and stops the starts that wait for it.
func (v *Verifier) jobsOf(why *enclave.Refusal) []enclave.JobKey {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.starts {
		if s.seats[why.Node] != nil && s.phase < released && s.stop == nil {
			s.stop = enclave.Refuse("E501", enclave.FaultService, "node %s of this job was refused (%s %s)", why.Node, why.Code, why.Reason)
			s.revoked = why
			s.poke()
		}
	}
	var out []enclave.JobKey
	for k, r := range v.runs {
		if _, here := r.seen[why.Node]; here {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b enclave.JobKey) int { return cmp.Compare(a.Job, b.Job) })
	return out
}

// drainRevoked needs no storm guard: an operator may take out as many nodes as he likes. The row
// lets enclave node return undo the drain.
func (v *Verifier) drainRevoked(ctx context.Context, why *enclave.Refusal) {
	rows := []ledger.Failure{{Name: why.Check, Code: why.Code, Node: why.Node, At: time.Now(), Drained: true}}
	store := func(ctx context.Context) error { return v.Ledger.AddFailures(ctx, rows) }
	if err := store(ctx); err != nil {
		v.later.keep(enclave.JobKey{}, "the drain of "+why.Node, store)
		v.alarm(ctx, "E507", err.Error())
	}
	v.carryOut(ctx, ruling{drain: []enclave.Refusal{*why}})
}
