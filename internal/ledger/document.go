package ledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// endorsements are enclave.Endorsements by digest: a fleet shares most of them.
type endorsements struct {
	Certificates []enclave.Digest `json:"certificates,omitempty"`
	Authorities  []enclave.Digest `json:"authorities,omitempty"`
	CRLs         []enclave.Digest `json:"crls,omitempty"`
}

const insertDocument = "INSERT INTO documents (digest, body) VALUES (?,?) ON CONFLICT DO NOTHING"

// stored remembers documents that are in the ledger: what AMD signed for a product comes with the
// evidence of each of its chips. A document that evidence of a job names never leaves the ledger.
type stored struct {
	mu      sync.Mutex
	digests map[enclave.Digest]struct{}
}

// maxStored bounds what is remembered, about 100 bytes each.
const maxStored = 1 << 15

func newStored() *stored { return &stored{digests: map[enclave.Digest]struct{}{}} }

func (s *stored) has(d enclave.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.digests[d]
	return ok
}

// add is told of documents whose write has returned without error.
func (s *stored) add(list []document) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.digests)+len(list) > maxStored {
		clear(s.digests)
	}
	for _, d := range list {
		s.digests[d.digest] = struct{}{}
	}
}

type document struct {
	digest enclave.Digest
	body   []byte
}

// endorsing names what evidence was judged by, and lists what of it is not known to be stored.
func (l *Ledger) endorsing(e enclave.Endorsements) (out endorsements, missing []document) {
	for _, part := range []struct {
		to   *[]enclave.Digest
		from [][]byte
	}{{&out.Certificates, e.Certificates}, {&out.Authorities, e.Authorities}, {&out.CRLs, e.CRLs}} {
		for _, body := range part.from {
			d := enclave.Digest(sha256.Sum256(body))
			if *part.to = append(*part.to, d); !l.stored.has(d) {
				missing = append(missing, document{d, body})
			}
		}
	}
	return out, missing
}

// certificates is what came with a piece of evidence: of the row, or of the document that it names.
const certificates = "coalesce((SELECT body FROM documents WHERE digest=delivered), certificates), coalesce(delivered, '')"

// asJudged is in the place of a document's name where the certificates could be read: what they were
// wrapped in is the host's own writing, as long as it likes, and other with each report if it wants to fill
// the disk.
const asJudged = "judged"

// delivering names the certificates that came with evidence. Where they could be read, what was judged
// of them is all that is kept; else they stay as they came, for nobody could say again why they failed.
func (l *Ledger) delivering(e Evidence, missing []document) (delivered sql.NullString, _ []document) {
	body := e.Evidence.Certificates
	if len(body) == 0 {
		return delivered, missing
	}
	if len(e.Result.Endorsements.Certificates) != 0 {
		return sql.NullString{String: asJudged, Valid: true}, missing
	}
	d := enclave.Digest(sha256.Sum256(body))
	if !l.stored.has(d) {
		missing = append(missing, document{d, body})
	}
	return sql.NullString{String: d.String(), Valid: true}, missing
}

// judged are the certificates of evidence one after the other, a form that every reader of them knows.
func judged(e enclave.Endorsements) []byte { return slices.Concat(e.Certificates...) }

// read is a row of evidence, and what it names.
type read struct {
	Evidence
	delivered string
	by        endorsements
}

// endorse gives pieces of evidence back what they were judged by.
func (l *Ledger) endorse(ctx context.Context, list []read) ([]Evidence, error) {
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
	out := make([]Evidence, 0, len(list))
	for _, r := range list {
		e := &r.Result.Endorsements
		var errs [3]error
		e.Certificates, errs[0] = find(r.by.Certificates)
		e.Authorities, errs[1] = find(r.by.Authorities)
		e.CRLs, errs[2] = find(r.by.CRLs)
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
		if r.delivered == asJudged {
			r.Evidence.Evidence.Certificates = judged(*e)
		}
		out = append(out, r.Evidence)
	}
	return out, nil
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
