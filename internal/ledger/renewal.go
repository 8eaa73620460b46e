package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Renewal is one renewal of a node's evidence in one start: a short row for each there was.
type Renewal struct {
	Node   string
	Epoch  uint32
	Nonce  enclave.Nonce
	Digest enclave.Digest // SHA-256 of the report's signed body
	Good   bool           // it was affirmed
	At     time.Time
}

// AddRenewal stores a renewal's evidence. A job of days renews hundreds of times on each node:
// all leave a Renewal, but whole evidence (report, certificates, checks) is kept of the first
// and the latest that were affirmed, of the latest that could not be judged, which is asked for again
// every few seconds, and of every one that failed. A nonce stands once.
func (l *Ledger) AddRenewal(ctx context.Context, e Evidence, digest enclave.Digest, good bool) error {
	k := e.Key
	put, kept := l.evidenceRow(e)
	err := l.write(ctx, func(tx *sql.Tx) error {
		if err := put(ctx, tx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO renewals (cluster, job, restart, node, epoch, nonce, digest, good, at) VALUES (?,?,?,?,?,?,?,?,?)`,
			k.Cluster, k.Job, k.Restart, e.Node, e.Epoch, e.Nonce.String(), digest.String(), good, millis(e.At))
		if err == nil && e.Unjudged {
			_, err = tx.ExecContext(ctx, "DELETE FROM evidence WHERE cluster=? AND job=? AND restart=? AND node=? AND purpose=? AND unjudged AND nonce<>?",
				k.Cluster, k.Job, k.Restart, e.Node, e.Purpose, e.Nonce.String())
		}
		if err != nil || !good {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM evidence WHERE cluster=?1 AND job=?2 AND restart=?3 AND node=?4 AND purpose=?5 AND nonce<>?6
			AND nonce IN (SELECT nonce FROM renewals WHERE cluster=?1 AND job=?2 AND restart=?3 AND node=?4 AND good
				AND id > (SELECT min(id) FROM renewals WHERE cluster=?1 AND job=?2 AND restart=?3 AND node=?4 AND good))`,
			k.Cluster, k.Job, k.Restart, e.Node, e.Purpose, e.Nonce.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("store renewal of node %s: %w", e.Node, err)
	}
	kept()
	return nil
}

// Renewals lists all renewals of one start, in the order they came.
func (l *Ledger) Renewals(ctx context.Context, k enclave.JobKey) ([]Renewal, error) {
	return list(ctx, l, fmt.Sprintf("list renewals of %s", k), func(row scanner) (Renewal, error) {
		var r Renewal
		var nonce, digest string
		var at int64
		bad := row.Scan(&r.Node, &r.Epoch, &nonce, &digest, &r.Good, &at)
		bad = errors.Join(bad, r.Nonce.UnmarshalText([]byte(nonce)), r.Digest.UnmarshalText([]byte(digest)))
		r.At = time.UnixMilli(at).UTC()
		return r, bad
	}, `SELECT node, epoch, nonce, digest, good, at FROM renewals
		WHERE cluster=? AND job=? AND restart=? ORDER BY id`, k.Cluster, k.Job, k.Restart)
}

// RenewalSum is how often a node was affirmed again, and when last.
type RenewalSum struct {
	Times int
	Last  time.Time
}

// RenewalSums counts the renewals of one start that were affirmed, by node.
func (l *Ledger) RenewalSums(ctx context.Context, k enclave.JobKey) (map[string]RenewalSum, error) {
	rows, err := l.db.QueryContext(ctx, `SELECT node, count(*), max(at) FROM renewals
		WHERE cluster=? AND job=? AND restart=? AND good GROUP BY node`, k.Cluster, k.Job, k.Restart)
	if err != nil {
		return nil, fmt.Errorf("count renewals of %s: %w", k, err)
	}
	out := map[string]RenewalSum{}
	err = each(rows, func() error {
		var node string
		var sum RenewalSum
		var at int64
		bad := rows.Scan(&node, &sum.Times, &at)
		sum.Last = time.UnixMilli(at).UTC()
		out[node] = sum
		return bad
	})
	if err != nil {
		return nil, fmt.Errorf("count renewals of %s: %w", k, err)
	}
	return out, nil
}
