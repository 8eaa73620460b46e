package cli

import (
	"bytes"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt/check"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

type receiptFlags struct {
	roots, policy  string
	keys           []string
	allowSimulated bool
	json           bool
}

func receiptVerifyCommand() *cobra.Command {
	var f receiptFlags
	c := command("verify FILE", "Check a receipt again, offline, from AMD's roots", cobra.ExactArgs(1))
	c.Long = `Check a receipt again, offline: no network, no configuration, nobody is asked.

Level 1 is the centre's signature. Without --key its key is taken from the receipt itself, and is
said to be unpinned: anybody could have made it. Level 2 is derived again: chain and signature of
every report from AMD's roots, REPORT_DATA from the claim, the rosters' roots from their leaves, the
appraisal from the policy's text. Every line says who vouches for it. Lines with "says" are not
checked: they are somebody's word.

Exit status: 0 good, 1 a file cannot be opened, 2 usage, 3 simulated without --allow-simulated, 6 a
check is bad.`
	c.RunE = func(c *cobra.Command, args []string) error {
		file, err := readReceipt(args[0])
		if err != nil {
			return err
		}
		opt, err := f.options()
		if err != nil {
			return err
		}
		r := check.Check(file, opt)
		if f.json {
			err = printJSON(c.OutOrStdout(), receiptDocument(r))
		} else {
			err = printText(c.OutOrStdout(), ReceiptScreen(r))
		}
		if err != nil {
			return err
		}
		return f.status(r)
	}
	c.Flags().StringVar(&f.roots, "roots", "", "trust the roots in this directory of PEM files, not the pinned ones")
	c.Flags().StringVar(&f.policy, "policy", "", "judge by this policy, not by the receipt's own")
	c.Flags().StringArrayVar(&f.keys, "key", nil, "the centre's public key, PEM; may be given again")
	c.Flags().BoolVar(&f.allowSimulated, "allow-simulated", false, "status 0 for a simulated receipt whose checks are good")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return c
}

func (f receiptFlags) options() (check.Options, error) {
	var opt check.Options
	var err error
	if opt.Keys, err = loadKeys(f.keys); err != nil {
		return opt, err
	}
	if opt.Roots, err = snp.AMDRoots(); err != nil {
		return opt, &ExitError{ExitFailure, err}
	}
	if f.roots != "" {
		opt.Own = true
		if opt.Roots, err = loadRoots(f.roots); err != nil {
			return opt, err
		}
	}
	if f.policy == "" {
		return opt, nil
	}
	b, err := readFile(f.policy)
	if err != nil {
		return opt, err
	}
	p, err := appraise.Load(bytes.NewReader(b))
	if err != nil {
		return opt, &ExitError{ExitFailure, fmt.Errorf("%s: %w", f.policy, err)}
	}
	opt.Policy = &p
	return opt, nil
}

// loadRoots reads every PEM file of a directory: an intermediate and its root each, as AMD's
// cert_chain files hold them.
func loadRoots(dir string) (snp.Roots, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil || len(names) == 0 {
		return snp.Roots{}, &ExitError{ExitFailure, fmt.Errorf("read roots: there is no PEM file in %s", dir)}
	}
	var bundles [][]byte
	for _, n := range names {
		b, bad := readFile(n)
		if bad != nil {
			return snp.Roots{}, bad
		}
		bundles = append(bundles, b)
	}
	roots, err := snp.SiteRoots(bundles...)
	if err != nil {
		return roots, &ExitError{ExitFailure, fmt.Errorf("%s: %w", dir, err)}
	}
	return roots, nil
}

// status: a bad check counts before everything else.
func (f receiptFlags) status(r check.Report) error {
	switch {
	case !r.Good():
		return &ExitError{ExitInvalid, fmt.Errorf("receipt verify: %d of %d lines are bad", r.Faults(), len(r.Lines))}
	case r.Simulated() && !f.allowSimulated:
		return &ExitError{ExitBelow, fmt.Errorf("receipt verify: the receipt is simulated; --allow-simulated takes it")}
	}
	return nil
}
