package door

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/closed"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ground"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/host/survey"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/journal"
	"github.com/slurm-enclave/slurm-enclave/internal/stage"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// closeLimit is how long closing may take, the report included.
const closeLimit = 60 * time.Second

// epilogPatience is how long an epilog waits for another job's prolog, which may wait for other nodes.
const epilogPatience = 20 * time.Second

// NodeEpilog closes what the prologs of a job opened on this node, whether they ran, half ran or
// never ran, and returns the exit status: 1 when something is left, for Slurm then drains the
// node.
func NodeEpilog(ctx context.Context, log *logrus.Logger, env func(string) string) int {
	ctx, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	j, where, err := job.FromPrologEnv(env)
	if err != nil {
		log.WithError(err).Error("environment not understood")
		return exitBroken
	}
	n, err := newNode(log, j, where.Node)
	if err != nil {
		log.WithError(err).Error("node not ready for enclaves")
		return exitBroken
	}
	if err = n.alone(ctx); err != nil {
		n.log.WithError(err).Error("another prolog or epilog of this job does not end")
	}
	configured := n.configure()
	if n.client != nil {
		defer n.client.Close()
	}
	if errors.Is(configured, errNoConfig) {
		n.log.WithError(configured).Error("what to take down is not known")
		return exitBroken
	}
	release, busy := n.hold(epilogPatience)
	if busy == nil {
		defer release()
	} else {
		n.log.WithError(busy).Warn("node not held") // what this job opened is taken down all the same
	}
	// After a requeue Slurm already shows the next start's count: the journals know better.
	status := exitFine
	if n.anothers(busy) {
		return n.leave()
	}
	for _, start := range n.starts() {
		n.job.JobKey, n.journal, n.phases = start, nil, map[string]int64{}
		status = max(status, n.close(ctx))
	}
	return status
}

// anothers says whether the node is another job's that lives, and this one was refused for it: what
// is open here is the other's to close.
func (n *node) anothers(busy error) bool {
	own, err := journal.List(RunDir, n.job.Cluster)
	if err != nil || slices.ContainsFunc(own, func(k enclave.JobKey) bool { return k.Job == n.job.Job }) {
		return false
	}
	if _, held := enclave.AsRefusal(busy); held {
		return true
	}
	facts, err := survey.Facts(n.job.JobKey, RunDir, uidMin, nil)
	if err != nil {
		return false
	}
	_, r := ground.Decide(facts)
	return r != nil && r.Code == ground.CodeSuspended
}

// leave takes back what this job was told, and nothing else.
func (n *node) leave() int {
	if err := n.gate.Remove(n.job.Job); err != nil {
		n.log.WithError(err).Error("gate files not removed")
		return exitBroken
	}
	n.log.Info("nothing of this job is here; the node is another job's")
	return exitFine
}

// starts are the starts of this job that have a journal here, or the one that Slurm names when
// none has: the prolog may have died before it wrote a line.
func (n *node) starts() []enclave.JobKey {
	all, err := journal.List(RunDir, n.job.Cluster)
	if err != nil {
		n.log.WithError(err).Warn("journals not listed")
	}
	all = slices.DeleteFunc(all, func(k enclave.JobKey) bool { return k.Job != n.job.Job })
	if len(all) == 0 {
		return []enclave.JobKey{n.job.JobKey}
	}
	return all
}

