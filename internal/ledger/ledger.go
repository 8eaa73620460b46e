// Package ledger keeps what the verifier must not forget: jobs, evidence, verdicts, enrolments,
// drains, alarms and the site role's errands, in one SQLite file.
//
// It decides nothing and calls nobody. Every write is in one transaction, which writes of the same
// moment share; what a method returned without error is on the disk (WAL, synchronous=FULL). One connection serves all callers in
// turn, so a reader never sees half a decision.
package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	_ "modernc.org/sqlite" // the driver registers itself; nothing else of it is used
)

// ErrNotFound is returned when there is no such row.
var ErrNotFound = errors.New("not in the ledger")

// ErrConflict is returned when a row with the same key and another content is there.
var ErrConflict = errors.New("the ledger says otherwise")

// checkpointPages is how long the write-ahead log grows before its pages go into the file: 32 MiB. With
// SQLite's 1,000 the evidence of a large job would be written twice while its nodes wait.
const checkpointPages = 8192

// Ledger is an open ledger. It is safe for concurrent use.
type Ledger struct {
	db       *sql.DB
	group    *group
	enrolled *inForce
	prepared map[string]*sql.Stmt // of what is written for every node of a job; never written after Open
	stored   *stored
}

// Open opens or makes the ledger and brings its schema up to date.
func Open(ctx context.Context, path string) (*Ledger, error) {
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{
		"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages), "foreign_keys(ON)", "busy_timeout(5000)", "trusted_schema(OFF)"},
		"_txlock": {"immediate"},
	}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open ledger %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	l := &Ledger{db: db, group: newGroup(), enrolled: newInForce(), prepared: map[string]*sql.Stmt{}, stored: newStored()}
	err = l.migrate(ctx)
	for _, query := range []string{insertEvidence, insertDocument} {
		if err == nil {
			l.prepared[query], err = db.PrepareContext(ctx, query)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger %s: %w", path, err), db.Close())
	}
	return l, nil
}

// Close ends the use of the ledger, when what is being written is on the disk.
func (l *Ledger) Close() error {
	l.group.turn <- struct{}{}
	defer func() { <-l.group.turn }()
	return l.db.Close()
}

// migrate runs the steps that user_version has not counted yet, each in its own transaction.
func (l *Ledger) migrate(ctx context.Context) error {
	var have int
	if err := l.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return fmt.Errorf("read version: %w", err)
	}
	steps := migrations()
	if have > len(steps) {
		return fmt.Errorf("version %d is of a newer release, this one knows %d", have, len(steps))
	}
	for i := have; i < len(steps); i++ {
		err := l.write(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, steps[i]); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", i+1))
			return err
		})
		if err != nil {
			return fmt.Errorf("migrate to version %d: %w", i+1, err)
		}
	}
	return nil
}

// put executes a statement that Open has prepared, in a transaction.
func (l *Ledger) put(ctx context.Context, tx *sql.Tx, query string, args ...any) error {
	_, err := tx.StmtContext(ctx, l.prepared[query]).ExecContext(ctx, args...)
	return err
}

// exec is a write of one statement.
func (l *Ledger) exec(ctx context.Context, what, query string, args ...any) error {
	err := l.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// text is v as JSON; the values written here have no cycle, channel or secret.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "null"
	}
	return string(b)
}

// column reads a JSON column into v, NULL leaving it alone.
func column(s sql.NullString, v any) error {
	if !s.Valid {
		return nil
	}
	return json.Unmarshal([]byte(s.String), v)
}

func millis(t time.Time) int64 { return t.UnixMilli() }

func instant(n sql.NullInt64) *time.Time {
	if !n.Valid {
		return nil
	}
	t := time.UnixMilli(n.Int64).UTC()
	return &t
}

// list is all rows of a query, each as scan reads it; what begins its errors. The query is one of our own
// constants: what others say goes into args.
func list[T any](ctx context.Context, l *Ledger, what string, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := l.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	out := []T{}
	err = each(rows, func() error {
		one, bad := scan(rows)
		out = append(out, one)
		return bad
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return out, nil
}

// each calls f for every row and closes the rows.
func each(rows *sql.Rows, f func() error) error {
	defer func() { _ = rows.Close() }() // the error that matters is Err's
	for rows.Next() {
		if err := f(); err != nil {
			return err
		}
	}
	return rows.Err()
}
