package site

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// Codes of the site role.
const (
	CodeInteractive enclave.Code = "E521" // salloc and srun cannot be requeued
	CodeNoRequeue   enclave.Code = "E522" // the user forbade it
	CodeAccounting  enclave.Code = "E523" // the verdict is in the ledger only
	CodeSlurm       enclave.Code = "E524" // Slurm does not answer; kept on the spool
)

// Prefix begins every drain reason of ours; the code follows at once.
const Prefix = "enclave:"

// Jobs reads and ends jobs.
type Jobs interface {
	Job(ctx context.Context, id uint32) (slurm.Job, error)
	Requeue(ctx context.Context, id uint32) error
	Cancel(ctx context.Context, id uint32) error
}

// Nodes reads, drains and resumes nodes.
type Nodes interface {
	Node(ctx context.Context, name string) (slurm.Node, error)
	Drain(ctx context.Context, node, reason string) error
	Resume(ctx context.Context, node string) error
}

// Comments reads and writes AdminComment.
type Comments interface {
	AdminComment(ctx context.Context, id uint32) (text string, finished bool, err error)
	SetAdminComment(ctx context.Context, id uint32, text string) error
	SetStoredComment(ctx context.Context, id uint32, text string) error
}

// Slurm is all three; internal/slurm's drivers are.
type Slurm interface {
	Jobs
	Nodes
	Comments
}

// Site is the site role.
type Site struct {
	slurm Slurm
	spool Spool
	now   func() time.Time
}

// New makes the site role.
func New(s Slurm, spool Spool, now func() time.Time) *Site {
	return &Site{slurm: s, spool: spool, now: now}
}

// JobState says how a job does. A job that nobody knows has no state and is not alive. While
// Slurm shows COMPLETING it hides how the job ended: with an exit code it is told as FAILED, else
// as CANCELLED, so that nobody revives what its owner has ended.
func (s *Site) JobState(ctx context.Context, id uint32) (enclave.JobState, error) {
	j, err := s.slurm.Job(ctx, id)
	if errors.Is(err, slurm.ErrNoJob) {
		return enclave.JobState{}, nil
	}
	if err != nil {
		return enclave.JobState{}, err
	}
	st := enclave.JobState{
		Alive: j.Alive(), State: j.State, AllocNode: j.AllocNode, Batch: j.Batch,
		TimeLimit: uint32(min(j.TimeLimit/time.Second, 1<<32-1)), Restart: j.Restarts,
	}
	if j.State == "COMPLETING" {
		st.State = "CANCELLED"
		if j.Refused() {
			st.State = "FAILED"
		}
	}
	return st, nil
}

// Drain drains a node; the reason begins with "enclave:" and a code. A node that is drained
// already keeps its reason: a foreign one is the admin's, one of ours is the first cause. Slurm's
// own words for a failed prolog or epilog are no cause: where they came first, ours replace them.
func (s *Site) Drain(ctx context.Context, node, reason string) error {
	if code, _, ok := strings.Cut(reason, " "); !ok || len(code) != len(Prefix)+4 || !strings.HasPrefix(code, Prefix+"E") {
		return fmt.Errorf("drain node %s: reason %q does not begin with %sE###", node, reason, Prefix)
	}
	return s.try(ctx, kindDrain, errand{Node: node, Reason: reason})
}

func (s *Site) drain(ctx context.Context, e errand) error {
	n, err := s.slurm.Node(ctx, e.Node)
	if err != nil {
		return err
	}
	if n.Drained() && n.Reason != "" && !slurmsOwn(n.Reason) {
		return nil
	}
	if err = s.slurm.Drain(ctx, e.Node, e.Reason); err != nil {
		return err
	}
	if n, err = s.slurm.Node(ctx, e.Node); err != nil {
		return err
	}
	if !n.Drained() || slurmsOwn(n.Reason) {
		return fmt.Errorf("drain node %s: not drained for our reason after the command", e.Node)
	}
	return nil
}

