package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Roster is one epoch of a start's signed roster, with the leaves that its root stands for.
type Roster struct {
	Key       enclave.JobKey
	Epoch     uint32 // 1 at barrier 1, one more with each node that left
	Header    []byte
	Signature []byte
	Peers     []enclave.Peer   // in the order of the leaves
	Gone      string           // the node that left with this epoch, "" in the first
	Refusal   *enclave.Refusal // why it left, nil in the first
	At        time.Time
}

// AddRoster stores an epoch. Another roster of the same epoch is an error: two signed lists of
// one epoch would let two halves of a job believe different ones.
func (l *Ledger) AddRoster(ctx context.Context, r Roster) error {
	return l.exec(ctx, "store roster of job "+r.Key.String(), `INSERT INTO rosters
		(cluster, job, restart, epoch, header, signature, peers, gone, refusal, at) VALUES (?,?,?,?,?,?,?,?,?,?)`,
		r.Key.Cluster, r.Key.Job, r.Key.Restart, r.Epoch, r.Header, r.Signature, text(r.Peers), r.Gone, optional(r.Refusal), millis(r.At))
}

// Rosters lists all epochs of one start, the first one first.
func (l *Ledger) Rosters(ctx context.Context, k enclave.JobKey) ([]Roster, error) {
	return list(ctx, l, fmt.Sprintf("list rosters of %s", k), func(row scanner) (Roster, error) {
		r := Roster{Key: k}
		var peers, refusal sql.NullString
		var at int64
		bad := row.Scan(&r.Epoch, &r.Header, &r.Signature, &peers, &r.Gone, &refusal, &at)
		bad = errors.Join(bad, column(peers, &r.Peers), column(refusal, &r.Refusal))
		r.At = time.UnixMilli(at).UTC()
		return r, bad
	}, `SELECT epoch, header, signature, peers, gone, refusal, at
		FROM rosters WHERE cluster=? AND job=? AND restart=? ORDER BY epoch`, k.Cluster, k.Job, k.Restart)
}

// Running lists the starts that were let in and are not over. One with a refusal lost it since,
// and Slurm may not have ended it yet.
func (l *Ledger) Running(ctx context.Context, cluster string) ([]Entry, error) {
	return l.entries(ctx, "list running jobs", "WHERE cluster=? AND started IS NOT NULL AND ended IS NULL ORDER BY job, restart", cluster)
}
