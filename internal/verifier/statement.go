package verifier

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/release"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// parts is everything that the ledger knows of a start, read once.
type parts struct {
	entry     ledger.Entry
	verifier  ed25519.PublicKey
	policy    receipt.Policy
	rosters   []ledger.Roster
	evidence  map[string][]ledger.Evidence
	renewals  map[string]receipt.Renewals
	members   map[string]ledger.MemberEntry
	enrolled  map[string]receipt.Enrolled
	ready     map[string]*receipt.Ready
	teardowns map[string]receipt.Teardown
	transport string
	subject   receipt.Subject
}

func (v *Verifier) parts(ctx context.Context, e ledger.Entry) (parts, error) {
	k := e.Job.JobKey
	p := parts{
		entry: e, verifier: v.Public(), evidence: map[string][]ledger.Evidence{}, renewals: map[string]receipt.Renewals{},
		members: map[string]ledger.MemberEntry{}, enrolled: map[string]receipt.Enrolled{}, ready: map[string]*receipt.Ready{},
		teardowns: map[string]receipt.Teardown{}, transport: v.Config.Storage.Transport,
	}
	var err error
	if p.subject, err = receipt.SubjectOf(e.Job); err != nil {
		return p, err
	}
	if p.rosters, err = v.Ledger.Rosters(ctx, k); err != nil {
		return p, err
	}
	if err = v.readEvidence(ctx, &p); err != nil {
		return p, err
	}
	members, err := v.Ledger.Members(ctx, k)
	if err != nil {
		return p, err
	}
	for _, m := range members {
		if err = p.member(m); err != nil {
			return p, fmt.Errorf("read words of node %s: %w", m.Node, err)
		}
	}
	return p, v.readPolicy(ctx, &p)
}

func (v *Verifier) readEvidence(ctx context.Context, p *parts) error {
	list, err := v.Ledger.EvidenceOf(ctx, p.entry.Job.JobKey)
	if err != nil {
		return err
	}
	for _, e := range list {
		if len(p.evidence[e.Node]) == 0 {
			machine, bad := v.heldAgainst(ctx, e)
			if bad != nil {
				return bad
			}
			p.enrolled[e.Node] = receipt.Enrolled(machine)
		}
		p.evidence[e.Node] = append(p.evidence[e.Node], e)
	}
	renewals, err := v.Ledger.Renewals(ctx, p.entry.Job.JobKey)
	for _, r := range renewals {
		n := p.renewals[r.Node]
		n.Made++
		if r.Good {
			at := r.At
			n.Affirmed, n.Last = n.Affirmed+1, &at
		}
		p.renewals[r.Node] = n
	}
	return err
}

// heldAgainst is what evidence was judged by: of evidence that an earlier release stored, what was enrolled
// at its time.
func (v *Verifier) heldAgainst(ctx context.Context, e ledger.Evidence) (ledger.Machine, error) {
	if e.Machine != nil {
		return *e.Machine, nil
	}
	enrolled, err := v.Ledger.EnrolledAt(ctx, e.Node, e.At)
	return ledger.Machine{Chip: enrolled.Chip, ReportID: enrolled.ReportID}, ignore(err, ledger.ErrNotFound)
}

// readPolicy finds the text of the job's day. A job of which nothing was appraised needs none.
func (v *Verifier) readPolicy(ctx context.Context, p *parts) error {
	if len(p.evidence) == 0 && len(p.rosters) == 0 {
		return nil
	}
	kept, err := v.Ledger.Policy(ctx, p.entry.Policy)
	if err != nil {
		return err
	}
	p.policy = receipt.Policy{Name: cmp.Or(p.entry.Tenant.Policy, v.Config.Controller.Policy), Digest: kept.Digest, Text: kept.Text}
	return nil
}

// member takes a node's own words.
func (p *parts) member(m ledger.MemberEntry) error {
	p.members[m.Node] = m
	if m.Ready != nil && string(m.Ready) != "null" {
		var r api.ReadyRequest
		if err := json.Unmarshal(m.Ready, &r); err != nil {
			return err
		}
		p.ready[m.Node] = &receipt.Ready{Peers: r.Network.Peers, Storage: receipt.Storage(r.Storage)}
	}
	if m.Teardown == nil {
		return nil
	}
	var t api.TeardownRequest
	if err := json.Unmarshal(m.Teardown, &t); err != nil {
		return err
	}
	n := t.Network
	p.teardowns[m.Node] = receipt.Teardown{
		Reported: true, Closed: t.Closed, Checks: t.Checks, TookMS: t.PhasesMS["teardown"], Refusal: t.Refusal,
		Network: receipt.Network{TunnelBytes: n.TunnelBytes, OutsideBytes: n.OutsideBytes, Rejected: n.Rejected, Dropped: n.Dropped},
	}
	return nil
}

