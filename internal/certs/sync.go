package certs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Getter asks the KDS, or a mirror, for one file.
type Getter interface {
	// Get gives the answer whatever its status; the error is that there was none.
	Get(ctx context.Context, query string) (Answer, error)
}

// Answer is what came back.
type Answer struct {
	Status     int
	RetryAfter time.Duration // 0 when it does not say
	Body       []byte
}

// Times of asking. AMD lets about one VCEK in ten seconds through to one address.
const (
	firstPause = 10 * time.Second
	maxPause   = 5 * time.Minute
	maxWait    = 30 * time.Minute // of a Retry-After; who asks for more is asked another day
	attempts   = 7
)

// Why a file did not come. Errors of Sync wrap one of them.
var (
	ErrMissing = errors.New("the key server does not have it")
	ErrWrong   = errors.New("what the key server gave is not it")
	ErrAway    = errors.New("the key server gives no answer")
)

// Event is a step of a sync, for people.
type Event struct {
	Step      Step
	Done, All int // tasks
	Task      Task
	Wait      time.Duration // of Waiting
	Err       error         // of Waiting and Failed
}

// Step is what just happened to a task.
type Step int

// Every task is Asking once and ends Stored or Failed.
const (
	Asking Step = iota
	Waiting
	Stored
	Failed
)

// Syncer fetches tasks one after the other.
type Syncer struct {
	Store    *Store
	Judge    Judge
	Getter   Getter        // nil: only what the hosts gave is stored
	Interval time.Duration // between two certificates
	Pause    func(ctx context.Context, d time.Duration) error
	Now      func() time.Time
	Tell     func(Event)
}

// Result counts what Sync did.
type Result struct {
	Fetched int     // from the key server
	Taken   int     // as the nodes' own hosts gave them
	Failed  []error // each names its task
}

// Sync does the tasks. A file that is not there, or not what it should be, is named and the next
// one tried; a server that gives no answer ends it, for it would give the others none. Every file
// is stored as it comes: whoever calls again asks for the rest only.
func (s *Syncer) Sync(ctx context.Context, tasks []Task) Result {
	var r Result
	asked := false
	for i, t := range tasks {
		e := Event{Done: i, All: len(tasks), Task: t}
		s.Tell(e)
		given, err := s.take(t)
		if !given && s.Getter != nil {
			err = s.fetch(ctx, e, asked)
			asked = true
		}
		e.Done, e.Step = i+1, Stored
		switch {
		case err != nil:
			err = fmt.Errorf("fetch %s: %w", t, err)
			r.Failed = append(r.Failed, err)
			e.Step, e.Err = Failed, err
		case given:
			r.Taken++
		default:
			r.Fetched++
		}
		s.Tell(e)
		if err != nil && !errors.Is(err, ErrMissing) && !errors.Is(err, ErrWrong) {
			break
		}
	}
	return r
}

// take stores what a node's host gave, if it is what it should be.
func (s *Syncer) take(t Task) (bool, error) {
	if t.Given == nil {
		return false, ErrAway
	}
	err := s.keep(t, t.Given)
	return err == nil, err
}

// fetch asks, after a pause where a certificate follows another question.
func (s *Syncer) fetch(ctx context.Context, e Event, asked bool) error {
	if asked && e.Task.Kind == Certificate {
		if err := s.Pause(ctx, s.Interval); err != nil {
			return err
		}
	}
	b, err := s.ask(ctx, e)
	if err != nil {
		return err
	}
	return s.keep(e.Task, b)
}

// ask asks again where asking again may help.
func (s *Syncer) ask(ctx context.Context, e Event) ([]byte, error) {
	pause := firstPause
	for n := 1; ; n++ {
		a, err := s.Getter.Get(ctx, e.Task.query)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil && a.Status == http.StatusOK {
			return a.Body, nil
		}
		if err == nil {
			if err = refused(a); errors.Is(err, ErrMissing) || errors.Is(err, ErrWrong) {
				return nil, err
			}
		} else {
			err = fmt.Errorf("%w: %w", ErrAway, err)
		}
		wait := max(pause, a.RetryAfter)
		if n == attempts || wait > maxWait {
			return nil, fmt.Errorf("%w (asked %d times)", err, n)
		}
		e.Step, e.Wait, e.Err = Waiting, wait, err
		s.Tell(e)
		if err := s.Pause(ctx, wait); err != nil {
			return nil, err
		}
		pause = min(2*pause, maxPause)
	}
}

// refused is what a status that is not 200 means.
func refused(a Answer) error {
	switch {
	case a.Status == http.StatusNotFound || a.Status == http.StatusGone:
		return fmt.Errorf("%w: status %d", ErrMissing, a.Status)
	case a.Status == http.StatusTooManyRequests && a.RetryAfter > 0:
		return fmt.Errorf("%w: status 429, too many requests, ask again in %s", ErrAway, a.RetryAfter)
	case a.Status == http.StatusTooManyRequests:
		return fmt.Errorf("%w: status 429, too many requests", ErrAway)
	case a.Status >= 500 || a.Status == http.StatusRequestTimeout:
		return fmt.Errorf("%w: status %d", ErrAway, a.Status)
	case a.Status >= 300 && a.Status < 400:
		return fmt.Errorf("%w: status %d, a redirect, which is not followed: configure the address itself", ErrWrong, a.Status)
	}
	return fmt.Errorf("%w: status %d", ErrWrong, a.Status)
}

// keep stores what is what was asked for, and nothing else.
func (s *Syncer) keep(t Task, b []byte) error {
	h, _ := weigh(t.Path, b, s.Judge)
	now := s.Now()
	switch {
	case h.Problem != nil:
		return fmt.Errorf("%w: %w", ErrWrong, h.Problem)
	case !h.Good(now) && now.Before(h.From):
		return fmt.Errorf("%w: it is not valid before %s", ErrWrong, h.From.UTC().Format(time.RFC3339))
	case !h.Good(now):
		return fmt.Errorf("%w: it ended at %s", ErrWrong, h.Until.UTC().Format(time.RFC3339))
	}
	return s.newer(t, h, b)
}

// newer keeps a mirror that was set back from taking a revocation away.
func (s *Syncer) newer(t Task, h Holding, b []byte) error {
	if t.Kind == List {
		if old, _, err := s.Store.Read(t.Path); err == nil {
			if o, _ := weigh(t.Path, old, s.Judge); o.Problem == nil && h.From.Before(o.From) {
				return fmt.Errorf("%w: the list there is newer, of %s", ErrWrong, o.From.UTC().Format(time.RFC3339))
			}
		}
	}
	return s.Store.Write(t.Path, b)
}
