package ledger

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
)

// mostTogether bounds how many writes share a transaction, and so how long a reader waits.
const mostTogether = 256

// group lets writes that come at the same time share one transaction, for the wait for the disk
// is most of what a small one costs: the nodes of a large job post within the same second. Each
// still returns only when it is on the disk.
type group struct {
	mu      sync.Mutex
	waiting []*pendingWrite
	turn    chan struct{} // holds one token while somebody writes
}

func newGroup() *group { return &group{turn: make(chan struct{}, 1)} }

type pendingWrite struct {
	do   func(*sql.Tx) error
	done chan error
}

// write runs f in a transaction: all of it is on the disk, or nothing. f may run again,
// in another transaction, when the one that it shared has failed; it must touch nothing but
// the transaction, and variables that it sets anew.
func (l *Ledger) write(ctx context.Context, f func(*sql.Tx) error) error {
	g, w := l.group, &pendingWrite{do: f, done: make(chan error, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	g.mu.Unlock()
	gaveUp := ctx.Done()
	for {
		select {
		case err := <-w.done:
			return err
		case <-gaveUp:
			if g.remove(w) {
				return ctx.Err()
			}
			gaveUp = nil // it is being written: f's variables are in use until that is over
		case g.turn <- struct{}{}:
			go l.lead(context.WithoutCancel(ctx)) // on a stack that is gone afterwards: SQLite's is deep
		}
	}
}

func (g *group) remove(w *pendingWrite) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, w)
	if i < 0 {
		return false
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	return true
}

func (g *group) take() []*pendingWrite {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), mostTogether)
	out := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	return out
}

// lead writes what waits, for everybody. One caller's end of patience is not the others'. That a
// write fails is rare: only then are they told apart, by savepoints.
func (l *Ledger) lead(ctx context.Context) {
	defer func() { <-l.group.turn }()
	list := l.group.take()
	if len(list) > 1 && l.alone(ctx, all(list)) == nil {
		for _, w := range list {
			w.done <- nil
		}
		return
	}
	if len(list) > 1 {
		errs, err := l.together(ctx, list)
		if err == nil {
			for i, w := range list {
				w.done <- errs[i]
			}
			return
		}
	}
	for _, w := range list {
		w.done <- l.alone(ctx, w.do)
	}
}

// all is every write after the other, up to the first that fails.
func all(list []*pendingWrite) func(*sql.Tx) error {
	return func(tx *sql.Tx) error {
		for _, w := range list {
			if err := w.do(tx); err != nil {
				return err
			}
		}
		return nil
	}
}

// together gives each write's own error, and an error when nothing of any was written.
func (l *Ledger) together(ctx context.Context, list []*pendingWrite) ([]error, error) {
	errs := make([]error, len(list))
	err := l.alone(ctx, func(tx *sql.Tx) error {
		for i, w := range list {
			if _, err := tx.ExecContext(ctx, "SAVEPOINT one"); err != nil {
				return err
			}
			if errs[i] = w.do(tx); errs[i] != nil {
				if _, err := tx.ExecContext(ctx, "ROLLBACK TO one"); err != nil {
					return err
				}
			}
			if _, err := tx.ExecContext(ctx, "RELEASE one"); err != nil {
				return err
			}
		}
		return nil
	})
	return errs, err
}

// alone runs f in a transaction of its own.
func (l *Ledger) alone(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
