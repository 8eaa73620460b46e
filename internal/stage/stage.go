// Package stage runs the steps of bringing an enclave up and down: up in order, down reversed.
//
// It knows no step by name, keeps no journal and decides nothing about faults; it makes sure
// that what went up comes down, also when the time for going up is over. Prolog, epilog and
// keeper call it with the same list.
package stage

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-multierror"
)

// The time that taking down has. It is counted anew when a stage fails on the way up, because
// the deadline that made it fail may be the one of the context. A stage that hangs must not
// starve the stages after it, so each has at least DownShare, whatever is left of DownLimit.
const (
	DownLimit = 30 * time.Second
	DownShare = 5 * time.Second
)

// Stage is one step. Up may be called again after it has succeeded; Down must succeed when Up
// never ran, half ran or was undone already. A nil function is a step with nothing to do.
type Stage struct {
	Name string
	Up   func(context.Context) error
	Down func(context.Context) error
}

// The two directions that a Timing reports.
const (
	PhaseUp   = "up"
	PhaseDown = "down"
)

// Timing says how long one direction of one stage took, and how it ended.
type Timing struct {
	Stage string
	Phase string
	Took  time.Duration
	Err   error
}

// Observer is told of every stage that ran. It may be nil.
type Observer func(Timing)

// Up runs the stages in order. When one fails, it and those before it are taken down in reverse
// order, for the failed one may have run in part. The error begins with the cause; what went
// wrong while taking down is appended.
func Up(ctx context.Context, stages []Stage, observe Observer) error {
	for i, s := range stages {
		err := ctx.Err()
		if err == nil {
			err = run(ctx, s.Name, PhaseUp, s.Up, observe)
		}
		if err == nil {
			continue
		}
		err = fmt.Errorf("%s: up: %w", s.Name, err)
		if undo := Down(context.WithoutCancel(ctx), stages[:i+1], observe); undo != nil {
			return multierror.Append(err, undo)
		}
		return err
	}
	return nil
}

// Down takes all stages down in reverse order. A failure stops none of the others.
func Down(ctx context.Context, stages []Stage, observe Observer) error {
	end := time.Now().Add(DownLimit)
	var errs *multierror.Error
	for _, s := range slices.Backward(stages) {
		share, cancel := context.WithTimeout(ctx, max(time.Until(end), DownShare))
		if err := run(share, s.Name, PhaseDown, s.Down, observe); err != nil {
			errs = multierror.Append(errs, fmt.Errorf("%s: down: %w", s.Name, err))
		}
		cancel()
	}
	return errs.ErrorOrNil()
}

func run(ctx context.Context, name, phase string, f func(context.Context) error, observe Observer) error {
	if f == nil {
		return nil
	}
	start := time.Now()
	err := f(ctx)
	if observe != nil {
		observe(Timing{Stage: name, Phase: phase, Took: time.Since(start), Err: err})
	}
	return err
}
