package verifier

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// maxList bounds a list that people ask for.
const maxList = 1000

// Viewer is who asks. Users see their own jobs, an account's coordinators the account's, operators all.
type Viewer struct {
	UID      uint32
	Operator bool
	Accounts []string // that the viewer coordinates
}

// sees is true for a job that the viewer may read of.
func (w Viewer) sees(j enclave.Job) bool {
	return w.Operator || w.UID == j.UID || (j.Account != "" && slices.Contains(w.Accounts, j.Account))
}

func (w Viewer) scope() ledger.Scope {
	return ledger.Scope{All: w.Operator, UID: w.UID, Accounts: w.Accounts}
}

// Report makes the document of one start; restart nil is the latest.
func (v *Verifier) Report(ctx context.Context, who Viewer, job uint32, restart *uint32) (api.Report, error) {
	e, err := v.visible(ctx, who, job, restart)
	if err != nil {
		return api.Report{}, err
	}
	members, err := v.Ledger.Members(ctx, e.Job.JobKey)
	if err != nil {
		return api.Report{}, ledgerRefusal(err)
	}
	out, err := report(e, members, v.Config.Storage.Transport)
	if err == nil {
		err = v.history(ctx, e, &out)
	}
	if err != nil {
		return api.Report{}, err
	}
	sealed, err := v.Ledger.ReceiptOf(ctx, e.Job.JobKey)
	if err == nil {
		out.Receipt, out.Sequence = "sha256:"+sealed.Digest.String(), sealed.Sequence
	} else if !errors.Is(err, ledger.ErrNotFound) {
		return api.Report{}, ledgerRefusal(err)
	}
	return out, nil
}

// history adds what happened while the job ran: renewals, and nodes that left.
func (v *Verifier) history(ctx context.Context, e ledger.Entry, out *api.Report) error {
	sums, err := v.Ledger.RenewalSums(ctx, e.Job.JobKey)
	if err != nil {
		return ledgerRefusal(err)
	}
	for i := range out.Nodes {
		if sum, ok := sums[out.Nodes[i].Name]; ok {
			out.Nodes[i].Renewals, out.Nodes[i].Renewed = sum.Times, &sum.Last
		}
	}
	rosters, err := v.Ledger.Rosters(ctx, e.Job.JobKey)
	if err != nil {
		return ledgerRefusal(err)
	}
	for _, r := range rosters {
		if r.Gone != "" {
			out.Departures = append(out.Departures, api.Departure{Node: r.Gone, Epoch: r.Epoch, At: r.At, Refusal: r.Refusal})
		}
	}
	return nil
}

// visible finds one start, the latest when restart is nil. A job that the viewer may not see looks
// like one that is not there.
func (v *Verifier) visible(ctx context.Context, who Viewer, job uint32, restart *uint32) (ledger.Entry, error) {
	e, err := v.Ledger.Latest(ctx, v.Config.Cluster, job)
	if restart != nil {
		e, err = v.Ledger.Entry(ctx, enclave.JobKey{Cluster: v.Config.Cluster, Job: job, Restart: *restart})
	}
	if errors.Is(err, ledger.ErrNotFound) || (err == nil && !who.sees(e.Job)) {
		if restart != nil {
			return e, enclave.Refuse("E135", enclave.FaultRequest, "no start %d of an enclave job %d of yours is in the ledger", *restart, job)
		}
		return e, enclave.Refuse("E135", enclave.FaultRequest, "no enclave job %d of yours is in the ledger", job)
	}
	if err != nil {
		return e, ledgerRefusal(err)
	}
	return e, nil
}

