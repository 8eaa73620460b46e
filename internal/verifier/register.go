package verifier

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Limits of a registration. A start that was never settled is forgotten after keepStarts. Jobs of
// 10,000 nodes are measured (docs/performance.md); maxNodes bounds what one may cost.
const (
	minUID   = 1000
	maxNodes = 16384

	codeHet         enclave.Code = "E105"
	codeSenseless   enclave.Code = "E120"
	codeInteractive enclave.Code = "E141"
	codeUsed        enclave.Code = "E551"
	keepStarts                   = 25 * time.Hour
)

// Register takes a job in before any of its nodes starts it. The same registration again
// changes nothing; another one under the same key is refused, and the first stands. What is the
// request's own fault is remembered, so that its nodes get the reason and the job fails, in place
// of going round the queue; a registration that makes no sense here (E120) is no job's history.
func (v *Verifier) Register(ctx context.Context, r api.RegisterRequest) (api.RegisterAnswer, error) {
	answer, err := v.register(ctx, r)
	if refusal, ok := enclave.AsRefusal(err); ok && refusal.Fault == enclave.FaultRequest && refusal.Code != codeSenseless {
		v.remember(ctx, r.Job, refusal)
	}
	return answer, err
}

// remember keeps a refused registration in the ledger only: there is no start to wait for.
func (v *Verifier) remember(ctx context.Context, j enclave.Job, refusal *enclave.Refusal) {
	now := time.Now()
	err := v.Ledger.Register(ctx, ledger.Plan{Job: j}, now)
	if err == nil {
		err = v.Ledger.Decide(ctx, j.JobKey, ledger.Verdict{Verdict: enclave.VerdictRefused, Refusal: refusal}, now)
	}
	if err != nil {
		v.alarm(ctx, "E507", fmt.Sprintf("refusal of job %s not kept: %v", j.JobKey, err))
	}
}

func (v *Verifier) register(ctx context.Context, r api.RegisterRequest) (api.RegisterAnswer, error) {
	if err := v.checkJob(r.Job); err != nil {
		return api.RegisterAnswer{}, err
	}
	if r.HetJob != 0 { // each component would be an enclave of its own, and its ranks find no others
		refusal := enclave.Refuse(codeHet, enclave.FaultRequest, "job %d is a component of heterogeneous job %d", r.Job.Job, r.HetJob)
		refusal.Fix = "submit the components as jobs of their own"
		return api.RegisterAnswer{}, refusal
	}
	tenant, err := v.Tenants.Lookup(r.Job.Account, r.Tenant)
	if err != nil {
		return api.RegisterAnswer{}, err
	}
	policy, err := v.Appraiser.Policy(tenant.Policy)
	if err != nil {
		return api.RegisterAnswer{}, enclave.Refuse("E514", enclave.FaultService, "policy of tenant %s: %v", tenant.Name, err)
	}
	plan := ledger.Plan{Job: v.complete(ctx, r.Job), Tenant: tenant, Policy: policy}
	if !plan.Job.Batch && plan.Job.SubmitHost != "" && v.Config.Network.Interactive == "deny" {
		refusal := enclave.Refuse(codeInteractive, enclave.FaultRequest, "this site lets no interactive job into an enclave")
		refusal.Fix = "submit a script with sbatch"
		return api.RegisterAnswer{}, refusal
	}
	if err := v.keepPolicy(ctx, tenant, policy); err != nil {
		return api.RegisterAnswer{}, err
	}
	if err := v.seat(ctx, plan); err != nil {
		return api.RegisterAnswer{}, err
	}
	return api.RegisterAnswer{Tenant: tenant.Name, Epoch: firstEpoch}, nil
}

// keepPolicy stores the policy's text: the job is judged by it until its end.
func (v *Verifier) keepPolicy(ctx context.Context, t enclave.Tenant, digest enclave.Digest) error {
	text, err := v.Appraiser.Text(digest)
	if err != nil {
		return enclave.Refuse("E508", enclave.FaultService, "policy of tenant %s changed while the job was registered", t.Name)
	}
	if err := v.Ledger.AddPolicy(ctx, ledger.Policy{Digest: digest, Name: t.Policy, Text: text, At: time.Now()}); err != nil {
		return ledgerRefusal(err)
	}
	return nil
}

