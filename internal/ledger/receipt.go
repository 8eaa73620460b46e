package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Receipt is one link of a cluster's chain of receipts.
type Receipt struct {
	Key      enclave.JobKey
	Sequence uint64 // from 1
	Digest   enclave.Digest
	Previous enclave.Digest // of the receipt before, zero for the first
	Envelope []byte         // the receipt's file; nil in a Head
	At       time.Time
}

// Sealed is what the maker of a receipt gives for a place in the chain.
type Sealed struct {
	Digest   enclave.Digest
	Envelope []byte
}

// Seal appends the receipt of a start to its cluster's chain. seal is called with the place it
// gets, inside the transaction, so that no two receipts name the same one before them. A start that
// has a receipt keeps it, and seal is not called.
func (l *Ledger) Seal(ctx context.Context, k enclave.JobKey, at time.Time, seal func(sequence uint64, previous enclave.Digest) (Sealed, error)) (Receipt, error) {
	out := Receipt{Key: k, At: at.Truncate(time.Millisecond).UTC()}
	err := l.write(ctx, func(tx *sql.Tx) error {
		old, err := receiptRow(tx.QueryRowContext(ctx, "SELECT "+receiptColumns+" FROM receipts WHERE cluster=? AND job=? AND restart=?", k.Cluster, k.Job, k.Restart))
		if err == nil || !errors.Is(err, ErrNotFound) {
			out = old
			return err
		}
		head, err := receiptRow(tx.QueryRowContext(ctx, headQuery, k.Cluster))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		out.Sequence, out.Previous = head.Sequence+1, head.Digest
		sealed, err := seal(out.Sequence, out.Previous)
		if err != nil {
			return err
		}
		out.Digest, out.Envelope = sealed.Digest, sealed.Envelope
		return putReceipt(ctx, tx, out)
	})
	if err != nil {
		return Receipt{}, fmt.Errorf("seal job %s: %w", k, err)
	}
	return out, nil
}

func putReceipt(ctx context.Context, tx *sql.Tx, r Receipt) error {
	k := r.Key
	_, err := tx.ExecContext(ctx, "INSERT INTO receipts (cluster, seq, job, restart, digest, previous, envelope, at) VALUES (?,?,?,?,?,?,?,?)",
		k.Cluster, r.Sequence, k.Job, k.Restart, r.Digest.String(), r.Previous.String(), r.Envelope, millis(r.At))
	if err != nil {
		return err
	}
	done, err := tx.ExecContext(ctx, "UPDATE jobs SET sealed=? WHERE cluster=? AND job=? AND restart=? AND sealed IS NULL", millis(r.At), k.Cluster, k.Job, k.Restart)
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n != 1 { // its receipt was taken away by force
		return errors.Join(err, ErrConflict)
	}
	return nil
}

const (
	receiptColumns = "cluster, job, restart, seq, digest, previous, envelope, at"
	headQuery      = "SELECT cluster, job, restart, seq, digest, previous, NULL, at FROM receipts WHERE cluster=? ORDER BY seq DESC LIMIT 1"
)

func receiptRow(row scanner) (Receipt, error) {
	var r Receipt
	var digest, previous string
	var at int64
	err := row.Scan(&r.Key.Cluster, &r.Key.Job, &r.Key.Restart, &r.Sequence, &digest, &previous, &r.Envelope, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return Receipt{}, ErrNotFound
	}
	r.At = time.UnixMilli(at).UTC()
	return r, errors.Join(err, r.Digest.UnmarshalText([]byte(digest)), r.Previous.UnmarshalText([]byte(previous)))
}

// ReceiptOf finds the receipt of a start.
func (l *Ledger) ReceiptOf(ctx context.Context, k enclave.JobKey) (Receipt, error) {
	r, err := receiptRow(l.db.QueryRowContext(ctx, "SELECT "+receiptColumns+" FROM receipts WHERE cluster=? AND job=? AND restart=?", k.Cluster, k.Job, k.Restart))
	if err != nil {
		return Receipt{}, fmt.Errorf("find receipt of %s: %w", k, err)
	}
	return r, nil
}

// Head is the last link of a cluster's chain, without its envelope.
func (l *Ledger) Head(ctx context.Context, cluster string) (Receipt, error) {
	r, err := receiptRow(l.db.QueryRowContext(ctx, headQuery, cluster))
	if err != nil {
		return Receipt{}, fmt.Errorf("find last receipt: %w", err)
	}
	return r, nil
}

// Receipts lists a chain from a sequence number on, as the rows say it: no more than limit links,
// and none that would take the list over size bytes, but for the first.
func (l *Ledger) Receipts(ctx context.Context, cluster string, from uint64, limit, size int) ([]Receipt, error) {
	rows, err := l.db.QueryContext(ctx, "SELECT "+receiptColumns+" FROM receipts WHERE cluster=? AND seq>=? ORDER BY seq LIMIT ?", cluster, int64(from), limit) // a number too great finds nothing
	if err != nil {
		return nil, fmt.Errorf("list receipts: %w", err)
	}
	out := []Receipt{}
	err = each(rows, func() error {
		r, bad := receiptRow(rows)
		if size -= len(r.Envelope); size >= 0 || len(out) == 0 {
			out = append(out, r)
			return bad
		}
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, fmt.Errorf("list receipts: %w", err)
	}
	return out, nil
}

var errEnough = errors.New("enough")

// Unsealed lists the starts that have no receipt and are over, oldest first.
func (l *Ledger) Unsealed(ctx context.Context, cluster string, limit int) ([]Entry, error) {
	return l.unsealed(ctx, "ended IS NOT NULL ORDER BY ended, job, restart", cluster, limit)
}

// Unended lists the starts of which nobody said that they are over, oldest first.
func (l *Ledger) Unended(ctx context.Context, cluster string, limit int) ([]Entry, error) {
	return l.unsealed(ctx, "ended IS NULL ORDER BY registered, job, restart", cluster, limit)
}

func (l *Ledger) unsealed(ctx context.Context, where, cluster string, limit int) ([]Entry, error) {
	return l.entries(ctx, "list jobs without receipt", "WHERE cluster=? AND sealed IS NULL AND "+where+" LIMIT ?", cluster, limit)
}
