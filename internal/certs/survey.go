package certs

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Judge says what bytes are worth; internal/snp's Roots do.
type Judge interface {
	Endorsement(b []byte) (enclave.Endorsement, error)
	List(b []byte) (enclave.RevocationList, error)
	Chain(bundle []byte, product, signer string) error
}

// WarnAhead is how long before its end a file is warned of.
const WarnAhead = 30 * 24 * time.Hour

// Kind is what a file of the store is.
type Kind string

// The kinds of files.
const (
	Certificate Kind = "certificate"
	List        Kind = "crl"
	Chain       Kind = "chain"
)

// Holding is one file of the store and what it is worth.
type Holding struct {
	Path    string
	Kind    Kind
	Written time.Time
	Key     Key       // of a certificate
	From    time.Time // valid from, or thisUpdate
	Until   time.Time // valid until, or nextUpdate; the zero time of a chain
	Revoked []string  // what a list revokes of the pinned keys

	Simulated bool
	Problem   error // why it is worth nothing
}

// Good is true for what may be used at a time.
func (h Holding) Good(at time.Time) bool {
	return h.Problem == nil && (h.Kind == Chain || (!at.Before(h.From) && !at.After(h.Until)))
}

// Survey reads the whole store. A file that is worth nothing is no error: it is one of the findings.
func Survey(s *Store, j Judge) ([]Holding, error) {
	names, err := s.Names()
	if err != nil {
		return nil, err
	}
	out := []Holding{}
	for _, name := range names {
		b, written, err := s.Read(name)
		if err != nil {
			return nil, err
		}
		if h, ours := weigh(name, b, j); ours {
			h.Written = written
			out = append(out, h)
		}
	}
	return out, nil
}

// weigh judges one file by the name that it has. Files of other names are not ours.
func weigh(name string, b []byte, j Judge) (Holding, bool) {
	h := Holding{Path: name}
	switch path.Ext(name) {
	case certificateSuffix:
		h.Kind = Certificate
		if h.Key, h.Problem = ParsePath(name); h.Problem == nil {
			h.weighCertificate(b, j)
		}
	case listSuffix:
		h.Kind = List
		h.weighList(b, j)
	case chainSuffix:
		h.Kind = Chain
		product, signer, _ := strings.Cut(strings.TrimSuffix(path.Base(name), chainSuffix), "-")
		h.Problem = j.Chain(b, product, strings.ToUpper(signer))
	default:
		return h, false
	}
	return h, true
}

func (h *Holding) weighCertificate(b []byte, j Judge) {
	e, err := j.Endorsement(b)
	if err == nil && (e.Signer != "VCEK" || KeyOf(e) != h.Key) {
		err = fmt.Errorf("the certificate is another's: a %s of %s", e.Signer, KeyOf(e))
	}
	h.From, h.Until, h.Simulated, h.Problem = e.NotBefore, e.NotAfter, e.Simulated, err
}

func (h *Holding) weighList(b []byte, j Judge) {
	l, err := j.List(b)
	h.From, h.Until, h.Revoked, h.Simulated, h.Problem = l.ThisUpdate, l.NextUpdate, l.Revoked, l.Simulated, err
	if a, ok := authorityOf(h.Path); ok && err == nil && a.Product != l.Product {
		h.Problem = fmt.Errorf("the list is another's: of %s", l.Root)
	}
}

func authorityOf(listPath string) (Authority, bool) {
	product, signer, _ := strings.Cut(strings.TrimSuffix(listPath, listSuffix), "-")
	_, ok := lines()[product]
	a := Authority{product, strings.ToUpper(signer)}
	return a, ok && slices.Contains([]string{"VCEK", "VLEK"}, a.Signer)
}

// Warning is what an admin should know before it hurts.
type Warning struct {
	Path string `json:"path"`
	Text string `json:"text"`
}

// Warnings finds what is broken, has ended, or ends within ahead (WarnAhead for people).
func Warnings(store []Holding, at time.Time, ahead time.Duration) []Warning {
	out := []Warning{}
	for _, h := range store {
		text := ""
		switch {
		case h.Problem != nil:
			text = "is of no use: " + h.Problem.Error()
		case len(h.Revoked) != 0:
			text = "revokes " + strings.Join(h.Revoked, ", ")
		case h.Kind == Chain:
		case at.Before(h.From):
			text = "is not valid before " + day(h.From)
		case at.After(h.Until):
			text = "ended on " + day(h.Until)
		case at.Add(ahead).After(h.Until):
			text = fmt.Sprintf("ends on %s, in %d days", day(h.Until), int(h.Until.Sub(at)/(24*time.Hour)))
		}
		if text != "" {
			out = append(out, Warning{h.Path, text})
		}
	}
	return out
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
