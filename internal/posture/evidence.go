package posture

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// attester asks for one report and judges it.
func (m Machine) attester(ctx context.Context, c config.Controller) ladder.Attester {
	ctx, cancel := context.WithTimeout(ctx, firmware)
	defer cancel()
	var data [64]byte
	if _, err := rand.Read(data[:]); err != nil {
		return unmade(err)
	}
	evidence, err := m.Attest(ctx, data)
	if err != nil {
		return unmade(err)
	}
	return Judge(evidence, data, c, time.Now())
}

func unmade(err error) ladder.Attester {
	r, ok := enclave.AsRefusal(err)
	if !ok {
		r = &enclave.Refusal{Code: "E227", Fault: enclave.FaultNode, Reason: err.Error(), Fix: "look for sev-guest in the kernel log of this node"}
	}
	return ladder.Attester{Refusal: r}
}

// Judge says what evidence over data is worth, by the files that c names. A lab's roots are
// believed only where c allows them, and the verdict is then simulated. The chip is not
// compared: which one is enrolled is known to the verifier alone.
func Judge(evidence enclave.Evidence, data [64]byte, c config.Controller, at time.Time) ladder.Attester {
	a := ladder.Attester{Made: true}
	opt, err := options(c, at)
	if err != nil {
		a.Appraisal.Error = err.Error()
	}
	report := verify(evidence, c.Certificates, opt)
	a.Verdict = verdict(report, data)
	if a.Appraisal.Error != "" || !a.Verdict.Genuine {
		return a
	}
	a.Appraisal = appraisal(report.SNPReport, data, c)
	return a
}

// options are AMD's roots, with an error where a lab's or the revocation lists could not be had.
func options(c config.Controller, at time.Time) (snp.Options, error) {
	roots, err := snp.AMDRoots()
	opt := snp.Options{Roots: roots, At: at}
	if err != nil {
		return opt, err
	}
	if c.AllowSimulated {
		if opt.Roots, err = joined(roots, c.SimulatedRoots); err != nil {
			return snp.Options{Roots: roots, At: at}, fmt.Errorf("load simulated roots from %s: %w", c.SimulatedRoots, err)
		}
	}
	opt.CRLs, err = lists(c.Certificates)
	return opt, err
}

func joined(roots snp.Roots, dir string) (snp.Roots, error) {
	bundles, err := files(dir, "*.pem")
	if err != nil {
		return snp.Roots{}, err
	}
	test, err := snp.TestRoots(bundles...)
	return snp.Join(roots, test), err
}

func lists(dir string) ([]*x509.RevocationList, error) {
	all, err := files(dir, "*.crl")
	if err != nil {
		return nil, err
	}
	var out []*x509.RevocationList
	for _, b := range all {
		crl, err := snp.ParseCRL(b)
		if err != nil {
			return nil, fmt.Errorf("load revocation lists of %s: %w", dir, err)
		}
		out = append(out, crl)
	}
	return out, nil
}

func files(dir, pattern string) ([][]byte, error) {
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

// verify takes the certificate that came with the report, or the stored one when none did.
func verify(e enclave.Evidence, store string, opt snp.Options) snp.Result {
	chain, _ := snp.ParseCertificates(e.Certificates) // Verify names what is wrong with it
	result := snp.Verify(e.Report, chain, opt)
	if !result.NoCertificate {
		return result
	}
	shelf, err := certs.Open(store)
	if err != nil {
		return result
	}
	defer func() { _ = shelf.Close() }() // only read
	if b, err := shelf.Find(certs.Candidates(result.SNPReport)); err == nil && b != nil {
		chain, _ = snp.ParseCertificates(b) // as above
		return snp.Verify(e.Report, chain, opt)
	}
	return result
}

func verdict(r snp.Result, data [64]byte) *ladder.Verdict {
	v := &ladder.Verdict{
		Genuine: r.Genuine, Simulated: r.Simulated, NoCertificate: r.NoCertificate, Bound: r.Version != 0 && r.ReportData == data,
		Part: r.Part, Version: r.Version, Signer: r.Signer, VMPL: r.VMPL, TCB: r.ReportedTCB.String(),
	}
	for _, c := range r.Checks {
		if c.Result == enclave.CheckFail {
			v.Failed = append(v.Failed, c)
		}
	}
	return v
}

// appraisal is by the policy of tenants that name none, which is the one that every site has.
func appraisal(r enclave.SNPReport, data [64]byte, c config.Controller) ladder.Appraisal {
	path := filepath.Join(c.Policies, c.Policy+".yaml")
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ladder.Appraisal{}
	}
	if err != nil {
		return ladder.Appraisal{Error: err.Error()}
	}
	defer func() { _ = f.Close() }() // only read
	policy, err := appraise.Load(f)
	if err != nil {
		return ladder.Appraisal{Error: path + ": " + err.Error()}
	}
	result := appraise.Appraise(policy, r, appraise.Expectation{ReportData: data, Enrolment: true})
	a := ladder.Appraisal{Policy: policy.Name(), Affirms: result.Status == enclave.StatusAffirming, Weak: result.Weak}
	for _, check := range result.Checks {
		if check.Result == enclave.CheckFail {
			a.Failed = append(a.Failed, ladder.Failed{Check: check, Code: appraise.CodeOf(check.Name)})
		}
	}
	return a
}