// report is pure.
func report(e ledger.Entry, members []ledger.MemberEntry, transport string) (api.Report, error) {
	j := e.Job
	out := api.Report{
		Job: j.Job, Restart: j.Restart, Cluster: j.Cluster, User: j.User, UID: j.UID, Account: j.Account, Partition: j.Partition,
		Tenant: e.Tenant.Name, Verdict: e.Verdict, Weak: e.Weak, Refusal: e.Refusal, Receipt: "not yet",
		Registered: e.Registered, Started: e.Started, Ended: e.Ended, TimelineMS: map[string]int64{},
		NotCovered: notCovered(transport), Nodes: []api.NodeReport{},
	}
	byNode := map[string]ledger.MemberEntry{}
	for _, m := range members {
		byNode[m.Node] = m
	}
	for _, n := range j.Nodes {
		line, err := nodeReport(n, byNode[n], &out)
		if err != nil {
			return api.Report{}, err
		}
		out.Nodes = append(out.Nodes, line)
	}
	return out, nil
}

// nodeReport is one node's line; what it counted is added to the job's sums.
func nodeReport(node string, m ledger.MemberEntry, sum *api.Report) (api.NodeReport, error) {
	line := api.NodeReport{Name: node, Result: enclave.StatusNone, Checks: []enclave.Check{}, Refusal: m.Refusal, TimelineMS: map[string]int64{}}
	if r := m.Result; r != nil {
		line.Result, line.Simulated, line.Weak, line.Checks = r.Status, r.Simulated, r.Weak, r.Checks
		line.Product, line.TCB, line.Measurement, line.ChipID = r.Product, r.TCB, r.Measurement, r.ChipID
	}
	var ready api.ReadyRequest
	if m.Ready != nil {
		if err := json.Unmarshal(m.Ready, &ready); err != nil {
			return line, err
		}
		sum.Storage, sum.Network.Peers = ready.Storage, max(sum.Network.Peers, ready.Network.Peers)
	}
	var down api.TeardownRequest
	if m.Teardown != nil {
		if err := json.Unmarshal(m.Teardown, &down); err != nil {
			return line, err
		}
		line.Closed = &down.Closed
		sum.Network.TunnelBytes += down.Network.TunnelBytes
		sum.Network.OutsideBytes += down.Network.OutsideBytes
		sum.Network.Rejected += down.Network.Rejected
		sum.Network.Dropped += down.Network.Dropped
	}
	for _, phases := range []map[string]int64{ready.PhasesMS, down.PhasesMS} {
		for name, ms := range phases {
			line.TimelineMS[name] = ms
			sum.TimelineMS[name] = max(sum.TimelineMS[name], ms)
		}
	}
	return line, nil
}

// notCovered says in every report what the enclave does not protect.
func notCovered(transport string) []string {
	out := []string{
		"Slurm's control messages (job script, command lines and environment at launch, wire-up of PMIx, sbcast, X11, stdio to the submit host): in the clear unless Slurm's own TLS is on",
		"what programs of root's send for the job's user: setuid programs, mail, name service",
		"what the node ran after it was booted: a report says what was launched",
		"traffic volumes and times, which the network sees",
	}
	if transport == "fabric-trusted" {
		out = append(out, "the file system's own traffic: its transport is fabric-trusted")
	}
	return out
}

// List makes the document of jobs, latest first.
func (v *Verifier) List(ctx context.Context, who Viewer) (api.Jobs, error) {
	entries, err := v.Ledger.Entries(ctx, who.scope(), maxList)
	if err != nil {
		return api.Jobs{}, ledgerRefusal(err)
	}
	out := api.Jobs{Jobs: []api.JobLine{}}
	for _, e := range entries {
		line := api.JobLine{
			Job: e.Job.Job, Restart: e.Job.Restart, User: e.Job.User, Account: e.Job.Account, Partition: e.Job.Partition,
			Tenant: e.Tenant.Name, Nodes: e.Job.Nodes, Verdict: e.Verdict, Weak: e.Weak, Registered: e.Registered, Ended: e.Ended,
		}
		if e.Refusal != nil {
			line.Code = e.Refusal.Code
		}
		out.Jobs = append(out.Jobs, line)
	}
	return out, nil
}

