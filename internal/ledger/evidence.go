package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Evidence is one piece of evidence as it came, with what was said of it.
type Evidence struct {
	Key      enclave.JobKey // of an enrolment: the cluster only
	Node     string
	Purpose  uint8
	Epoch    uint32
	Nonce    enclave.Nonce
	Keys     enclave.NodeKeys
	Evidence enclave.Evidence
	Result   enclave.AttestationResult
	Machine  *Machine // what it was held against; nil in rows of an earlier release
	Unjudged bool     // it could not be judged, which is not the node's fault
	At       time.Time
}

// Machine is what a node was enrolled on. It is stored with the evidence: which enrolment was in force
// then nobody can say later by the clock, which may have been set meanwhile.
type Machine struct {
	Chip     string `json:"chip"` // as in Enrolment; empty: there was no enrolment
	ReportID string `json:"report_id"`
}

const insertEvidence = `INSERT INTO evidence
	(cluster, job, restart, node, purpose, epoch, nonce, report, certificates, delivered, provider, keys, result, endorsements, at, machine, unjudged) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`

// AddEvidence stores evidence; a nonce stands in the ledger once, whatever the memory forgot.
func (l *Ledger) AddEvidence(ctx context.Context, e Evidence) error {
	put, kept := l.evidenceRow(e)
	err := l.write(ctx, func(tx *sql.Tx) error { return put(ctx, tx) })
	if err != nil {
		return fmt.Errorf("store evidence of node %s: %w", e.Node, err)
	}
	kept()
	return nil
}

// AddUnbound stores evidence that is no job's, in the place of such evidence that nobody asks for any
// more, which goes by its nonces. All of it is in its row, and goes with it: strangers make these rows.
func (l *Ledger) AddUnbound(ctx context.Context, e Evidence, gone ...enclave.Nonce) error {
	if len(e.Result.Endorsements.Certificates) != 0 {
		e.Evidence.Certificates = judged(e.Result.Endorsements)
	}
	row := rowOf(e, e.Evidence.Certificates, sql.NullString{}, "{}")
	err := l.write(ctx, func(tx *sql.Tx) error {
		for _, n := range gone {
			if _, err := tx.ExecContext(ctx, "DELETE FROM evidence WHERE nonce=? AND cluster=? AND job=0 AND restart=0", n.String(), e.Key.Cluster); err != nil {
				return err
			}
		}
		return l.put(ctx, tx, insertEvidence, row...)
	})
	if err != nil {
		return fmt.Errorf("store evidence of node %s: %w", e.Node, err)
	}
	return nil
}

// longestProvider bounds the name of what made a report, which is the host's to write.
const longestProvider = 64

func rowOf(e Evidence, body []byte, delivered sql.NullString, endorsed string) []any {
	never := func(b []byte) []byte { return append([]byte{}, b...) } // never NULL
	provider := e.Evidence.Provider[:min(len(e.Evidence.Provider), longestProvider)]
	return []any{
		e.Key.Cluster, e.Key.Job, e.Key.Restart, e.Node, e.Purpose, e.Epoch, e.Nonce.String(),
		never(e.Evidence.Report), never(body), delivered, provider, text(e.Keys), text(e.Result), endorsed, millis(e.At),
		optional(e.Machine), e.Unjudged,
	}
}

// evidenceRow prepares what is to be written before it is anybody's turn to write; put writes it, and
// kept is to be called when that is on the disk.
func (l *Ledger) evidenceRow(e Evidence) (put func(context.Context, *sql.Tx) error, kept func()) {
	endorsed, missing := l.endorsing(e.Result.Endorsements)
	delivered, missing := l.delivering(e, missing)
	row := rowOf(e, nil, delivered, text(endorsed))
	put = func(ctx context.Context, tx *sql.Tx) error {
		for _, d := range missing {
			if err := l.put(ctx, tx, insertDocument, d.digest.String(), d.body); err != nil {
				return err
			}
		}
		return l.put(ctx, tx, insertEvidence, row...)
	}
	return put, func() { l.stored.add(missing) }
}

const evidenceColumns = "cluster, job, restart, node, purpose, epoch, nonce, report, " + certificates + ", provider, keys, result, endorsements, at, machine, unjudged"

// EvidenceOf lists all evidence of one start, in the order it came.
func (l *Ledger) EvidenceOf(ctx context.Context, k enclave.JobKey) ([]Evidence, error) {
	out, err := l.evidence(ctx, "WHERE cluster=? AND job=? AND restart=? ORDER BY id", k.Cluster, k.Job, k.Restart)
	if err != nil {
		return nil, fmt.Errorf("list evidence of %s: %w", k, err)
	}
	return out, nil
}

// LatestEvidence is the last evidence that came from a node, for whatever purpose and whatever
// was said of it.
func (l *Ledger) LatestEvidence(ctx context.Context, node string) (Evidence, error) {
	list, err := l.evidence(ctx, "WHERE node=? ORDER BY id DESC LIMIT 1", node)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Evidence{}, fmt.Errorf("find evidence of %s: %w", node, err)
	}
	return list[0], nil
}

func (l *Ledger) evidence(ctx context.Context, where string, args ...any) ([]Evidence, error) {
	rows, err := l.db.QueryContext(ctx, "SELECT "+evidenceColumns+" FROM evidence "+where, args...) // #nosec G202 -- where is one of our own constants
	if err != nil {
		return nil, err
	}
	var list []read
	err = each(rows, func() error {
		var e read
		var nonce string
		var keys, result, digests, machine sql.NullString
		var at int64
		bad := rows.Scan(&e.Key.Cluster, &e.Key.Job, &e.Key.Restart, &e.Node, &e.Purpose, &e.Epoch, &nonce, &e.Evidence.Evidence.Report,
			&e.Evidence.Evidence.Certificates, &e.delivered, &e.Evidence.Evidence.Provider, &keys, &result, &digests, &at, &machine, &e.Unjudged)
		bad = errors.Join(bad, e.Nonce.UnmarshalText([]byte(nonce)), column(keys, &e.Keys), column(result, &e.Result), column(digests, &e.by), column(machine, &e.Machine))
		e.At = time.UnixMilli(at).UTC()
		list = append(list, e)
		return bad
	})
	if err != nil {
		return nil, err
	}
	return l.endorse(ctx, list)
}
