package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Share is what one start of a job had of its enclave, in sums.
type Share struct {
	Entry
	Affirmed     int    // nodes whose evidence was affirmed
	TunnelBytes  uint64 // over all nodes that have told how they were taken down
	OutsideBytes uint64
	Receipt      *enclave.Digest
}

// Cursor is a place in the order of registration: the next page begins behind it.
type Cursor struct {
	At      time.Time
	Job     uint32
	Restart uint32
}

// Scope is whose jobs are listed: all of them, or those of one user and of some accounts.
type Scope struct {
	All      bool
	UID      uint32
	Accounts []string
}

// Shares lists starts of a cluster behind a cursor, in the order of registration. A sum that would not fit
// is cut: nodes say what they have counted, and one that says nonsense spoils its own job's line only.
func (l *Ledger) Shares(ctx context.Context, cluster string, who Scope, after Cursor, limit int) ([]Share, error) {
	accounts := text(append([]string{}, who.Accounts...))
	return list(ctx, l, "list shares", scanShare, `WITH page AS (
		SELECT * FROM jobs WHERE cluster=?1 AND (registered, job, restart) > (?2, ?3, ?4)
		  AND (?5 OR uid=?6 OR account IN (SELECT value FROM json_each(?7)))
		ORDER BY registered, job, restart LIMIT ?8)
		SELECT `+entryColumns+`,
		  (SELECT count(*) FROM members m WHERE m.cluster=page.cluster AND m.job=page.job AND m.restart=page.restart
		    AND coalesce(m.affirmed, m.result ->> 'result' = 'affirming')),
		  (SELECT CAST(min(total(m.teardown -> 'network' ->> 'tunnel_bytes'), 9e18) AS INTEGER) FROM members m WHERE m.cluster=page.cluster AND m.job=page.job AND m.restart=page.restart),
		  (SELECT CAST(min(total(m.teardown -> 'network' ->> 'outside_bytes'), 9e18) AS INTEGER) FROM members m WHERE m.cluster=page.cluster AND m.job=page.job AND m.restart=page.restart),
		  (SELECT digest FROM receipts r WHERE r.cluster=page.cluster AND r.job=page.job AND r.restart=page.restart)
		FROM page ORDER BY registered, job, restart`,
		cluster, millis(after.At), after.Job, after.Restart, who.All, who.UID, accounts, limit)
}

// wider scans the columns of an entry and some more.
type wider struct {
	row  scanner
	more []any
}

func (w wider) Scan(dest ...any) error { return w.row.Scan(append(dest, w.more...)...) }

func scanShare(row scanner) (Share, error) {
	var s Share
	var receipt sql.NullString
	e, err := scanEntry(wider{row, []any{&s.Affirmed, &s.TunnelBytes, &s.OutsideBytes, &receipt}})
	if err != nil {
		return Share{}, err
	}
	s.Entry = e
	if receipt.Valid {
		var d enclave.Digest
		if err = d.UnmarshalText([]byte(receipt.String)); err != nil {
			return Share{}, errors.Join(fmt.Errorf("receipt of job %s", e.Job.JobKey), err)
		}
		s.Receipt = &d
	}
	return s, nil
}