// statement is pure: what the ledger knows, as a receipt says it. Chain, signer and the time of
// sealing are the caller's.
func statement(p parts) receipt.Statement {
	e := p.entry
	s := receipt.Statement{Type: receipt.StatementType, Subject: []receipt.Subject{p.subject}, PredicateType: receipt.TypeReal}
	s.Predicate = receipt.Predicate{
		Simulated: p.simulated(), Weak: e.Weak, Verdict: e.Verdict, Refusal: e.Refusal,
		Verifier: receipt.Verifier{Key: enclave.PublicKey(p.verifier), Release: release.Version},
		Job:      e.Job, Tenant: e.Tenant, Times: receipt.Times{Registered: e.Registered, Started: e.Started, Ended: e.Ended},
		Policy: p.policy, Rosters: []receipt.Roster{}, Nodes: []receipt.Node{}, Authorities: []receipt.Authority{},
		Documents: map[string][]byte{}, NotCovered: notCovered(p.transport),
	}
	if s.Predicate.Simulated {
		s.PredicateType = receipt.TypeSimulated
	}
	for _, r := range p.rosters {
		s.Predicate.Rosters = append(s.Predicate.Rosters, receipt.Roster{
			Epoch: r.Epoch, At: r.At, Gone: r.Gone, Refusal: r.Refusal, Header: r.Header, Signature: r.Signature, Peers: r.Peers,
		})
	}
	for _, name := range e.Job.Nodes {
		s.Predicate.Nodes = append(s.Predicate.Nodes, p.node(name, &s.Predicate))
	}
	return s
}

// simulated is true as soon as one word of it is: such a receipt never bears the key of hardware.
func (p parts) simulated() bool {
	if p.entry.Verdict == enclave.VerdictSimulated {
		return true
	}
	for _, list := range p.evidence {
		for _, e := range list {
			if e.Result.Simulated {
				return true
			}
		}
	}
	return false
}

func (p parts) node(name string, into *receipt.Predicate) receipt.Node {
	n := receipt.Node{
		Name: name, Enrolled: p.enrolled[name], Evidence: []receipt.Evidence{}, Renewals: p.renewals[name],
		Ready: p.ready[name], Teardown: p.teardowns[name], Refusal: p.members[name].Refusal,
	}
	for _, e := range p.evidence[name] {
		n.Evidence = append(n.Evidence, p.shown(e, into))
	}
	return n
}

// shown is one piece of evidence; what it was judged by goes among the receipt's documents.
func (p parts) shown(e ledger.Evidence, into *receipt.Predicate) receipt.Evidence {
	keep := func(list [][]byte) []enclave.Digest {
		out := []enclave.Digest{}
		for _, b := range list {
			d := enclave.Digest(sha256.Sum256(b))
			into.Documents[d.String()] = b
			out = append(out, d)
		}
		return out
	}
	by := e.Result.Endorsements
	out := receipt.Evidence{
		At: e.At, Digest: receipt.EvidenceDigest(e.Evidence.Report), Report: e.Evidence.Report, Provider: e.Evidence.Provider,
		Certificates: keep(by.Certificates), CRLs: keep(by.CRLs), Result: e.Result, Claim: p.claim(e),
	}
	if len(by.Certificates) == 0 {
		out.Unparsed = e.Evidence.Certificates
	}
	if a := keep(by.Authorities); len(a) == 2 {
		into.Authorities = withAuthority(into.Authorities, receipt.Authority{Simulated: e.Result.Simulated, Intermediate: a[0], Root: a[1]})
	}
	return out
}

// claim is the verifier's own copy of every field, as it appraised.
func (p parts) claim(e ledger.Evidence) receipt.Claim {
	j := p.entry.Job
	c := api.JobClaim(j.JobKey, j.HetOffset, receipt.KeyID(p.verifier), p.entry.Policy, &api.Announcement{
		Node: e.Node, Nonce: e.Nonce, Keys: e.Keys, Purpose: claim.Purpose(e.Purpose), Epoch: e.Epoch,
	})
	return receipt.Claim{
		Cluster: c.Cluster, VerifierKey: c.VerifierKey, Nonce: c.Nonce, Job: c.Job, HetOffset: c.HetOffset, Restart: c.Restart,
		Node: c.Node, WireGuard: c.WireGuard, Ed25519: c.Ed25519, HPKE: c.HPKE, Intent: c.Intent, Policy: c.Policy,
		Purpose: uint8(c.Purpose), Epoch: c.Epoch,
	}
}

func withAuthority(list []receipt.Authority, a receipt.Authority) []receipt.Authority {
	if slices.Contains(list, a) {
		return list
	}
	return append(list, a)
}