// Fleet makes the document of nodes. Users see posture; chips, jobs and alarms are for operators.
func (v *Verifier) Fleet(ctx context.Context, who Viewer) (api.Nodes, error) {
	out := api.Nodes{Nodes: []api.NodeLine{}, Alarms: []api.Alarm{}, Counters: map[string]uint64{}}
	for _, n := range v.Inventory.Nodes {
		line, err := v.nodeLine(ctx, n.Name)
		if err != nil {
			return api.Nodes{}, ledgerRefusal(err)
		}
		if !who.Operator {
			line.ChipID, line.ReportID, line.Fingerprint, line.LastJob, line.Refusal = "", "", "", "", nil
		}
		out.Nodes = append(out.Nodes, line)
	}
	if !who.Operator {
		return out, nil
	}
	alarms, err := v.Ledger.Alarms(ctx, maxList/10)
	if err != nil {
		return api.Nodes{}, ledgerRefusal(err)
	}
	for _, a := range alarms {
		out.Alarms = append(out.Alarms, api.Alarm(a))
	}
	return out, nil
}

// LatestEvidence is the last evidence of a node, for operators: it names chips.
func (v *Verifier) LatestEvidence(ctx context.Context, who Viewer, node string) (api.NodeEvidence, error) {
	if !who.Operator {
		return api.NodeEvidence{}, enclave.Refuse("E132", enclave.FaultRequest, "evidence of nodes is for operators")
	}
	e, err := v.Ledger.LatestEvidence(ctx, node)
	if errors.Is(err, ledger.ErrNotFound) {
		return api.NodeEvidence{}, enclave.Refuse("E135", enclave.FaultRequest, "no evidence of node %s is in the ledger", printable(node, 64))
	}
	if err != nil {
		return api.NodeEvidence{}, ledgerRefusal(err)
	}
	out := api.NodeEvidence{Node: node, At: e.At, Evidence: e.Evidence, Result: e.Result}
	if e.Key.Job != 0 {
		out.Job = e.Key.Directory()
	}
	return out, nil
}

// revokedLine says of a node that is not enrolled any more when and why it was taken out: that is the
// latest of it, whatever its evidence was.
func (v *Verifier) revokedLine(ctx context.Context, line *api.NodeLine) error {
	if b, out := v.banned.get(line.Name); out {
		line.RevokedAt, line.Refusal = &b.at, revokedRefusal(line.Name, b.why)
		return nil
	}
	all, err := v.Ledger.Enrolments(ctx, line.Name)
	if err != nil || len(all) == 0 {
		return err
	}
	last := all[len(all)-1]
	line.RevokedAt, line.Refusal = last.Revoked, revokedRefusal(line.Name, last.Why)
	return nil
}

func (v *Verifier) nodeLine(ctx context.Context, node string) (api.NodeLine, error) {
	line := api.NodeLine{Name: node, Result: enclave.StatusNone}
	e, err := v.enrolled(ctx, node)
	if err == nil {
		at := e.At
		line.Enrolled, line.ChipID, line.ReportID, line.Fingerprint, line.EnrolledAt = true, e.Chip, e.ReportID, e.Fingerprint.String(), &at
	} else if !errors.Is(err, ledger.ErrNotFound) {
		return line, err
	}
	m, err := v.Ledger.LastMember(ctx, node)
	if err == nil {
		at := m.At
		line.LastJob, line.LastSeen, line.Refusal = m.Key.Directory(), &at, m.Refusal
		if m.Result != nil {
			line.Result = m.Result.Status
		}
	} else if !errors.Is(err, ledger.ErrNotFound) {
		return line, err
	}
	if !line.Enrolled {
		if err = v.revokedLine(ctx, &line); err != nil {
			return line, err
		}
	}
	f, err := v.Ledger.LastFailure(ctx, node)
	if err == nil {
		passedSince := line.LastSeen != nil && line.LastSeen.After(f.At) && line.Refusal == nil // an admin resumed it
		line.Drained = f.Drained && !f.Resumed && !passedSince
	} else if !errors.Is(err, ledger.ErrNotFound) {
		return line, err
	}
	return line, nil
}
