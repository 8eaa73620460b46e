package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// checkFlags are the words of `policy check`.
type checkFlags struct {
	judgeFlags
	report, cert string
	strict, json bool
}

// CheckedPolicy is one file of `policy check --json`.
type CheckedPolicy struct {
	File     string                     `json:"file"`
	Valid    bool                       `json:"valid"`
	Error    string                     `json:"error,omitempty"`
	Name     string                     `json:"name,omitempty"`
	Digest   string                     `json:"digest,omitempty"` // SHA-256 of the file
	Findings []appraise.Finding         `json:"findings"`
	Evidence *enclave.AttestationResult `json:"evidence,omitempty"` // of --report under this policy
}

func policyCheckCommand(store string) *cobra.Command {
	f := checkFlags{judgeFlags: judgeFlags{store: store}}
	c := command("check FILE...", "Read policies as enclaved does, and say what is wrong or weak", cobra.MinimumNArgs(1))
	c.Long = `Read policies as enclaved does, and say what is wrong or weak.

With --report a report is judged by each policy, apart from the question that it was made for.

Exit status: 0 all policies can be used, 1 one can't, 2 usage, 3 the report is below a policy, or
with --strict there are warnings, 4 no certificate of the report is known, 6 it is not genuine.`
	c.RunE = func(c *cobra.Command, args []string) error { return f.run(c.OutOrStdout(), args) }
	c.Flags().StringVar(&f.report, "report", "", "a report to judge, 1184 bytes")
	c.Flags().StringVar(&f.cert, "cert", "", "its VCEK or VLEK")
	c.Flags().BoolVar(&f.strict, "strict", false, "warnings are a failure, too")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	f.add(c)
	return c
}

func (f checkFlags) run(out io.Writer, files []string) error {
	if f.cert != "" && f.report == "" {
		return &ExitError{ExitUsage, errors.New("policy check: --cert without --report")}
	}
	var evidence *snp.Result
	if f.report != "" {
		j, err := f.judge()
		if err != nil {
			return err
		}
		res, err := j.file(f.report, f.cert)
		if err != nil {
			return err
		}
		evidence = &res
	}
	list := make([]CheckedPolicy, 0, len(files))
	for _, name := range files {
		list = append(list, checkPolicy(name, evidence))
	}
	var err error
	if f.json {
		err = printJSON(out, list)
	} else {
		err = printText(out, PolicyCheckScreen(list))
	}
	if err != nil {
		return err
	}
	return f.verdict(list, evidence)
}

func checkPolicy(file string, evidence *snp.Result) CheckedPolicy {
	c := CheckedPolicy{File: file, Findings: []appraise.Finding{}}
	p, err := loadPolicy(file)
	if err != nil {
		c.Error = err.Error()
		return c
	}
	c.Valid, c.Name, c.Digest = true, p.Name(), p.Digest().String()
	if filepath.Base(file) != p.Name()+".yaml" {
		c.Findings = append(c.Findings, appraise.Finding{Key: "name", Text: "enclaved reads policy " + p.Name() + " from " + p.Name() + ".yaml only"})
	}
	c.Findings = append(c.Findings, appraise.Review(p)...)
	if evidence != nil {
		r := appraise.Standing(p, "", evidence.SNPReport)
		c.Evidence = &r
	}
	return c
}

func (f checkFlags) verdict(list []CheckedPolicy, evidence *snp.Result) error {
	below, warned := "", ""
	for _, c := range list {
		switch {
		case !c.Valid:
			return &ExitError{ExitFailure, errors.New(c.Error)}
		case c.Evidence != nil && c.Evidence.Status != enclave.StatusAffirming:
			below = c.Name
		case len(c.Findings) != 0:
			warned = c.Name
		}
	}
	if evidence != nil {
		if err := invalid(f.report, *evidence); err != nil {
			return err
		}
	}
	if below != "" {
		return &ExitError{ExitBelow, fmt.Errorf("policy check: %s is below policy %s", f.report, below)}
	}
	if warned != "" && f.strict {
		return &ExitError{ExitBelow, fmt.Errorf("policy check: there are warnings on policy %s", warned)}
	}
	return nil
}

// PolicyCheckScreen is the answer as text.
func PolicyCheckScreen(list []CheckedPolicy) string {
	var b strings.Builder
	for _, c := range list {
		if !c.Valid {
			fmt.Fprintf(&b, "%s: can't be used\n", printable(c.File))
			indented(&b, "FAIL", strings.Split(strings.TrimPrefix(c.Error, c.File+": "), "\n"))
			continue
		}
		fmt.Fprintf(&b, "%s: policy %s, sha256 %s\n", printable(c.File), printable(c.Name), c.Digest)
		for _, w := range c.Findings {
			indented(&b, "WARN", []string{w.Key + ": " + w.Text})
		}
		switch e := c.Evidence; {
		case e == nil:
		case e.Status == enclave.StatusAffirming && e.Simulated:
			b.WriteString("  SIMULATED evidence, affirmed: it proves nothing about hardware\n")
		case e.Status == enclave.StatusAffirming && e.Weak:
			b.WriteString("  WEAK: the report is affirmed, and its reference value does not cover the root file system\n")
		case e.Status == enclave.StatusAffirming:
			b.WriteString("  the report is affirmed\n")
		default:
			b.WriteString("  the report is refused\n")
			indented(&b, "FAIL", failures(*e))
		}
	}
	return clean(b.String())
}