func (v *Verifier) checkJob(j enclave.Job) error {
	refuse := func(code enclave.Code, format string, args ...any) error {
		return enclave.Refuse(code, enclave.FaultRequest, format, args...)
	}
	switch {
	case j.Cluster != v.Config.Cluster:
		return refuse(codeSenseless, "job of cluster %q, this verifier serves %q", j.Cluster, v.Config.Cluster)
	case j.Job == 0:
		return refuse(codeSenseless, "job id is 0")
	case !slices.Contains(v.Config.Partitions, j.Partition):
		return refuse(codeSenseless, "partition %q is not an enclave partition", j.Partition)
	case j.UID < minUID:
		return refuse("E122", "uid %d may not run in an enclave", j.UID)
	case len(j.Nodes) == 0 || len(j.Nodes) > maxNodes:
		return refuse(codeSenseless, "job has %d nodes, want 1 to %d", len(j.Nodes), maxNodes)
	}
	seen := map[string]bool{}
	for _, n := range j.Nodes {
		if seen[n] {
			return refuse(codeSenseless, "node %s is there twice", n)
		}
		seen[n] = true
		if _, ok := v.lines[n]; !ok {
			r := enclave.Refuse("E123", enclave.FaultService, "node %s is not in inventory.yaml", n)
			r.Fix = "add it there, or take it out of the partition"
			return r
		}
	}
	return nil
}

// complete fills in what the prolog's environment does not say, from Slurm. What Slurm can't
// say now stays unknown, which is the stricter case for the fence.
func (v *Verifier) complete(ctx context.Context, j enclave.Job) enclave.Job {
	state, err := v.Site.JobState(ctx, j.Job)
	if err != nil {
		return j
	}
	j.Batch = j.Batch || state.Batch
	if j.SubmitHost == "" {
		j.SubmitHost = state.AllocNode
	}
	if j.TimeLimit == 0 {
		j.TimeLimit = state.TimeLimit
	}
	return j
}

// seat stores the plan, in the ledger first.
func (v *Verifier) seat(ctx context.Context, p ledger.Plan) error {
	k := p.Job.JobKey
	v.mu.Lock()
	old := v.starts[k]
	v.mu.Unlock()
	if old != nil {
		return sameRegistration(old.plan, p)
	}
	e, err := v.Ledger.Entry(ctx, k)
	switch {
	case err == nil && (e.Ended != nil || e.Job.UID != p.Job.UID):
		return usedNumber(e)
	case err == nil: // Nodes may hold nonces, keys or a roster of the start that this process forgot.
		return unknownJob(k)
	case !errors.Is(err, ledger.ErrNotFound):
		return ledgerRefusal(err)
	}
	if err = os.Remove(v.goFile(k)); err != nil && !errors.Is(err, os.ErrNotExist) { // of a start that the ledger does not know
		return ledgerRefusal(err)
	}
	if err := v.Ledger.Register(ctx, p, time.Now()); err != nil {
		return ledgerRefusal(err)
	}
	seats := map[string]*seat{}
	for _, n := range p.Job.Nodes {
		seats[n] = &seat{node: v.lines[n]}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.starts[k] != nil { // a second call of the same, in between
		return sameRegistration(v.starts[k].plan, p)
	}
	v.forgetOthers(k)
	v.starts[k] = newStart(p, seats)
	return nil
}

// usedNumber refuses a start whose key is in the ledger as another job's: its record, evidence and receipt
// are that one's for ever. The next start of the job has another restart count.
func usedNumber(e ledger.Entry) error {
	r := enclave.Refuse(codeUsed, enclave.FaultService, "start %s is in the ledger already, of a job of %s: Slurm's job numbers have begun anew", e.Job.JobKey, e.Registered.Format(time.DateOnly))
	r.Fix = "nothing, the job is requeued, and its next start has another count; admin: FirstJobId in slurm.conf above the highest number of enclave jobs"
	return r
}

// sameRegistration compares what the controller said; the rest may have changed with the files.
func sameRegistration(old, p ledger.Plan) error {
	if !reflect.DeepEqual(old.Job, p.Job) || old.Tenant.Name != p.Tenant.Name {
		return enclave.Refuse("E121", enclave.FaultService, "job %s is registered already, with another content", p.Job.JobKey)
	}
	return nil
}

// forgetOthers drops the earlier starts of the job and starts that nobody settled. The caller holds v.mu.
func (v *Verifier) forgetOthers(k enclave.JobKey) {
	for other, s := range v.starts {
		earlier := other.Cluster == k.Cluster && other.Job == k.Job && other.Restart < k.Restart
		over := s.phase >= released && time.Since(s.made) > keepStarts
		idle := s.phase == registered && time.Since(s.made) > keepStarts
		if earlier && s.phase != first && s.phase != second || over || idle {
			delete(v.starts, other)
			v.tickets.forget(other)
		}
		if earlier {
			delete(v.runs, other)
			_ = os.Remove(v.goFile(other)) // a leftover is swept up
		}
	}
}