// close takes everything of one start down and reports it.
func (n *node) close(ctx context.Context) int {
	started := time.Now()
	errs := n.gate.Remove(n.job.Job)
	r := n.resume()
	n.recall(r.Header)
	var network api.Network
	if len(r.Open()) > 0 {
		network = n.counted(ctx)
	}
	errs = errors.Join(errs, stage.Down(ctx, n.rooms(), nil))
	left := n.leftovers(ctx)
	// slurmd can start the user's login shell for a job that is over (0030), behind the end of its
	// processes: once more, with what that has left, or a user would have drained the node.
	for range lateShells {
		if !somebodyCame(left) || ctx.Err() != nil {
			break
		}
		n.log.Info("a process of the user's came late")
		errs = errors.Join(errs, stage.Down(ctx, n.rooms(), nil))
		left = n.leftovers(ctx)
	}
	differs := closed.Refuse(left)
	n.phases["teardown"] = time.Since(started).Milliseconds()
	report := api.TeardownRequest{
		NodeRequest: n.request(), Closed: errs == nil && differs == nil, Checks: left, PhasesMS: n.phases, Network: network,
	}
	if !report.Closed {
		report.Refusal = leftoverRefusal(n.name, differs, errs)
	}
	n.logEnd(report)
	if err := n.finish(report, RunDir); err != nil {
		n.log.WithError(err).Warn("journal not closed")
	}
	n.report(ctx, report, r)
	if !report.Closed {
		return exitBroken
	}
	return exitFine
}

// lateShells is how often processes that come while the node is closed are ended: slurmd starts one for
// each batch launch.
const lateShells = 3

func somebodyCame(checks []enclave.Check) bool {
	return slices.ContainsFunc(checks, func(c enclave.Check) bool { return c.Name == "closed.processes" && c.Result == enclave.CheckFail })
}

// resume opens the journal to write in it what is undone; one that is missing or damaged does
// not keep anything from being taken down.
func (n *node) resume() journal.Record {
	j, r, err := journal.Open(RunDir, n.job.JobKey, boottime)
	if err != nil {
		n.log.WithError(err).Info("no journal")
		return r
	}
	n.journal = j
	return r
}

// recall takes the job's user from its journal where Slurm does not name him: slurmd aborts a job that
// slurmctld has forgotten as if it were root's, and none of the user's would be looked for.
func (n *node) recall(h journal.Header) {
	if n.job.UID >= uidMin || h.UID < uidMin {
		return
	}
	n.job.UID, n.job.User = h.UID, h.User
	var err error
	if n.subuids, err = process.SubordinateIDs(n.job.User, n.job.UID, uidMin); err != nil {
		n.log.WithError(err).Error("subordinate ids not read")
	}
}

// logEnd says in the log, which stays, how the node was left: as it was read back from the kernel, or why not.
func (n *node) logEnd(t api.TeardownRequest) {
	log := n.log.WithFields(phaseFields(t.PhasesMS))
	if !t.Closed {
		log.Error("not closed: " + t.Refusal.Reason)
		return
	}
	log.WithField("read_back", readBack(t)).Info("closed")
}

// finish ends the journal in base with what was read back, and only then removes it: whoever finds a journal
// without this line knows that nobody has read the node back.
func (n *node) finish(t api.TeardownRequest, base string) error {
	switch {
	case n.journal == nil:
		return nil
	case t.Closed:
		return errors.Join(n.journal.Close(readBack(t)), journal.Remove(base, n.job.JobKey))
	default:
		return n.journal.Leave()
	}
}

// readBack is the journal's last line, and a part of the log's: what the kernel was asked for and has no more.
func readBack(t api.TeardownRequest) string {
	var names []string
	for _, c := range t.Checks {
		names = append(names, strings.TrimPrefix(c.Name, "closed."))
	}
	return fmt.Sprintf("in %d ms; as recorded: %s", t.PhasesMS["teardown"], strings.Join(names, " "))
}

// report is the node's last word. A job of which this node has never begun anything has none.
func (n *node) report(ctx context.Context, t api.TeardownRequest, r journal.Record) {
	if n.client == nil || (t.Closed && len(r.Lines) == 0) {
		return
	}
	if err := n.client.Teardown(ctx, t); err != nil {
		n.log.WithError(err).Warn("teardown not reported")
	}
}

// leftoverRefusal names what could not be taken down, which explains what is left.
func leftoverRefusal(name string, differs *enclave.Refusal, err error) *enclave.Refusal {
	r := differs
	if err != nil {
		r = refusalOf(err, "E245")
	}
	r.Node, r.Fault = name, enclave.FaultNode
	return r
}
