package verifier

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// Appraisal is the Appraiser of production: internal/snp says whether evidence is genuine,
// internal/appraise what it is worth. It is made whole from files and never changes, but for what
// it takes from the certificate store.
type Appraisal struct {
	roots    snp.Roots
	policies map[string]appraise.Policy
	preset   string
	shelf    *shelf
}

// LoadAppraisal reads roots and policies; Refresh reads the revocation lists. Simulated roots are
// joined only when the configuration allows them; a policy must allow them once more.
func LoadAppraisal(c config.Controller) (*Appraisal, error) {
	roots, err := LoadRoots(c)
	if err != nil {
		return nil, err
	}
	a := &Appraisal{roots: roots, policies: map[string]appraise.Policy{}, preset: c.Policy}
	if err = a.loadPolicies(c.Policies); err != nil {
		return nil, err
	}
	if _, ok := a.policies[c.Policy]; !ok {
		return nil, fmt.Errorf("load policies: controller.policy names %q, and there is no %s/%s.yaml", c.Policy, c.Policies, c.Policy)
	}
	a.shelf = newShelf(c.Certificates, a.roots)
	return a, nil
}

// LoadRoots are AMD's keys, and a lab's where the configuration allows them.
func LoadRoots(c config.Controller) (snp.Roots, error) {
	roots, err := snp.AMDRoots()
	if err != nil || !c.AllowSimulated {
		return roots, err
	}
	test, err := simulatedRoots(c.SimulatedRoots)
	return snp.Join(roots, test), err
}

func simulatedRoots(dir string) (snp.Roots, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil {
		return snp.Roots{}, fmt.Errorf("load simulated roots: %w", err)
	}
	var bundles [][]byte
	for _, n := range names {
		b, bad := os.ReadFile(n)
		if bad != nil {
			return snp.Roots{}, fmt.Errorf("load simulated roots: %w", bad)
		}
		bundles = append(bundles, b)
	}
	test, err := snp.TestRoots(bundles...)
	if err != nil {
		return snp.Roots{}, fmt.Errorf("load simulated roots from %s: %w", dir, err)
	}
	return test, nil
}

func (a *Appraisal) loadPolicies(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return fmt.Errorf("load policies: %w", err)
	}
	for _, n := range names {
		f, err := os.Open(n)
		if err != nil {
			return fmt.Errorf("load policies: %w", err)
		}
		p, err := appraise.Load(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("load policy %s: %w", n, err)
		}
		name := strings.TrimSuffix(filepath.Base(n), ".yaml")
		if p.Name() != name {
			return fmt.Errorf("load policy %s: the name inside is %q", n, p.Name())
		}
		a.policies[name] = p
	}
	return nil
}

// Refresh reads revocation lists that changed in the certificate store. On an error the last good
// ones stay in force.
func (a *Appraisal) Refresh() error { return a.shelf.refresh() }

// Follow makes an Appraisal that was just made the next one after another, of the same store: no list
// that was in force is replaced by an older one.
func (a *Appraisal) Follow(old *Appraisal) { a.shelf.follow(old.shelf) }

// Learn verifies the certificates of the store, and those that were seen before (DER), before a
// report asks for one.
func (a *Appraisal) Learn(seen [][]byte) { a.shelf.learn(seen) }

// Survey weighs every file of the certificate store.
func (a *Appraisal) Survey() ([]certs.Holding, error) { return a.shelf.survey() }

// Known is how many signatures above reports are remembered.
func (a *Appraisal) Known() int { return a.shelf.memo.Len() }

func (a *Appraisal) policy(name string) (appraise.Policy, error) {
	if name == "" {
		name = a.preset
	}
	p, ok := a.policies[name]
	if !ok {
		return p, fmt.Errorf("there is no appraisal policy %q", name)
	}
	return p, nil
}

// Policy is the digest of a policy by name.
func (a *Appraisal) Policy(name string) (enclave.Digest, error) {
	p, err := a.policy(name)
	if err != nil {
		return enclave.Digest{}, err
	}
	return p.Digest(), nil
}

// Text is the text of a policy in force.
func (a *Appraisal) Text(d enclave.Digest) (string, error) {
	for _, p := range a.policies {
		if p.Digest() == d {
			return p.Text(), nil
		}
	}
	return "", fmt.Errorf("no appraisal policy in force has the digest %s", d)
}

// Appraise judges evidence for a job or a renewal.
func (a *Appraisal) Appraise(r Rules, e enclave.Evidence, c claim.Claim, m Machine) enclave.AttestationResult {
	return a.judge(r, e, c, m)
}

// genuine are the checks of an enrolment besides those of the report's signature: which firmware
// and image an enrolled node runs is asked again at every job.
func genuine() []string { return []string{"report_data", "chip", "simulated"} }

// Identify checks chain, signature, claim and chip.
func (a *Appraisal) Identify(e enclave.Evidence, c claim.Claim) enclave.AttestationResult {
	whole := a.judge(Rules{}, e, c, Machine{})
	out := whole
	out.Status, out.Checks = enclave.StatusContraindicated, nil
	for _, check := range whole.Checks {
		ofSignature := appraise.CodeOf(check.Name) == appraise.CodeGenuine || check.Name == "crl"
		if ofSignature || slices.Contains(genuine(), check.Name) {
			out.Checks = append(out.Checks, check)
		}
	}
	if len(out.Checks) > len(genuine()) && out.Failed() == nil {
		out.Status = enclave.StatusAffirming
	}
	return out
}

// rules gives the policy to judge by.
func (a *Appraisal) rules(r Rules) (appraise.Policy, error) {
	if r.Text == "" {
		return a.policy(r.Name)
	}
	return appraise.Load(strings.NewReader(r.Text))
}

func (a *Appraisal) judge(r Rules, e enclave.Evidence, c claim.Claim, m Machine) enclave.AttestationResult {
	none := enclave.AttestationResult{Node: c.Node, Status: enclave.StatusNone}
	p, err := a.rules(r)
	if err != nil {
		return noRules(c.Node, err)
	}
	data, err := c.ReportData()
	if err != nil {
		none.Checks = []enclave.Check{{Name: "report_data", Result: enclave.CheckFail, Reason: err.Error()}}
		return none
	}
	want := appraise.Expectation{
		Node: c.Node, ReportData: data, Chip: m.Chip, ReportID: m.ReportID,
		Enrolment: c.Purpose == claim.PurposeEnrol && m == Machine{},
	}
	return appraise.Appraise(p, a.verify(e).SNPReport, want)
}

// verify takes the certificate from the evidence, or from the store when the host gave none.
func (a *Appraisal) verify(e enclave.Evidence) snp.Result {
	opt := snp.Options{Roots: a.roots, At: time.Now(), CRLs: a.shelf.current(), Memo: a.shelf.memo}
	chain, err := a.roots.ParseCertificates(e.Certificates)
	r := snp.Verify(e.Report, chain, opt)
	none := err == nil || errors.Is(err, snp.ErrNoCertificate) // a host may give the keys above it alone
	if !none || chain.Endorsement(r.Signer) != nil {
		return r
	}
	b, err := a.shelf.find(r.SNPReport)
	if err != nil {
		r.Unjudged = "the certificate store can't be read: " + err.Error()
	}
	if err != nil || b == nil {
		return r
	}
	chain, _ = a.roots.ParseCertificates(b) // Verify tells of the error
	return snp.Verify(e.Report, chain, opt)
}
