package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Plan is what was settled when a job was registered; it never changes afterwards.
type Plan struct {
	Job    enclave.Job    `json:"job"`
	Tenant enclave.Tenant `json:"tenant"`
	Policy enclave.Digest `json:"policy"` // digest of the appraisal policy in force
}

// Entry is one start of one job.
type Entry struct {
	Plan
	Registered time.Time
	Started    *time.Time // GO
	Ended      *time.Time
	Verdict    enclave.Verdict
	Weak       bool
	Refusal    *enclave.Refusal
	Header     []byte // signed roster
	Signature  []byte
}

const entryColumns = "body, registered, started, ended, verdict, weak, refusal, header, signature"

// Register writes a job's plan. The same plan again is no error; another plan under the same key is ErrConflict.
func (l *Ledger) Register(ctx context.Context, p Plan, at time.Time) error {
	k, body := p.Job.JobKey, text(p)
	err := l.write(ctx, func(tx *sql.Tx) error {
		var old string
		err := tx.QueryRowContext(ctx, "SELECT body FROM jobs WHERE cluster=? AND job=? AND restart=?", k.Cluster, k.Job, k.Restart).Scan(&old)
		switch {
		case err == nil && old != body:
			return ErrConflict
		case err == nil || !errors.Is(err, sql.ErrNoRows):
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO jobs (cluster, job, restart, uid, account, body, registered, verdict) VALUES (?,?,?,?,?,?,?,?)",
			k.Cluster, k.Job, k.Restart, p.Job.UID, p.Job.Account, body, millis(at), enclave.VerdictIncomplete)
		return err
	})
	if err != nil {
		return fmt.Errorf("register job %s: %w", k, err)
	}
	return nil
}

// Verdict is what was decided of a job's start.
type Verdict struct {
	Verdict   enclave.Verdict
	Weak      bool
	Refusal   *enclave.Refusal
	Header    []byte
	Signature []byte
	Started   *time.Time
	Members   []Member
}

// Member is one node's part in a verdict.
type Member struct {
	Node    string
	Keys    *enclave.NodeKeys
	Result  *enclave.AttestationResult
	Nonce   *enclave.Nonce // when written: of stored evidence, whose keys and result these are. They are not written again, but read from there
	Refusal *enclave.Refusal
}

// Decide writes a verdict with all its members at once.
func (l *Ledger) Decide(ctx context.Context, k enclave.JobKey, v Verdict, at time.Time) error {
	var started any
	if v.Started != nil {
		started = millis(*v.Started)
	}
	err := l.write(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `UPDATE jobs SET verdict=?, weak=?, refusal=?, header=coalesce(?, header),
			signature=coalesce(?, signature), started=coalesce(?, started) WHERE cluster=? AND job=? AND restart=?`,
			v.Verdict, v.Weak, optional(v.Refusal), v.Header, v.Signature, started, k.Cluster, k.Job, k.Restart)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, ErrNotFound)
		}
		return putMembers(ctx, tx, k, v.Members, at)
	})
	if err != nil {
		return fmt.Errorf("decide job %s: %w", k, err)
	}
	return nil
}

func putMembers(ctx context.Context, tx *sql.Tx, k enclave.JobKey, list []Member, at time.Time) error {
	if len(list) == 0 {
		return nil
	}
	put, err := tx.PrepareContext(ctx, `INSERT INTO members (cluster, job, restart, node, keys, result, nonce, affirmed, refusal, at) VALUES (?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT DO UPDATE SET keys=coalesce(excluded.keys, keys), result=coalesce(excluded.result, result), nonce=coalesce(excluded.nonce, nonce),
		affirmed=coalesce(excluded.affirmed, affirmed), refusal=coalesce(excluded.refusal, refusal), at=excluded.at`)
	if err != nil {
		return err
	}
	for _, m := range list {
		var nonce, affirmed any
		if m.Result != nil {
			affirmed = m.Result.Status == enclave.StatusAffirming
		}
		if m.Nonce != nil {
			nonce, m.Keys, m.Result = m.Nonce.String(), nil, nil
		}
		_, err = put.ExecContext(ctx, k.Cluster, k.Job, k.Restart, m.Node, optional(m.Keys), optional(m.Result), nonce, affirmed, optional(m.Refusal), millis(at))
		if err != nil {
			break
		}
	}
	return errors.Join(err, put.Close())
}

