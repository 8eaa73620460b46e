package slurm

import (
	"context"
	"errors"
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/job"
)

// Job reads one job; ErrNoJob when Slurm has never known it or has forgotten it.
func (r *REST) Job(ctx context.Context, id uint32) (Job, error) {
	j, _, ok, err := r.live(ctx, id)
	if !ok {
		return r.cli.Job(ctx, id)
	}
	return j, err
}

// live reads job and comment in one answer.
func (r *REST) live(ctx context.Context, id uint32) (j Job, comment string, ok bool, err error) {
	a, ok, err := r.try(ctx, DutyJob, decimal(id), nil)
	if !ok {
		return Job{}, "", false, nil
	}
	var found jobAnswer
	if err == nil {
		found, err = a.job(id)
	}
	if err == nil {
		j, err = found.value()
	}
	if err != nil {
		return Job{}, "", true, fmt.Errorf("read job %d: %w", id, err)
	}
	return j, found.AdminComment, true, nil
}

// AdminComment reads the text and says whether it must now be changed in the accounting
// database (finished) or in slurmctld.
func (r *REST) AdminComment(ctx context.Context, id uint32) (text string, finished bool, err error) {
	j, text, ok, err := r.live(ctx, id)
	if !ok {
		if j, err = r.cli.Job(ctx, id); err == nil && j.open() {
			text, err = r.cli.liveComment(ctx, id)
			return text, false, err
		}
	}
	if err == nil && j.open() {
		return text, false, nil
	}
	if err != nil && !errors.Is(err, ErrNoJob) {
		return "", false, err
	}
	text, err = r.stored(ctx, id)
	return text, true, err
}

// stored reads the latest start of the job.
func (r *REST) stored(ctx context.Context, id uint32) (string, error) {
	a, ok, err := r.try(ctx, DutyStoredComment, decimal(id), nil)
	if !ok {
		return r.cli.storedComment(ctx, id)
	}
	var j storedAnswer
	if errors.Is(err, errEmpty) {
		err = ErrNoJob
	}
	if err == nil {
		j, err = a.latest(id)
	}
	if err != nil {
		return "", fmt.Errorf("read admin comment of job %d in accounting: %w", id, err)
	}
	return j.Comment.Administrator, nil
}

// Node reads one node.
func (r *REST) Node(ctx context.Context, name string) (Node, error) {
	if err := job.CheckNodeName(name); err != nil {
		return Node{}, fmt.Errorf("read node: %w", err)
	}
	a, ok, err := r.try(ctx, DutyNode, name, nil)
	if !ok {
		return r.cli.Node(ctx, name)
	}
	var n Node
	switch {
	case err == nil:
		n, err = a.node(name)
	case a.without() && a.Nodes == nil:
		err = fmt.Errorf("%w: %w", ErrNoNode, err)
	}
	if err != nil {
		return Node{}, fmt.Errorf("read node %s: %w", name, err)
	}
	return n, nil
}

// nodeUpdate is what a node is told to become. Arrays are read by every version that has the call.
type nodeUpdate struct {
	State  []string `json:"state"`
	Reason string   `json:"reason,omitempty"`
}

// Drain drains the node. Slurm overwrites the reason of a drained node: ask Node first.
func (r *REST) Drain(ctx context.Context, node, reason string) error {
	if err := job.CheckNodeName(node); err != nil {
		return fmt.Errorf("drain node: %w", err)
	}
	reason = job.Printable(reason, maxReason)
	if reason == "" {
		return fmt.Errorf("drain node %s: no reason", node)
	}
	_, ok, err := r.try(ctx, DutyNodeState, node, nodeUpdate{State: []string{"DRAIN"}, Reason: reason})
	if !ok {
		return r.cli.Drain(ctx, node, reason)
	}
	return told("drain node "+node, err)
}

// Resume puts the node back into service and clears the reason.
func (r *REST) Resume(ctx context.Context, node string) error {
	if err := job.CheckNodeName(node); err != nil {
		return fmt.Errorf("resume node: %w", err)
	}
	_, ok, err := r.try(ctx, DutyNodeState, node, nodeUpdate{State: []string{"RESUME"}})
	if !ok {
		return r.cli.Resume(ctx, node)
	}
	return told("resume node "+node, err)
}

// Requeue puts a running or finished batch job back into the queue. It would also revive a job
// that its owner cancelled [tried]: ask first.
func (r *REST) Requeue(ctx context.Context, id uint32) error {
	ok, err := r.tryOf(ctx, DutyRequeue, id, map[string]any{"jobs": []string{decimal(id)}})
	if !ok {
		return r.cli.Requeue(ctx, id)
	}
	return told("requeue job "+decimal(id), err)
}

// Cancel ends the job. A job that is over already is no error, as scancel sees it.
func (r *REST) Cancel(ctx context.Context, id uint32) error {
	ok, err := r.tryOf(ctx, DutyCancel, id, nil)
	if !ok {
		return r.cli.Cancel(ctx, id)
	}
	if errors.Is(err, ErrFinished) {
		return nil
	}
	return told("cancel job "+decimal(id), err)
}

// Notify is the commands': slurmrestd has no call for it.
func (r *REST) Notify(ctx context.Context, id uint32, text string) error {
	return r.cli.Notify(ctx, id, text)
}

// SetAdminComment replaces the text of a job that has not ended; ErrFinished when it has.
func (r *REST) SetAdminComment(ctx context.Context, id uint32, text string) error {
	what := "set admin comment of job " + decimal(id)
	if err := checkText(text); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	ok, err := r.tryOf(ctx, DutyComment, id, map[string]string{"admin_comment": text})
	if !ok {
		return r.cli.SetAdminComment(ctx, id, text)
	}
	return told(what, err)
}

// SetStoredComment replaces the text in the accounting database, for the latest start of the
// job only. By REST every byte is kept; by command, ErrLossy says what would be spoilt.
func (r *REST) SetStoredComment(ctx context.Context, id uint32, text string) error {
	what := "set admin comment of job " + decimal(id) + " in accounting"
	if err := checkText(text); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	body := map[string]any{"comment": map[string]string{"administrator": text}}
	ok, err := r.tryOf(ctx, DutyStore, id, body)
	if !ok {
		return r.cli.SetStoredComment(ctx, id, text)
	}
	if errors.Is(err, errEmpty) {
		err = ErrNoJob
	}
	return told(what, err)
}

func told(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
