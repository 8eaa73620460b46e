package check

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
)

// Link is one receipt on its way through a Chain. What the ledger says beside the file may be
// missing: then Row is nil.
type Link struct {
	Name string // for people: the file, or the row
	File []byte
	Row  *Row
}

// Row is what a ledger says of a receipt.
type Row struct {
	Job      enclave.JobKey
	Sequence uint64
	Digest   enclave.Digest
	Previous enclave.Digest
}

// Place is one place of a chain: what an officer notes down to know it again.
type Place struct {
	Sequence uint64         `json:"sequence"`
	Digest   enclave.Digest `json:"digest"`
}

func (p Place) String() string { return fmt.Sprintf("%d:%s", p.Sequence, p.Digest) }

// ParsePlace reads SEQ:DIGEST as String writes it.
func ParsePlace(s string) (Place, error) {
	var p Place
	number, digest, ok := strings.Cut(s, ":")
	if _, err := fmt.Sscanf(number, "%d", &p.Sequence); err != nil || !ok || p.Digest.UnmarshalText([]byte(digest)) != nil || p.String() != s {
		return Place{}, fmt.Errorf("%.80q is no SEQ:DIGEST, a number and 64 hexadecimal digits in lower case", s)
	}
	return p, nil
}

// Chain walks the receipts of a cluster in their order. It keeps no receipt.
type Chain struct {
	keys     []ed25519.PublicKey
	noted    *Place
	next     uint64
	verifier enclave.PublicKey
	before   *Place // nil at the beginning, and behind a place that was bad
	found    bool   // noted was passed

	Faults    []string
	Count     int
	Simulated int
	Head      Place
	Keys      []string // fingerprints, each once, and whether they are pinned
}

// NewChain begins at a sequence number, 1 being the whole chain. keys are the centre's; with none
// the receipts vouch for each other only. noted is a place that the reader knows, or nil.
func NewChain(from uint64, keys []ed25519.PublicKey, noted *Place) *Chain {
	return &Chain{keys: keys, noted: noted, next: from}
}

func (c *Chain) fault(format string, args ...any) {
	c.Faults = append(c.Faults, fmt.Sprintf(format, args...))
}

// Add takes the next receipt.
func (c *Chain) Add(l Link) {
	c.Count++
	o, err := receipt.Open(l.File)
	if err != nil {
		c.fault("%s was changed: %v", l.Name, err)
		if l.Row != nil && l.Row.Sequence == c.next {
			c.next++
		}
		c.before = nil
		return
	}
	p := o.Statement.Predicate
	if p.Simulated {
		c.Simulated++
	}
	c.signature(l, o)
	c.row(l, o)
	here := Place{p.Chain.Sequence, o.Digest}
	c.place(l, here, p.Chain.Previous)
	if c.noted != nil && here.Sequence == c.noted.Sequence {
		if c.found = true; here != *c.noted {
			c.fault("%s has the number %d that you noted, with another digest: sha256:%s", l.Name, here.Sequence, here.Digest)
		}
	}
	c.before, c.Head, c.next = &here, here, here.Sequence+1
}

// place finds what was removed, added or moved.
func (c *Chain) place(l Link, here Place, previous enclave.Digest) {
	switch {
	case here.Sequence == c.next+1:
		c.fault("receipt %d is missing before %s", c.next, l.Name)
	case here.Sequence > c.next:
		c.fault("receipts %d to %d are missing before %s", c.next, here.Sequence-1, l.Name)
	case here.Sequence < c.next:
		c.fault("%s has the number %d, %d was due: doubled or moved", l.Name, here.Sequence, c.next)
	case c.before != nil && previous != c.before.Digest:
		c.fault("%s follows another receipt than number %d: that one was changed or replaced", l.Name, c.before.Sequence)
	}
}

// signature wants a key of the reader's, or else one that the same verifier vouches for.
func (c *Chain) signature(l Link, o receipt.Opened) {
	key := ed25519.PublicKey(o.Statement.Predicate.Signer.Key[:])
	pinned := slices.ContainsFunc(c.keys, func(k ed25519.PublicKey) bool { return bytes.Equal(k, key) })
	if err := o.CheckSignature(key); err != nil {
		c.fault("%s: %v", l.Name, err)
		return
	}
	if len(c.keys) != 0 && !pinned {
		c.fault("%s is signed by key sha256:%s, which is none of yours", l.Name, o.KeyID)
	}
	word := "unpinned"
	if pinned {
		word = "pinned"
	}
	name := fmt.Sprintf("sha256:%s %s (%s)", o.KeyID, o.Statement.Predicate.Signer.Role, word)
	if !slices.Contains(c.Keys, name) {
		c.Keys = append(c.Keys, name)
	}
	p := o.Statement.Predicate
	inner := checking{said: &p, report: &Report{Said: o.Statement}}
	if err := inner.role(); err != nil {
		c.fault("%s: %v", l.Name, err)
	}
	if err := inner.kind(); err != nil {
		c.fault("%s: %v", l.Name, err)
	}
	if c.verifier == (enclave.PublicKey{}) {
		c.verifier = p.Verifier.Key
	}
	if p.Verifier.Key != c.verifier {
		c.fault("%s is another verifier's than the one before", l.Name)
	}
}

// row holds the ledger's columns against the file.
func (c *Chain) row(l Link, o receipt.Opened) {
	p := o.Statement.Predicate
	said := Row{Job: p.Job.JobKey, Sequence: p.Chain.Sequence, Digest: o.Digest, Previous: p.Chain.Previous}
	if l.Row != nil && *l.Row != said {
		c.fault("%s holds receipt %d of job %s: the ledger says otherwise beside it", l.Name, said.Sequence, said.Job)
	}
}

// End says that no more receipts come, and what the ledger calls its head (nil: nobody said).
func (c *Chain) End(head *Place) {
	if head != nil && *head != c.Head {
		c.fault("the chain ends with %s, the ledger calls %s its head", c.Head, *head)
	}
	if c.noted != nil && !c.found {
		c.fault("receipt %d, which you noted, is not there: the chain ends with %d", c.noted.Sequence, c.Head.Sequence)
	}
}
