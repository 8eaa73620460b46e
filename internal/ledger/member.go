package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// MemberEntry is one node's part in one start of a job.
type MemberEntry struct {
	Member
	Key      enclave.JobKey
	Ready    json.RawMessage // what the node reported at barrier 2, nil before
	Teardown json.RawMessage // what its epilog reported, nil before
	At       time.Time
}

// memberQuery is the start of a query for members, with the evidence that has their keys and results.
const memberQuery = `SELECT m.cluster, m.job, m.restart, m.node, coalesce(m.keys, e.keys), coalesce(m.result, e.result), m.refusal, m.ready, m.teardown, m.at
	FROM members m LEFT JOIN evidence e ON e.nonce = m.nonce `

// Ready stores the nodes' reports of barrier 2, in one transaction.
func (l *Ledger) Ready(ctx context.Context, k enclave.JobKey, reports map[string]any, at time.Time) error {
	err := l.write(ctx, func(tx *sql.Tx) error {
		put, err := tx.PrepareContext(ctx, setMemberQuery("ready"))
		if err != nil {
			return err
		}
		for node, r := range reports {
			if _, err = put.ExecContext(ctx, k.Cluster, k.Job, k.Restart, node, text(r), millis(at)); err != nil {
				break
			}
		}
		return errors.Join(err, put.Close())
	})
	if err != nil {
		return fmt.Errorf("store that the nodes of job %s are ready: %w", k, err)
	}
	return nil
}

// Teardown stores a node's report of its epilog; the last one counts.
func (l *Ledger) Teardown(ctx context.Context, k enclave.JobKey, node string, report any, at time.Time) error {
	return l.setMember(ctx, "teardown", k, node, report, at)
}

func (l *Ledger) setMember(ctx context.Context, name string, k enclave.JobKey, node string, report any, at time.Time) error {
	return l.exec(ctx, name+" of node "+node, setMemberQuery(name), k.Cluster, k.Job, k.Restart, node, text(report), millis(at))
}

// setMemberQuery is for one of two columns.
func setMemberQuery(name string) string {
	return fmt.Sprintf(`INSERT INTO members (cluster, job, restart, node, %s, at) VALUES (?,?,?,?,?,?)
		ON CONFLICT DO UPDATE SET %s=excluded.%s, at=excluded.at`, name, name, name)
}

// Member is one node's part in one start.
func (l *Ledger) Member(ctx context.Context, k enclave.JobKey, node string) (MemberEntry, error) {
	list, err := l.members(ctx, "WHERE m.cluster=? AND m.job=? AND m.restart=? AND m.node=?", k.Cluster, k.Job, k.Restart, node)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return MemberEntry{}, err
	}
	return list[0], nil
}

// TornDown counts the nodes of one start whose epilogs have reported.
func (l *Ledger) TornDown(ctx context.Context, k enclave.JobKey) (int, error) {
	var n int
	err := l.db.QueryRowContext(ctx, "SELECT count(*) FROM members WHERE cluster=? AND job=? AND restart=? AND teardown IS NOT NULL",
		k.Cluster, k.Job, k.Restart).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count epilogs of job %s: %w", k, err)
	}
	return n, nil
}

// Members lists the nodes of one start.
func (l *Ledger) Members(ctx context.Context, k enclave.JobKey) ([]MemberEntry, error) {
	return l.members(ctx, "WHERE m.cluster=? AND m.job=? AND m.restart=? ORDER BY m.node", k.Cluster, k.Job, k.Restart)
}

// LastMember is a node's latest part in any job.
func (l *Ledger) LastMember(ctx context.Context, node string) (MemberEntry, error) {
	list, err := l.members(ctx, "WHERE m.node=? ORDER BY m.at DESC LIMIT 1", node)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return MemberEntry{}, err
	}
	return list[0], nil
}

func (l *Ledger) members(ctx context.Context, where string, args ...any) ([]MemberEntry, error) {
	return list(ctx, l, "list members", func(row scanner) (MemberEntry, error) {
		var m MemberEntry
		var keys, result, refusal, ready, teardown sql.NullString
		var at int64
		bad := row.Scan(&m.Key.Cluster, &m.Key.Job, &m.Key.Restart, &m.Node, &keys, &result, &refusal, &ready, &teardown, &at)
		bad = errors.Join(bad, column(keys, &m.Keys), column(result, &m.Result), column(refusal, &m.Refusal),
			column(ready, &m.Ready), column(teardown, &m.Teardown))
		m.At = time.UnixMilli(at).UTC()
		return m, bad
	}, memberQuery+where, args...)
}
