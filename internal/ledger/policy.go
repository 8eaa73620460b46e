package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Policy is the text of a policy that a job was started under. A job is judged by it until its
// end, whatever becomes of the file.
type Policy struct {
	Digest enclave.Digest // SHA-256 of Text
	Name   string
	Text   string
	At     time.Time // of its first job
}

// AddPolicy stores a policy; one that is there stays as it is.
func (l *Ledger) AddPolicy(ctx context.Context, p Policy) error {
	return l.exec(ctx, "store policy "+p.Name, "INSERT INTO policies (digest, name, text, at) VALUES (?,?,?,?) ON CONFLICT DO NOTHING",
		p.Digest.String(), p.Name, p.Text, millis(p.At))
}

// Policy finds a policy by its digest.
func (l *Ledger) Policy(ctx context.Context, d enclave.Digest) (Policy, error) {
	p := Policy{Digest: d}
	var at int64
	err := l.db.QueryRowContext(ctx, "SELECT name, text, at FROM policies WHERE digest=?", d.String()).Scan(&p.Name, &p.Text, &at)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return Policy{}, fmt.Errorf("find policy %s: %w", d, err)
	}
	p.At = time.UnixMilli(at).UTC()
	return p, nil
}
