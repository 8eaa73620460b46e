package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Enrolment ties a node's name to a chip and a certificate.
type Enrolment struct {
	Node        string
	Chip        string // 128 hexadecimal digits, all zero when masked
	ReportID    string // then 64 hexadecimal digits, else empty
	Fingerprint enclave.Digest
	Certificate []byte // X.509, DER
	By          uint32 // the admin's uid
	At          time.Time
	Revoked     *time.Time
	Why         string
}

// Enrol puts an enrolment in force. The one before stays as an audit row, revoked by this one.
func (l *Ledger) Enrol(ctx context.Context, e Enrolment) error {
	defer l.enrolled.drop(e.Node)
	err := l.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE enrolments SET revoked=?, revoked_by=?, why=? WHERE node=? AND revoked IS NULL",
			millis(e.At), e.By, "replaced by "+e.Fingerprint.String(), e.Node)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO enrolments (node, chip, report_id, fingerprint, certificate, by, at) VALUES (?,?,?,?,?,?,?)",
			e.Node, e.Chip, e.ReportID, e.Fingerprint.String(), e.Certificate, e.By, millis(e.At))
		return err
	})
	if err != nil {
		return fmt.Errorf("enrol node %s: %w", e.Node, err)
	}
	return nil
}

// Revoke takes the node's enrolment out of force.
func (l *Ledger) Revoke(ctx context.Context, node string, by uint32, why string, at time.Time) error {
	defer l.enrolled.drop(node)
	err := l.write(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, "UPDATE enrolments SET revoked=?, revoked_by=?, why=? WHERE node=? AND revoked IS NULL", millis(at), by, why, node)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, ErrNotFound)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("revoke node %s: %w", node, err)
	}
	return nil
}

// Enrolled is the node's enrolment in force.
func (l *Ledger) Enrolled(ctx context.Context, node string) (Enrolment, error) {
	e, ok, change := l.enrolled.get(node)
	if ok {
		return e, nil
	}
	list, err := l.enrolments(ctx, "WHERE node=? AND revoked IS NULL", node)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Enrolment{}, fmt.Errorf("find enrolment of %s: %w", node, err)
	}
	l.enrolled.put(node, list[0], change)
	return list[0], nil
}

// CountEnrolled is how many nodes have an enrolment in force.
func (l *Ledger) CountEnrolled(ctx context.Context) (int, error) {
	var n int
	if err := l.db.QueryRowContext(ctx, "SELECT count(*) FROM enrolments WHERE revoked IS NULL").Scan(&n); err != nil {
		return 0, fmt.Errorf("count enrolments: %w", err)
	}
	return n, nil
}

// EnrolledAt is the node's enrolment that was in force at a time.
func (l *Ledger) EnrolledAt(ctx context.Context, node string, at time.Time) (Enrolment, error) {
	list, err := l.enrolments(ctx, "WHERE node=?1 AND at<=?2 AND (revoked IS NULL OR revoked>?2) ORDER BY id DESC LIMIT 1", node, millis(at))
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Enrolment{}, fmt.Errorf("find enrolment of %s: %w", node, err)
	}
	return list[0], nil
}

// Enrolments lists all of a node, the replaced and revoked too, oldest first.
func (l *Ledger) Enrolments(ctx context.Context, node string) ([]Enrolment, error) {
	return l.enrolments(ctx, "WHERE node=? ORDER BY id", node)
}

func (l *Ledger) enrolments(ctx context.Context, where string, args ...any) ([]Enrolment, error) {
	return list(ctx, l, "list enrolments", func(row scanner) (Enrolment, error) {
		var e Enrolment
		var fingerprint string
		var at int64
		var revoked sql.NullInt64
		bad := row.Scan(&e.Node, &e.Chip, &e.ReportID, &fingerprint, &e.Certificate, &e.By, &at, &revoked, &e.Why)
		bad = errors.Join(bad, e.Fingerprint.UnmarshalText([]byte(fingerprint)))
		e.At, e.Revoked = time.UnixMilli(at).UTC(), instant(revoked)
		return e, bad
	}, "SELECT node, chip, report_id, fingerprint, certificate, by, at, revoked, coalesce(why, '') FROM enrolments "+where, args...)
}