// optional is JSON, or NULL for a nil pointer.
func optional[T any](v *T) any {
	if v == nil {
		return nil
	}
	return text(v)
}

// End notes that a start is over.
func (l *Ledger) End(ctx context.Context, k enclave.JobKey, at time.Time) error {
	return l.exec(ctx, "end job "+k.String(), "UPDATE jobs SET ended=coalesce(ended, ?) WHERE cluster=? AND job=? AND restart=?",
		millis(at), k.Cluster, k.Job, k.Restart)
}

// Entry finds one start of a job.
func (l *Ledger) Entry(ctx context.Context, k enclave.JobKey) (Entry, error) {
	row := l.db.QueryRowContext(ctx, "SELECT "+entryColumns+" FROM jobs WHERE cluster=? AND job=? AND restart=?", k.Cluster, k.Job, k.Restart)
	e, err := scanEntry(row)
	if err != nil {
		return Entry{}, fmt.Errorf("find job %s: %w", k, err)
	}
	return e, nil
}

// Latest finds the start of a job that was registered last. That is not always the one with the highest
// restart count: Slurm's job numbers come again. Nor does it go by the clock, which may be set back.
func (l *Ledger) Latest(ctx context.Context, cluster string, job uint32) (Entry, error) {
	row := l.db.QueryRowContext(ctx, "SELECT "+entryColumns+" FROM jobs WHERE cluster=? AND job=? ORDER BY rowid DESC LIMIT 1", cluster, job)
	e, err := scanEntry(row)
	if err != nil {
		return Entry{}, fmt.Errorf("find job %s/%d: %w", cluster, job, err)
	}
	return e, nil
}

// Entries lists starts, latest first.
func (l *Ledger) Entries(ctx context.Context, who Scope, limit int) ([]Entry, error) {
	accounts := text(append([]string{}, who.Accounts...))
	return l.entries(ctx, "list jobs", `WHERE ?1 OR uid=?2 OR account IN (SELECT value FROM json_each(?3))
		ORDER BY registered DESC, job DESC, restart DESC LIMIT ?4`, who.All, who.UID, accounts, limit)
}

func (l *Ledger) entries(ctx context.Context, what, where string, args ...any) ([]Entry, error) {
	return list(ctx, l, what, scanEntry, "SELECT "+entryColumns+" FROM jobs "+where, args...)
}

// Refusals counts the starts of a job that were refused for one of these faults. Those of an earlier job
// with its number are not among them: another user's, or before a start whose restart count is lower.
func (l *Ledger) Refusals(ctx context.Context, cluster string, job uint32, faults ...enclave.Fault) (int, error) {
	n := 0
	for _, f := range faults {
		var one int
		err := l.db.QueryRowContext(ctx, refusalsQuery, cluster, job, f).Scan(&one)
		if err != nil {
			return 0, fmt.Errorf("count refusals of job %d: %w", job, err)
		}
		n += one
	}
	return n, nil
}

const refusalsQuery = `SELECT count(*) FROM jobs AS j WHERE cluster=?1 AND job=?2 AND refusal ->> 'fault' = ?3
	AND NOT EXISTS (SELECT 1 FROM jobs WHERE cluster=?1 AND job=?2 AND rowid > j.rowid AND (restart < j.restart OR uid <> j.uid))`

type scanner interface{ Scan(dest ...any) error }

func scanEntry(row scanner) (Entry, error) {
	var (
		e              Entry
		body, refusal  sql.NullString
		registered     int64
		started, ended sql.NullInt64
	)
	err := row.Scan(&body, &registered, &started, &ended, &e.Verdict, &e.Weak, &refusal, &e.Header, &e.Signature)
	if errors.Is(err, sql.ErrNoRows) {
		return Entry{}, ErrNotFound
	}
	if err = errors.Join(err, column(body, &e.Plan), column(refusal, &e.Refusal)); err != nil {
		return Entry{}, err
	}
	e.Registered, e.Started, e.Ended = time.UnixMilli(registered).UTC(), instant(started), instant(ended)
	return e, nil
}
