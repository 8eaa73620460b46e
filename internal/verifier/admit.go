package verifier

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
)

// overrun is how long after its time limit a job's enclave still stands, for Slurm's KillWait
// and the epilog.
const overrun = 5 * time.Minute

// admit closes barrier 1: every node was affirmed, and gets the signed roster.
func (v *Verifier) admit(ctx context.Context, s *start) error {
	// The posts are complete and never change; readers of peers and answers wait for the phase.
	for _, n := range s.plan.Job.Nodes {
		x := s.seats[n]
		s.peers = append(s.peers, enclave.Peer{Node: n, Addresses: x.post.Addresses, Endpoint: x.post.Endpoint, Key: x.post.Keys.WireGuard})
		s.weak = s.weak || x.result.Weak
	}
	leaves, err := roster.Digests(s.peers)
	if err != nil {
		return err
	}
	tree := roster.NewTree(leaves)
	signed, err := roster.Sign(v.Key, v.header(s, tree))
	if err != nil {
		return err
	}
	if err = v.answerAll(s, signed, tree); err != nil {
		return err
	}
	v.mu.Lock()
	row := s.row()
	v.mu.Unlock()
	row.Header, row.Signature = signed.Header, signed.Signature
	if s.leaves, err = roster.Pack(s.peers); err != nil {
		return err
	}
	now, k := time.Now(), s.plan.Job.JobKey
	if err = v.Ledger.Decide(ctx, k, row, now); err != nil {
		return err
	}
	err = v.Ledger.AddRoster(ctx, ledger.Roster{
		Key: k, Epoch: s.epoch, Header: signed.Header, Signature: signed.Signature, Peers: s.peers, At: now,
	})
	if err != nil {
		return err
	}
	v.mu.Lock()
	s.phase = second
	v.mu.Unlock()
	close(s.rostered)
	return nil
}

func (v *Verifier) header(s *start, tree *roster.Tree) enclave.RosterHeader {
	s.life = v.Config.Limits.LifetimeHours * 3600
	if limit := uint64(s.plan.Job.TimeLimit) + uint64(overrun/time.Second); s.plan.Job.TimeLimit > 0 && limit < uint64(s.life) {
		s.life = uint32(limit)
	}
	return enclave.RosterHeader{
		JobKey: s.plan.Job.JobKey, Epoch: s.epoch, SubmitHost: s.plan.Job.SubmitHost,
		Tenant: s.plan.Tenant.Name, Subtree: s.plan.Tenant.Subtree, RootFID: s.plan.Tenant.RootFID, PolicyDigest: s.plan.Policy, Lifetime: s.life,
		Simulated: s.simulated(), Weak: s.weak, Size: uint32(tree.Size()), Root: tree.Root(), // at most maxNodes
	}
}

// simulated is true when one node's evidence is: one such node is enough for the whole job.
func (s *start) simulated() bool {
	return !s.everyone(func(x *seat) bool { return !x.result.Simulated })
}

// answerAll seals one fresh seed for every node; the verifier keeps no copy.
func (v *Verifier) answerAll(s *start, signed roster.Signed, tree *roster.Tree) error {
	seed := roster.NewSeed()
	defer seed.Wipe()
	digest := signed.Digest()
	return onAllCores(len(s.peers), func(i int) error {
		p := s.peers[i]
		x := s.seats[p.Node]
		sealed, err := x.envelope.Close(seed, digest)
		if err != nil {
			return err
		}
		x.envelope = nil
		path, err := tree.Prove(i)
		if err != nil {
			return err
		}
		x.answer = &roster.Answer{
			Roster: signed, Leaf: p, Index: uint32(i), Path: path, // at most maxNodes
			Nonce: x.post.Nonce, Keys: x.post.Keys, Seed: sealed,
		}
		x.answer.Bind(v.Key)
		return nil
	})
}

// letIn closes barrier 2. The go file and the ledger are on the disk before any node hears GO:
// a start that ran is never requeued as one that did not.
func (v *Verifier) letIn(ctx context.Context, s *start) error {
	now := time.Now()
	v.mu.Lock()
	verdict := enclave.VerdictProtected
	if s.simulated() {
		verdict = enclave.VerdictSimulated
	}
	row := s.row()
	row.Members = nil // barrier 1 wrote them, and nothing of them has changed
	reports := make(map[string]any, len(s.seats))
	for n, x := range s.seats {
		reports[n] = x.ready
	}
	v.mu.Unlock()
	k := s.plan.Job.JobKey
	if err := v.Ledger.Ready(ctx, k, reports, now); err != nil {
		return err
	}
	if err := v.writeGo(k); err != nil {
		return err
	}
	row.Verdict, row.Started = verdict, &now
	if err := v.Ledger.Decide(ctx, k, row, now); err != nil {
		return err
	}
	v.mu.Lock()
	s.phase, s.verdict = released, verdict
	v.runs[k] = newRun(s.plan, time.Now())
	revoked := s.revoked
	v.mu.Unlock()
	s.release()
	if revoked != nil { // in the moment between the decision and its record
		if e, err := v.expel(ctx, k, revoked); err == nil {
			v.endJob(ctx, e)
		}
		return nil
	}
	v.record(ctx, s.plan, row)
	v.countSilent(ctx, s, changed)
	return nil
}

// comment is the verdict as the site role takes it for AdminComment.
type comment struct {
	Verdict enclave.Verdict `json:"verdict"`
	Weak    bool            `json:"weak"`
	Nodes   int             `json:"nodes"`
	Restart uint32          `json:"restart"`
	Policy  string          `json:"policy"`
	Code    enclave.Code    `json:"code"`
	Reason  string          `json:"reason"`
}

// record hands the verdict to the site role, which keeps it until Slurm has it.
func (v *Verifier) record(ctx context.Context, p ledger.Plan, row ledger.Verdict) {
	k := p.Job.JobKey
	c := comment{Verdict: row.Verdict, Weak: row.Weak, Nodes: len(p.Job.Nodes), Restart: k.Restart, Policy: p.Policy.String()}
	if row.Refusal != nil {
		c.Code, c.Reason = row.Refusal.Code, printable(row.Refusal.Reason, maxReason)
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	b, err := json.Marshal(c)
	if err == nil {
		err = v.Site.RecordVerdict(call, k, b)
	}
	if err != nil {
		v.alarm(ctx, "E513", fmt.Sprintf("verdict of job %s is not in Slurm's accounting: %v", k, err))
	}
}

// silentAlarm is at which silence in a row an admin is told.
const silentAlarm = 3

// countSilent keeps the rows of silences: a node that never speaks is not drained, but told of.
func (v *Verifier) countSilent(ctx context.Context, s *start, e event) {
	v.mu.Lock()
	spoke := map[string]bool{}
	for n, x := range s.seats {
		spoke[n] = x.spoke
	}
	v.mu.Unlock()
	if err := v.Ledger.Spoke(ctx, spoke); err != nil {
		v.alarm(ctx, "E507", err.Error())
	}
	for n, yes := range spoke {
		if yes || e != deadline {
			continue
		}
		times, err := v.Ledger.Silent(ctx, n)
		if err != nil {
			v.alarm(ctx, "E507", err.Error())
		}
		if times > 0 && times%silentAlarm == 0 {
			v.alarm(ctx, "E512", fmt.Sprintf("node %s never spoke to the verifier in %d jobs in a row", n, times))
		}
	}
}
