package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// Spool keeps what Slurm is still to be told, over restarts of enclaved. The ledger is one.
type Spool interface {
	AddErrand(ctx context.Context, kind string, body []byte, due time.Time) (int64, error)
	Errands(ctx context.Context, now, latest time.Time, limit int) ([]ledger.Errand, error)
	Postpone(ctx context.Context, id int64, due time.Time, cause string) error
	Done(ctx context.Context, id int64) error
}

// Kinds of errands.
const (
	kindDrain   = "drain"
	kindResume  = "resume"
	kindEcho    = "echo"
	kindRequeue = "requeue"
	kindEnd     = "end"
	kindVerdict = "verdict"
)

// An errand is tried again after 5, 10, 20 ... seconds, at most 10 minutes, 60 times: Slurm
// may be away for a working day.
const (
	firstPause  = 5 * time.Second
	longPause   = 10 * time.Minute
	maxAttempts = 60
	batch       = 64
)

// errand is the body of every kind.
type errand struct {
	Node       string      `json:"node,omitempty"`
	Drained    time.Time   `json:"drained,omitzero"` // when the node was, which is to be resumed
	Looks      int         `json:"looks,omitempty"`  // that are left
	Reason     string      `json:"reason,omitempty"`
	Job        uint32      `json:"job,omitempty"`
	Restart    uint32      `json:"restart,omitempty"`
	Accounting *Accounting `json:"accounting,omitempty"`
}

// try writes the errand down, does it, and takes it off again. A nil error means that it is
// done and read back. A failure leaves it on the spool and is told as E524; a refusal is an
// answer, not a failure. Where it can't be written down (the disk is full) it is done all the same, if it
// can be at once: a broken node is drained, and a lost job ended, whatever the disk.
func (s *Site) try(ctx context.Context, kind string, e errand) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("spool %s: %w", kind, err)
	}
	id, unkept := s.spool.AddErrand(ctx, kind, body, s.now().Add(firstPause))
	err = s.do(ctx, kind, e)
	if unkept != nil {
		if _, refused := enclave.AsRefusal(err); err == nil || refused {
			return err
		}
		return errors.Join(fmt.Errorf("%s: %w", CodeSlurm, err), fmt.Errorf("spool %s: %w", kind, unkept))
	}
	if _, refused := enclave.AsRefusal(err); err == nil || refused {
		if doneErr := s.spool.Done(ctx, id); doneErr != nil {
			return errors.Join(err, doneErr)
		}
		return err
	}
	return fmt.Errorf("%s, kept on the spool: %w", CodeSlurm, err)
}

func (s *Site) do(ctx context.Context, kind string, e errand) error {
	switch kind {
	case kindDrain:
		return s.drain(ctx, e)
	case kindResume:
		return s.resume(ctx, e)
	case kindEcho:
		return s.echo(ctx, e)
	case kindRequeue:
		return s.requeue(ctx, e)
	case kindEnd:
		return s.end(ctx, e)
	case kindVerdict:
		return s.record(ctx, e)
	}
	return enclave.Refuse(CodeSlurm, enclave.FaultService, "errand of unknown kind %q was dropped", kind)
}

// Work does the errands that are due. Its error tells of all that were not done and of those
// that were given up (E523, E524 refusals); the caller logs it and calls again.
func (s *Site) Work(ctx context.Context) error {
	now := s.now()
	due, err := s.spool.Errands(ctx, now, now.Add(longPause), batch)
	if err != nil {
		return err
	}
	var errs *multierror.Error
	for _, d := range due {
		if err := s.work(ctx, d); err != nil {
			errs = multierror.Append(errs, fmt.Errorf("errand %d, %s: %w", d.ID, d.Kind, err))
		}
	}
	return errs.ErrorOrNil()
}

func (s *Site) work(ctx context.Context, d ledger.Errand) error {
	var e errand
	if err := json.Unmarshal(d.Body, &e); err != nil {
		return errors.Join(fmt.Errorf("read body: %w", err), s.spool.Done(ctx, d.ID))
	}
	err := s.do(ctx, d.Kind, e)
	_, refused := enclave.AsRefusal(err)
	switch {
	case err == nil || refused:
		return errors.Join(err, s.spool.Done(ctx, d.ID))
	case d.Attempts+1 >= maxAttempts || errors.Is(err, slurm.ErrNoNode):
		gone := enclave.Refuse(CodeSlurm, enclave.FaultService, "given up after %d attempts: %v", d.Attempts+1, err)
		return errors.Join(gone, s.spool.Done(ctx, d.ID))
	}
	return errors.Join(err, s.spool.Postpone(ctx, d.ID, s.now().Add(pause(d.Attempts)), err.Error()))
}

func pause(attempts int) time.Duration {
	return min(firstPause<<min(attempts+1, 10), longPause)
}
