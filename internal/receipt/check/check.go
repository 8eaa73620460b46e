// Package check judges a receipt again: offline, from its bytes, and from keys that its reader
// brings along.
//
// Level 1 asks whether the centre signed it. Level 2 derives again whatever can be: chain and
// signature of every report from AMD's roots, REPORT_DATA from the claim, roots of the rosters from
// their leaves, the appraisal from the policy's text. What is left are statements, and every line
// says whose word it is. The package opens no file, asks no clock and no network, and keeps
// nothing. The command line calls it.
package check

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// Result of one line.
type Result string

// A statement is not checked: it says whose word it is.
const (
	OK        Result = "ok"
	Bad       Result = "BAD"
	Statement Result = "says"
)

// Who vouches for a line.
const (
	Hardware   = "AMD hardware"
	OwnRoots   = "hardware, by your roots"
	TestRoot   = "a test root, not AMD"
	Signature  = "verifier's signature"
	Unpinned   = "verifier's signature, unpinned"
	Attested   = "attested node"
	Recomputed = "recomputed here"
)

// Line is one thing that was checked or is only stated.
type Line struct {
	Level   int    `json:"level"`
	Node    string `json:"node,omitempty"`
	Purpose string `json:"purpose,omitempty"` // job or renewal, for lines of evidence
	Epoch   uint32 `json:"epoch,omitempty"`
	Name    string `json:"name"`
	Result  Result `json:"result"`
	Reason  string `json:"reason"`
	Vouches string `json:"vouched_for_by"`
}

// Options is what the reader brings along.
type Options struct {
	Roots  snp.Roots           // AMD's, or what the reader trusts in their place
	Own    bool                // Roots are the reader's own choice
	Policy *appraise.Policy    // judged by instead of the receipt's own
	Keys   []ed25519.PublicKey // of the centre; none: the signature is checked with the key inside
}

// Report is what came of it.
type Report struct {
	Opened bool              // false: Lines say why, and nothing else is known
	Digest enclave.Digest    // of the file
	Said   receipt.Statement // hearsay where a line is bad
	Key    ed25519.PublicKey // that signed it
	Pinned bool              // the reader brought that key
	Lines  []Line            // in the order of the screen
}

// Simulated is true for everything that is not a receipt of hardware.
func (r Report) Simulated() bool {
	return r.Said.PredicateType != receipt.TypeReal || r.Said.Predicate.Simulated
}

// Good is true when no line is bad.
func (r Report) Good() bool { return r.Opened && r.Faults() == 0 }

// Faults counts the bad lines.
func (r Report) Faults() int {
	n := 0
	for _, l := range r.Lines {
		if l.Result == Bad {
			n++
		}
	}
	return n
}

// checking is one run.
type checking struct {
	opt    Options
	report *Report
	said   *receipt.Predicate
	signed string // who vouches for what the envelope's signature is over

	roots    snp.Roots
	policy   *appraise.Policy
	nonces   map[enclave.Nonce]bool
	judged   map[*receipt.Evidence]judgement
	affirmed map[string]affirmation // by node: what the hardware vouches for
	fake     bool                   // some evidence ends in a test root
}

// affirmation is what a node's affirmed evidence binds.
type affirmation struct {
	keys enclave.NodeKeys
	weak bool
}

// Check judges a receipt's file.
func Check(file []byte, opt Options) Report {
	r := Report{}
	o, err := receipt.Open(file)
	if err != nil {
		r.Lines = []Line{{Level: 1, Name: "form", Result: Bad, Reason: err.Error(), Vouches: Recomputed}}
		return r
	}
	r.Opened, r.Digest, r.Said = true, o.Digest, o.Statement
	c := &checking{
		opt: opt, report: &r, said: &r.Said.Predicate, signed: Unpinned,
		nonces: map[enclave.Nonce]bool{}, affirmed: map[string]affirmation{},
	}
	c.level1(o)
	c.level2()
	return r
}

// add puts down a line that was checked.
func (c *checking) add(l Line, err error, format string, args ...any) {
	l.Result, l.Reason = OK, fmt.Sprintf(format, args...)
	if err != nil {
		l.Result, l.Reason = Bad, err.Error()
	}
	c.report.Lines = append(c.report.Lines, l)
}

// says puts down a statement.
func (c *checking) says(l Line, format string, args ...any) {
	l.Result, l.Reason = Statement, fmt.Sprintf(format, args...)
	c.report.Lines = append(c.report.Lines, l)
}

// must is an error unless ok.
func must(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

func instant(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}