// Failure is one node failing one check: the storm guard's window is made of them.
type Failure struct {
	Name    string // of the check
	Code    enclave.Code
	Node    string
	At      time.Time
	Drained bool
	Resumed bool
}

// AddFailures stores failures, in one transaction.
func (l *Ledger) AddFailures(ctx context.Context, list []Failure) error {
	err := l.write(ctx, func(tx *sql.Tx) error {
		for _, f := range list {
			_, err := tx.ExecContext(ctx, "INSERT INTO failures (name, code, node, at, drained) VALUES (?,?,?,?,?)", f.Name, f.Code, f.Node, millis(f.At), f.Drained)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store failures: %w", err)
	}
	return nil
}

// Failures lists a check's failures between two times, oldest first.
func (l *Ledger) Failures(ctx context.Context, name string, since, until time.Time) ([]Failure, error) {
	return l.failures(ctx, "WHERE name=? AND at BETWEEN ? AND ? ORDER BY id", name, millis(since), millis(until))
}

// LastFailure is a node's latest failure.
func (l *Ledger) LastFailure(ctx context.Context, node string) (Failure, error) {
	list, err := l.failures(ctx, "WHERE node=? ORDER BY id DESC LIMIT 1", node)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Failure{}, err
	}
	return list[0], nil
}

func (l *Ledger) failures(ctx context.Context, where string, args ...any) ([]Failure, error) {
	return list(ctx, l, "list failures", func(row scanner) (Failure, error) {
		var f Failure
		var at int64
		bad := row.Scan(&f.Name, &f.Code, &f.Node, &at, &f.Drained, &f.Resumed)
		f.At = time.UnixMilli(at).UTC()
		return f, bad
	}, "SELECT name, code, node, at, drained, resumed FROM failures "+where, args...)
}

// Resumed notes that the node's drains for a check are undone.
func (l *Ledger) Resumed(ctx context.Context, name, node string) error {
	return l.exec(ctx, "resume node "+node, "UPDATE failures SET resumed=1 WHERE name=? AND node=?", name, node)
}

// Alarm is something an admin should know of.
type Alarm struct {
	Code   enclave.Code
	Reason string
	At     time.Time
}

// AddAlarm stores an alarm.
func (l *Ledger) AddAlarm(ctx context.Context, a Alarm) error {
	return l.exec(ctx, "store alarm", "INSERT INTO alarms (code, reason, at) VALUES (?,?,?)", a.Code, a.Reason, millis(a.At))
}

// Alarms lists the latest alarms, latest first.
func (l *Ledger) Alarms(ctx context.Context, limit int) ([]Alarm, error) {
	return list(ctx, l, "list alarms", func(row scanner) (Alarm, error) {
		var a Alarm
		var at int64
		bad := row.Scan(&a.Code, &a.Reason, &at)
		a.At = time.UnixMilli(at).UTC()
		return a, bad
	}, "SELECT code, reason, at FROM alarms ORDER BY id DESC LIMIT ?", limit)
}

// Silent counts one more job in a row to which the node never spoke, and gives the count.
func (l *Ledger) Silent(ctx context.Context, node string) (int, error) {
	var n int
	err := l.write(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, "INSERT INTO silences (node, times) VALUES (?, 1) ON CONFLICT DO UPDATE SET times=times+1 RETURNING times", node).Scan(&n)
	})
	if err != nil {
		return 0, fmt.Errorf("count silence of %s: %w", node, err)
	}
	return n, nil
}

// Spoke ends the rows of silences of these nodes. Few nodes have one, so they are looked for first.
func (l *Ledger) Spoke(ctx context.Context, nodes map[string]bool) error {
	err := l.write(ctx, func(tx *sql.Tx) error {
		var ended []string
		rows, err := tx.QueryContext(ctx, "SELECT node FROM silences")
		if err != nil {
			return err
		}
		err = each(rows, func() error {
			var node string
			bad := rows.Scan(&node)
			if nodes[node] {
				ended = append(ended, node)
			}
			return bad
		})
		for _, node := range ended {
			if err == nil {
				_, err = tx.ExecContext(ctx, "DELETE FROM silences WHERE node=?", node)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("end silences: %w", err)
	}
	return nil
}
