package ledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// endorsements are enclave.Endorsements by digest: a fleet shares most of them.
type endorsements struct {
	Certificates []enclave.Digest `json:"certificates,omitempty"`
	Authorities  []enclave.Digest `json:"authorities,omitempty"`
	CRLs         []enclave.Digest `json:"crls,omitempty"`
}

// putDocument stores a document once, whoever names it.
func putDocument(ctx context.Context, tx *sql.Tx, body []byte) (enclave.Digest, error) {
	d := enclave.Digest(sha256.Sum256(body))
	_, err := tx.ExecContext(ctx, "INSERT INTO documents (digest, body) VALUES (?,?) ON CONFLICT DO NOTHING", d.String(), body)
	return d, err
}

func putEndorsements(ctx context.Context, tx *sql.Tx, e enclave.Endorsements) (endorsements, error) {
	var out endorsements
	for _, part := range []struct {
		to   *[]enclave.Digest
		from [][]byte
	}{{&out.Certificates, e.Certificates}, {&out.Authorities, e.Authorities}, {&out.CRLs, e.CRLs}} {
		for _, body := range part.from {
			d, err := putDocument(ctx, tx, body)
			if err != nil {
				return out, err
			}
			*part.to = append(*part.to, d)
		}
	}
	return out, nil
}

// endorse gives pieces of evidence back what they were judged by.
func (l *Ledger) endorse(ctx context.Context, list []Evidence, by []endorsements) error {
	known := map[enclave.Digest][]byte{}
	find := func(digests []enclave.Digest) ([][]byte, error) {
		var out [][]byte
		for _, d := range digests {
			if known[d] == nil {
				b, err := l.Document(ctx, d)
				if err != nil {
					return nil, err
				}
				known[d] = b
			}
			out = append(out, known[d])
		}
		return out, nil
	}
	for i := range list {
		e := &list[i].Result.Endorsements
		var errs [3]error
		e.Certificates, errs[0] = find(by[i].Certificates)
		e.Authorities, errs[1] = find(by[i].Authorities)
		e.CRLs, errs[2] = find(by[i].CRLs)
		if err := errors.Join(errs[:]...); err != nil {
			return err
		}
	}
	return nil
}

// Document finds a document by its SHA-256.
func (l *Ledger) Document(ctx context.Context, d enclave.Digest) ([]byte, error) {
	var b []byte
	err := l.db.QueryRowContext(ctx, "SELECT body FROM documents WHERE digest=?", d.String()).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("find document %s: %w", d, err)
	}
	return b, nil
}
