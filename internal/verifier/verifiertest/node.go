package verifiertest

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Report is what a fake report holds: no signature vouches for it, only the test.
type Report struct {
	Data []byte `json:"data"` // REPORT_DATA
	Chip string `json:"chip"`
	ID   string `json:"id,omitempty"`  // REPORT_ID
	Fail string `json:"fail"`          // name of a check that fails
	Odd  string `json:"odd,omitempty"` // why that is not the node's fault
	Weak bool   `json:"weak"`
}

// Appraiser believes a Report, but compares claim and chip as the real one does. Its evidence
// is simulated, always.
type Appraiser struct {
	Version byte
	Slow    time.Duration // how long an appraisal takes
	Strict  bool          // it can't load the text of a policy that is no longer in force

	mu     sync.Mutex
	judged []string
}

// Policy is one digest for every name.
func (a *Appraiser) Policy(string) (enclave.Digest, error) {
	return enclave.Digest{31: 1 + a.Version}, nil
}

// Text is of the digest that Policy gives.
func (a *Appraiser) Text(d enclave.Digest) (string, error) {
	if now, _ := a.Policy(""); d != now {
		return "", errors.New("no such policy")
	}
	return fmt.Sprintf("version: %d", a.Version), nil
}

// Judged are the texts of policies that evidence was appraised by, of those no longer in force.
func (a *Appraiser) Judged() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.judged)
}

// Appraise affirms a Report for this claim, of this machine, without a Fail.
func (a *Appraiser) Appraise(rules verifier.Rules, e enclave.Evidence, c claim.Claim, m verifier.Machine) enclave.AttestationResult {
	<-time.After(a.Slow)
	if rules.Text != "" {
		a.mu.Lock()
		a.judged = append(a.judged, rules.Text)
		a.mu.Unlock()
	}
	if rules.Text != "" && a.Strict {
		const why = "unknown key"
		return enclave.AttestationResult{
			Node: c.Node, Status: enclave.StatusNone, Unjudged: why,
			Checks: []enclave.Check{{Name: "policy", Result: enclave.CheckUnknown, Reason: why}},
		}
	}
	r := a.Identify(e, c)
	if r.ChipID != m.Chip || (m.ReportID != "" && r.ReportID != m.ReportID) {
		r.Checks = append(r.Checks, enclave.Check{Name: "chip", Result: enclave.CheckFail, Reason: "another chip"})
		r.Status = enclave.StatusContraindicated
	}
	return r
}

// Identify affirms a Report for this claim without a Fail.
func (a *Appraiser) Identify(e enclave.Evidence, c claim.Claim) enclave.AttestationResult {
	var r Report
	out := enclave.AttestationResult{Node: c.Node, Status: enclave.StatusContraindicated, Simulated: true}
	fail := func(name, reason string) enclave.AttestationResult {
		out.Checks = append(out.Checks, enclave.Check{Name: name, Result: enclave.CheckFail, Reason: reason})
		return out
	}
	if err := json.Unmarshal(e.Report, &r); err != nil {
		return fail("parse", "not a report")
	}
	out.ChipID, out.ReportID, out.Weak, out.Unjudged = r.Chip, r.ID, r.Weak, r.Odd
	data, err := c.ReportData()
	if err != nil || string(data[:]) != string(r.Data) {
		return fail("report_data", "made for another question")
	}
	if r.Fail != "" {
		return fail(r.Fail, "as the test wants it")
	}
	out.Status = enclave.StatusAffirming
	out.Checks = []enclave.Check{{Name: "report_data", Result: enclave.CheckPass}}
	return out
}

// Node is a node that speaks the protocol, with fresh keys for each job.
type Node struct {
	Name     string
	Address  netip.Addr
	Chip     string
	ReportID string
	Verifier ed25519.PublicKey
	Fail     string // a check that its evidence shall fail
	Odd      string // why that is the verifier's fault
	Weak     bool

	Keys    enclave.NodeKeys
	Signing ed25519.PrivateKey
	Sealing hpke.PrivateKey
}

// ReceiptKey is a fixed key for receipts; each kind has its own.
func ReceiptKey(simulated bool) ed25519.PrivateKey {
	seed := sha256.Sum256(fmt.Appendf(nil, "receipts of tests, simulated %t", simulated))
	return ed25519.NewKeyFromSeed(seed[:])
}

// ChipOf is the chip of a fake node.
func ChipOf(name string) string {
	d := sha256.Sum256([]byte(name))
	return strings.Repeat(enclave.Digest(d).String(), 2)
}

// NewNode makes a node and its keys.
func NewNode(name string, address netip.Addr, verifier ed25519.PublicKey) (*Node, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	sealing, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return nil, err
	}
	n := &Node{Name: name, Address: address, Chip: ChipOf(name), Verifier: verifier, Signing: key, Sealing: sealing}
	n.Keys = enclave.NodeKeys{Ed25519: enclave.PublicKey(pub), HPKE: sealing.PublicKey().Bytes()}
	_, _ = rand.Read(n.Keys.WireGuard[:]) // never fails
	return n, nil
}

// Announce makes the announcement for a nonce, as an honest node does.
func (n *Node) Announce(job enclave.JobKey, purpose claim.Purpose, a api.NonceAnswer) (api.Announcement, error) {
	out := api.Announcement{
		Job: job, Node: n.Name, Epoch: a.Epoch, Purpose: purpose, Nonce: a.Nonce, Keys: n.Keys,
		Addresses: []netip.Addr{n.Address}, Endpoint: netip.AddrPortFrom(n.Address, 51820),
	}
	c := api.JobClaim(job, a.HetOffset, sha256.Sum256(n.Verifier), a.Policy, &out)
	var err error
	if out.Evidence, err = n.Evidence(c); err != nil {
		return out, err
	}
	return out, n.Resign(&out)
}

// Evidence is a fake report for a claim.
func (n *Node) Evidence(c claim.Claim) (enclave.Evidence, error) {
	data, err := c.ReportData()
	if err != nil {
		return enclave.Evidence{}, err
	}
	b, err := json.Marshal(Report{Data: data[:], Chip: n.Chip, ID: n.ReportID, Fail: n.Fail, Odd: n.Odd, Weak: n.Weak})
	return enclave.Evidence{Report: b, Provider: "fake"}, err
}

// Resign signs an announcement that a test has changed.
func (n *Node) Resign(a *api.Announcement) error {
	return a.Sign(func(m []byte) ([]byte, error) { return ed25519.Sign(n.Signing, m), nil })
}

// Expect is what the node checks a roster's answer against.
func (n *Node) Expect(job enclave.JobKey, nonce enclave.Nonce) roster.Expectation {
	return roster.Expectation{Verifier: n.Verifier, Key: job, Node: n.Name, Nonce: nonce, Keys: n.Keys, HPKE: n.Sealing}
}
