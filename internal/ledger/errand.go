package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Errand is a call to Slurm that the site role still owes: it is kept until it was read back.
type Errand struct {
	ID       int64
	Kind     string
	Body     []byte
	Attempts int
	Due      time.Time
	Cause    string // why the last attempt did not do
}

// AddErrand puts an errand on the spool.
func (l *Ledger) AddErrand(ctx context.Context, kind string, body []byte, due time.Time) (int64, error) {
	var id int64
	if body == nil {
		body = []byte{}
	}
	err := l.write(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, "INSERT INTO errands (kind, body, due) VALUES (?,?,?)", kind, body, millis(due))
		if err != nil {
			return err
		}
		id, err = r.LastInsertId()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("spool %s: %w", kind, err)
	}
	return id, nil
}

// Errands lists what is due, oldest first. Nobody puts an errand off beyond latest: one that is due
// after that was written before the clock was put back, and is due, too.
func (l *Ledger) Errands(ctx context.Context, now, latest time.Time, limit int) ([]Errand, error) {
	return list(ctx, l, "list errands", func(row scanner) (Errand, error) {
		var e Errand
		var due int64
		bad := row.Scan(&e.ID, &e.Kind, &e.Body, &e.Attempts, &due, &e.Cause)
		e.Due = time.UnixMilli(due).UTC()
		return e, bad
	}, "SELECT id, kind, body, attempts, due, cause FROM errands WHERE due<=? OR due>? ORDER BY due, id LIMIT ?", millis(now), millis(latest), limit)
}

// Postpone notes a vain attempt and when to try again.
func (l *Ledger) Postpone(ctx context.Context, id int64, due time.Time, cause string) error {
	return l.exec(ctx, "postpone errand", "UPDATE errands SET attempts=attempts+1, due=?, cause=? WHERE id=?", millis(due), cause, id)
}

// Done takes an errand off the spool.
func (l *Ledger) Done(ctx context.Context, id int64) error {
	return l.exec(ctx, "finish errand", "DELETE FROM errands WHERE id=?", id)
}
