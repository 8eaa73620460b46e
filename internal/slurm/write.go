package slurm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/job"
)

// MaxText bounds an AdminComment and a reason. Slurm itself takes much more for the first.
const (
	MaxText   = 32 << 10
	maxReason = 400
)

// Drain drains the node. Slurm overwrites the reason of a drained node: ask Node first.
func (c *CLI) Drain(ctx context.Context, node, reason string) error {
	if err := job.CheckNodeName(node); err != nil {
		return fmt.Errorf("drain node: %w", err)
	}
	reason = job.Printable(reason, maxReason)
	if reason == "" {
		return fmt.Errorf("drain node %s: no reason", node)
	}
	return c.tell(ctx, "drain node "+node, "scontrol", "update", "NodeName="+node, "State=DRAIN", "Reason="+reason)
}

// Resume puts the node back into service and clears the reason.
func (c *CLI) Resume(ctx context.Context, node string) error {
	if err := job.CheckNodeName(node); err != nil {
		return fmt.Errorf("resume node: %w", err)
	}
	return c.tell(ctx, "resume node "+node, "scontrol", "update", "NodeName="+node, "State=RESUME")
}

// Requeue puts a running or finished batch job back into the queue. It would also revive a job
// that its owner cancelled [tried]: ask first.
func (c *CLI) Requeue(ctx context.Context, id uint32) error {
	return c.tellOf(ctx, "requeue job "+decimal(id), id, func(target string) []string {
		return []string{"scontrol", "requeue", target}
	})
}

// Cancel ends the job. A job that is over already is no error, as scancel sees it.
func (c *CLI) Cancel(ctx context.Context, id uint32) error {
	return c.tellOf(ctx, "cancel job "+decimal(id), id, func(target string) []string { return []string{"scancel", target} })
}

// Notify shows a line of text to whoever waits in srun or salloc for the job, or writes it to the
// output of its batch script. It means the one job that has the number, in an array, too. Slurm lets SlurmUser, root and the job's owner do it, no other
// administrator [tried].
func (c *CLI) Notify(ctx context.Context, id uint32, text string) error {
	return c.tell(ctx, "notify job "+decimal(id), "scontrol", "notify", decimal(id), job.Printable(text, maxReason))
}

// SetAdminComment replaces the text of a job that has not ended; ErrFinished when it has.
func (c *CLI) SetAdminComment(ctx context.Context, id uint32, text string) error {
	what := "set admin comment of job " + decimal(id)
	if err := checkText(text); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return c.tellOf(ctx, what, id, func(target string) []string {
		return []string{"scontrol", "update", "JobId=" + target, "AdminComment=" + text}
	})
}

// SetStoredComment replaces the text in the accounting database, for the latest start of the
// job only. sacctmgr 22.05 writes small letters for capitals and backticks for quotes [tried],
// so a text that would not come back as it is, is refused with ErrLossy.
func (c *CLI) SetStoredComment(ctx context.Context, id uint32, text string) error {
	what := "set admin comment of job " + decimal(id) + " in accounting"
	if err := checkText(text); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if Stored(text) != text {
		return fmt.Errorf("%s: %w", what, ErrLossy)
	}
	target, err := c.storedTarget(ctx, id)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	err = c.tell(ctx, what, "sacctmgr", "-i", "-Q", "modify", "job", "where", "jobid="+target, "set", "AdminComment="+text)
	if said, ok := errors.AsType[printed](err); ok && strings.Contains(said.Stderr(), "Data has not changed") {
		return fmt.Errorf("%w: %w", ErrNoJob, err) // as 26.05 says that there was nothing to change
	}
	return err
}

// Stored is what sacctmgr makes of a text.
func Stored(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"' || r == '\'':
			return '`'
		case r >= 'A' && r <= 'Z':
			return r + ('a' - 'A')
		}
		return r
	}, text)
}

func checkText(text string) error {
	if len(text) > MaxText {
		return fmt.Errorf("text over %d bytes", MaxText)
	}
	if strings.ContainsRune(text, 0) {
		return errors.New("text holds a zero byte")
	}
	return nil
}

// tellOf tells Slurm something of one job, and of no other element of its array.
func (c *CLI) tellOf(ctx context.Context, what string, id uint32, command func(target string) []string) error {
	target, err := c.target(ctx, id)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	argv := command(target)
	return c.tell(ctx, what, argv[0], argv[1:]...)
}

func (c *CLI) tell(ctx context.Context, what, program string, args ...string) error {
	if _, err := c.run.Run(ctx, program, args...); err != nil {
		return fmt.Errorf("%s: %w", what, classify(err))
	}
	return nil
}

// printed is a program that failed and said why.
type printed interface {
	error
	Stderr() string
}

// classify gives a name to the answers that callers branch on. Slurm has no other sign than
// its text; a text we do not know stays an error without a name, which nobody takes for a no.
func classify(err error) error {
	said, ok := errors.AsType[printed](err)
	if !ok {
		return err
	}
	for _, k := range []struct {
		text string
		err  error
	}{
		{"Invalid job id specified", ErrNoJob},
		{"Invalid node name specified", ErrNoNode},
		{"already finished", ErrFinished},
		{"Only batch jobs are accepted", ErrInteractive},
		{"Request didn't affect anything", ErrNoJob},
	} {
		if strings.Contains(said.Stderr(), k.text) {
			return fmt.Errorf("%w: %w", k.err, err)
		}
	}
	return err
}
