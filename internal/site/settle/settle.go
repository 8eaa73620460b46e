// Package settle decides what becomes of a job's start when it is over on all nodes: whether
// it goes back into the queue because it was never let in, by nobody's fault.
//
// EpilogSlurmctld uses it while enclaved is away: it needs the go file that enclaved left on the
// controller's disk, the epilog's environment and two commands of Slurm's. It never drains and
// never cancels. With enclaved there, enclaved knows more and decides itself.
package settle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// Queue is what of Slurm is needed.
type Queue interface {
	Job(ctx context.Context, id uint32) (slurm.Job, error)
	Requeue(ctx context.Context, id uint32) error
}

// Facts are all that the decision rests on.
type Facts struct {
	Went    bool     // GO was given: the job's own code decided its end
	Exit    job.Exit // the epilog's environment
	Batch   bool
	Requeue bool   // the user allows it
	Start   uint32 // the start that is over
	Latest  uint32 // the start that Slurm is at
	Most    uint32 // how often the site puts a job back
}

// Outcome is the decision and its reason in words.
type Outcome struct {
	Requeue bool
	Why     string
}

// Decide is pure. A start without GO fails at the gate with an exit code; one without an exit
// code was cancelled or timed out, and requeueing would revive what its owner has ended.
func Decide(f Facts) Outcome {
	code, exited := f.Exit.Code()
	switch {
	case f.Went:
		return Outcome{Why: "the job was let in"}
	case f.Latest != f.Start:
		return Outcome{Why: "it is back in the queue already"}
	case !exited || code == 0:
		return Outcome{Why: "it was ended from outside"}
	case !f.Batch:
		return Outcome{Why: "interactive jobs cannot be requeued"}
	case !f.Requeue:
		return Outcome{Why: "it was submitted with --no-requeue"}
	case f.Start >= f.Most:
		return Outcome{Why: fmt.Sprintf("%s: it was put back %d times", CodeRestarts, f.Start)}
	}
	return Outcome{Requeue: true, Why: "no rank was let in and nobody is at fault"}
}

// CodeRestarts is told when a job came back too often while enclaved was away.
const CodeRestarts enclave.Code = "E520"

// Settle gathers the facts, decides, and requeues. state is enclaved's directory
// (controller.state), most its controller.max_restarts.
func Settle(ctx context.Context, q Queue, state string, most uint32, k enclave.JobKey, exit job.Exit) (Outcome, error) {
	went, err := Went(state, k)
	if err != nil {
		return Outcome{}, fmt.Errorf("settle job %s: %w", k, err)
	}
	f := Facts{Went: went, Exit: exit, Start: k.Restart, Most: most}
	if went {
		return Decide(f), nil
	}
	j, err := q.Job(ctx, k.Job)
	if errors.Is(err, slurm.ErrNoJob) {
		return Outcome{Why: "slurm has forgotten it"}, nil
	}
	if err != nil {
		return Outcome{}, fmt.Errorf("settle job %s: %w", k, err)
	}
	f.Batch, f.Requeue, f.Latest = j.Batch, j.Requeue, j.Restarts
	o := Decide(f)
	if !o.Requeue {
		return o, nil
	}
	if err := q.Requeue(ctx, k.Job); err != nil {
		return Outcome{}, fmt.Errorf("settle job %s: %w", k, err)
	}
	return o, nil
}

// Went says whether enclaved wrote go/JOB.RESTART, which it does before any rank is let in. What
// cannot be looked up is an error, not a no.
func Went(state string, k enclave.JobKey) (bool, error) {
	_, err := os.Lstat(filepath.Join(state, "go", k.Directory()))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up go file: %w", err)
	}
	return true, nil
}