// Resume takes our own drain back when its reason begins with the word reasonPrefix
// ("enclave:E220"). Any other drain stays, but for the one that Slurm adds to ours when it hears
// of the failed prolog afterwards; drained is when ours was.
func (s *Site) Resume(ctx context.Context, node, reasonPrefix string, drained time.Time) error {
	if !strings.HasPrefix(reasonPrefix, Prefix) {
		return fmt.Errorf("resume node %s: %q is no reason of ours", node, reasonPrefix)
	}
	return s.try(ctx, kindResume, errand{Node: node, Reason: reasonPrefix, Drained: drained})
}

func (s *Site) resume(ctx context.Context, e errand) error {
	n, err := s.slurm.Node(ctx, e.Node)
	if err != nil {
		return err
	}
	if !n.Drained() || !begins(n.Reason, e.Reason) {
		return nil
	}
	if err = s.listen(ctx, errand{Node: e.Node, Drained: e.Drained, Looks: looks}); err != nil {
		return err
	}
	return s.slurm.Resume(ctx, e.Node)
}

// begins compares whole words: E22 is no beginning of E220. Slurm keeps the reason, so a drain
// of ours is known over our restarts, and an admin who writes another one takes it over.
func begins(reason, prefix string) bool {
	rest, ok := strings.CutPrefix(reason, prefix)
	return ok && (rest == "" || rest[0] == ' ')
}

// Requeue puts a start of a job back into the queue: neither its user nor its owner was at
// fault. A job that can't be put back is cancelled, and the refusal that says why is the error.
// How often is enough is the verifier's to count.
func (s *Site) Requeue(ctx context.Context, k enclave.JobKey, reason string) error {
	return s.try(ctx, kindRequeue, errand{Job: k.Job, Restart: k.Restart, Reason: reason})
}

func (s *Site) requeue(ctx context.Context, e errand) error {
	j, err := s.slurm.Job(ctx, e.Job)
	if errors.Is(err, slurm.ErrNoJob) {
		return nil
	}
	if err != nil {
		return err
	}
	// "scontrol requeue" would revive a job that its owner has cancelled [tried].
	if j.Restarts != e.Restart || !j.Alive() && !j.Refused() {
		return nil
	}
	if refusal := unfit(j, e.Reason); refusal != nil {
		if err = s.cancel(ctx, j); err != nil {
			return err
		}
		return refusal
	}
	err = s.slurm.Requeue(ctx, e.Job)
	if errors.Is(err, slurm.ErrNoJob) {
		return nil
	}
	return err
}

func (s *Site) cancel(ctx context.Context, j slurm.Job) error {
	if !j.Alive() {
		return nil
	}
	return s.slurm.Cancel(ctx, j.ID)
}

// End cancels a start of a job that may not go on: it is not put back. One that is over, or has
// begun anew since, is left alone.
func (s *Site) End(ctx context.Context, k enclave.JobKey, reason string) error {
	return s.try(ctx, kindEnd, errand{Job: k.Job, Restart: k.Restart, Reason: reason})
}

func (s *Site) end(ctx context.Context, e errand) error {
	j, err := s.slurm.Job(ctx, e.Job)
	if errors.Is(err, slurm.ErrNoJob) {
		return nil
	}
	if err != nil {
		return err
	}
	if j.Restarts != e.Restart {
		return nil
	}
	return s.cancel(ctx, j)
}

// unfit says why a job can't be put back.
func unfit(j slurm.Job, reason string) *enclave.Refusal {
	switch {
	case !j.Batch:
		return enclave.Refuse(CodeInteractive, enclave.FaultService, "interactive job %d has ended, nobody can requeue it: %s", j.ID, reason)
	case !j.Requeue:
		return enclave.Refuse(CodeNoRequeue, enclave.FaultService, "job %d has ended, it was submitted with --no-requeue: %s", j.ID, reason)
	}
	return nil
}
