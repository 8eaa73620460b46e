package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// simulatedRoots is where a lab keeps the test roots that its enclaved believes.
const simulatedRoots = "/etc/slurm-enclave/simulated-roots"

// policyCommand is `enclave policy`: drafts, reviews and compares policies. It changes nothing:
// what is in force is enclaved's files.
func (s screen) policyCommand(store string) *cobra.Command {
	c := command("policy", "Learn, check and compare appraisal policies", cobra.NoArgs)
	c.RunE = func(*cobra.Command, []string) error {
		return &ExitError{ExitUsage, errors.New("policy: want learn, check or diff")}
	}
	c.AddCommand(s.learnCommand(store), policyCheckCommand(store), s.diffCommand(store))
	return c
}

// judgeFlags say how evidence is verified here. What enclaved said of it is not taken for it.
type judgeFlags struct {
	simulated bool
	roots, at string
	store     string
}

func (f *judgeFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.simulated, "allow-simulated", false, "take a lab's evidence, too")
	c.Flags().StringVar(&f.roots, "simulated-roots", simulatedRoots, "directory of the lab's test roots (*.pem), for --allow-simulated")
	c.Flags().StringVar(&f.at, "at", "", "judge validity at this time (RFC 3339), not now")
}

// judge verifies evidence against AMD's roots, and a lab's where that is allowed.
type judge struct {
	opt   snp.Options
	store string
}

func (f judgeFlags) judge() (judge, error) {
	j := judge{opt: snp.Options{At: time.Now()}, store: f.store}
	var err error
	if f.at != "" {
		if j.opt.At, err = time.Parse(time.RFC3339, f.at); err != nil {
			return j, &ExitError{ExitUsage, fmt.Errorf("--at: %w", err)}
		}
	}
	if j.opt.Roots, err = snp.AMDRoots(); err != nil {
		return j, err
	}
	if f.simulated {
		if err = j.join(f.roots); err != nil {
			return j, err
		}
	}
	j.opt.CRLs, err = storedCRLs(f.store)
	return j, err
}

func (j *judge) join(dir string) error {
	var bundles [][]byte
	names, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	for _, n := range names {
		b, bad := readFile(n)
		if bad != nil {
			return bad
		}
		bundles = append(bundles, b)
	}
	if err == nil && len(bundles) == 0 {
		err = fmt.Errorf("no *.pem in %s", dir)
	}
	if err != nil {
		return fmt.Errorf("read simulated roots: %w", err)
	}
	test, err := snp.TestRoots(bundles...)
	if err != nil {
		return fmt.Errorf("read simulated roots from %s: %w", dir, err)
	}
	j.opt.Roots = snp.Join(j.opt.Roots, test)
	return nil
}

// storedCRLs are the revocation lists that enclaved uses, too.
func storedCRLs(store string) ([]*x509.RevocationList, error) {
	names, err := filepath.Glob(filepath.Join(store, "*.crl"))
	if err != nil {
		return nil, err
	}
	var out []*x509.RevocationList
	for _, n := range names {
		b, err := readFile(n)
		if err != nil {
			return nil, err
		}
		l, err := snp.ParseCRL(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// verify takes the certificate that came with the report, else the store's.
func (j judge) verify(report, certificates []byte) (snp.Result, error) {
	chain, _ := snp.ParseCertificates(certificates) // Verify names what is wrong with it
	res := snp.Verify(report, chain, j.opt)
	if !res.NoCertificate {
		return res, nil
	}
	return fromStore(j.store, report, res, j.opt)
}

// file verifies a report from a file, and its certificate's file unless that is "".
func (j judge) file(report, cert string) (snp.Result, error) {
	r, err := readFile(report)
	if err != nil {
		return snp.Result{}, err
	}
	var c []byte
	if cert != "" {
		if c, err = readFile(cert); err != nil {
			return snp.Result{}, err
		}
	}
	return j.verify(r, c)
}

// loadPolicy reads one file. Its error names file, line and the nearest key there is.
func loadPolicy(path string) (appraise.Policy, error) {
	f, err := os.Open(path) // #nosec G304 -- the user's own argument, with the user's own rights
	if err != nil {
		return appraise.Policy{}, err
	}
	defer func() { _ = f.Close() }() // only read
	p, err := appraise.Load(f)
	if err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// failures are the checks that did not pass, each a line.
func failures(r enclave.AttestationResult) []string {
	var out []string
	for _, c := range r.Checks {
		if c.Result != enclave.CheckPass {
			out = append(out, fmt.Sprintf("%s %s: %s", appraise.CodeOf(c.Name), c.Name, c.Reason))
		}
	}
	return out
}

// invalid is the error of evidence that can't be judged by any policy, nil for genuine evidence.
func invalid(what string, res snp.Result) error {
	switch {
	case res.Genuine:
		return nil
	case res.NoCertificate:
		return &ExitError{ExitUnknown, fmt.Errorf("%s: no certificate of the %s is known", what, res.Signer)}
	}
	for _, c := range res.Checks {
		if c.Result == enclave.CheckFail {
			return &ExitError{ExitInvalid, fmt.Errorf("%s: check %s: %s", what, c.Name, c.Reason)}
		}
	}
	return &ExitError{ExitInvalid, fmt.Errorf("%s: not genuine", what)}
}

// indented prints lines below a heading.
func indented(b *strings.Builder, label string, lines []string) {
	for _, l := range lines {
		fmt.Fprintf(b, "  %s %s\n", label, printable(l))
	}
}
