package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// certificateStore is where `enclave certs sync` puts what AMD's key server says.
const certificateStore = "/var/lib/slurm-enclave/certs"

// maxEvidence bounds a file that is read whole.
const maxEvidence = 1 << 20

// NewEvidenceCommand is `enclave evidence`: one report and its certificate, judged here and now
// against AMD's roots. A lab's roots are not taken, by any flag.
func NewEvidenceCommand(out, errOut io.Writer) *cobra.Command {
	return evidenceCommand(out, errOut, certificateStore)
}

func evidenceCommand(out, errOut io.Writer, store string) *cobra.Command {
	c := &cobra.Command{
		Use: "evidence", Short: "Read and verify an SEV-SNP attestation report",
		SilenceUsage: true, SilenceErrors: true, Args: usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return &ExitError{ExitUsage, errors.New("evidence: want show or verify")}
		},
	}
	c.SetOut(out)
	c.SetErr(errOut)
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &ExitError{ExitUsage, err} })
	c.AddCommand(showCommand(), verifyCommand(store))
	return c
}

// usage makes the status of a wrong number of arguments that of wrong usage.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return &ExitError{ExitUsage, fmt.Errorf("%w; usage: %s", err, c.UseLine())}
		}
		return nil
	}
}

func showCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "show FILE", Short: "Print the fields of a report, without verifying it",
		SilenceUsage: true, SilenceErrors: true, Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			report, err := readFile(args[0])
			if err != nil {
				return err
			}
			return show(c.OutOrStdout(), report, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// verifyFlags are the words of `evidence verify`.
type verifyFlags struct {
	report, cert, at string
	crls             []string
	json             bool
	store            string
}

func verifyCommand(store string) *cobra.Command {
	f := verifyFlags{store: store}
	c := &cobra.Command{
		Use: "verify --report FILE", Short: "Verify a report's signature and chain against AMD's roots",
		Long: `Verify a report's signature and chain against AMD's roots, offline.

The certificate (VCEK or VLEK: DER, PEM or the host's certificate table) comes from --cert, else
from the store. What the report says is not judged; enclave policy check does that. Revocation is
judged by the lists of --crl, and is unknown without.

Exit status: 0 valid, 1 a file cannot be opened, 2 usage, 4 no certificate is known, 6 invalid.`,
		SilenceUsage: true, SilenceErrors: true, Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.OutOrStdout()) },
	}
	c.Flags().StringVar(&f.report, "report", "", "the report, 1184 bytes")
	c.Flags().StringVar(&f.cert, "cert", "", "its VCEK or VLEK")
	c.Flags().StringArrayVar(&f.crls, "crl", nil, "a revocation list of the root, DER or PEM; may be repeated")
	c.Flags().StringVar(&f.at, "at", "", "judge validity at this time (RFC 3339), not now")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return c
}

func (f verifyFlags) run(out io.Writer) error {
	if f.report == "" {
		return &ExitError{ExitUsage, errors.New("evidence verify: --report is missing")}
	}
	opt := snp.Options{At: time.Now()}
	var err error
	if f.at != "" {
		if opt.At, err = time.Parse(time.RFC3339, f.at); err != nil {
			return &ExitError{ExitUsage, fmt.Errorf("evidence verify: --at: %w", err)}
		}
	}
	if opt.Roots, err = snp.AMDRoots(); err != nil {
		return &ExitError{ExitFailure, err}
	}
	if opt.CRLs, err = readLists(f.crls); err != nil {
		return err
	}
	report, err := readFile(f.report)
	if err != nil {
		return err
	}
	var chain snp.Chain
	if f.cert != "" {
		b, errCert := readFile(f.cert)
		if errCert != nil {
			return errCert
		}
		chain, _ = snp.ParseCertificates(b) // Verify names what is wrong with it
	}
	res := snp.Verify(report, chain, opt)
	if res.NoCertificate {
		if res, err = fromStore(f.store, report, res, opt); err != nil {
			return err
		}
	}
	if err := printVerdict(out, res, f.json); err != nil {
		return &ExitError{ExitFailure, err}
	}
	return verdict(res)
}

// readLists wants every list that was named: one that is left out would revoke nothing.
func readLists(names []string) ([]*x509.RevocationList, error) {
	var out []*x509.RevocationList
	for _, name := range names {
		b, err := readFile(name)
		if err != nil {
			return nil, err
		}
		l, err := snp.ParseCRL(b)
		if err != nil {
			return nil, &ExitError{ExitInvalid, fmt.Errorf("evidence verify: --crl %s: %w", name, err)}
		}
		out = append(out, l)
	}
	return out, nil
}

// fromStore tries what the store has. The store may be absent; one that can't be read is an error,
// or a report would be called unknown that is known.
func fromStore(dir string, report []byte, res snp.Result, opt snp.Options) (snp.Result, error) {
	store, err := certs.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return res, nil
	}
	var b []byte
	if err == nil {
		b, err = store.Find(certs.Candidates(res.SNPReport))
		err = errors.Join(err, store.Close())
	}
	if err != nil || b == nil {
		if err != nil {
			err = &ExitError{ExitFailure, err}
		}
		return res, err
	}
	chain, _ := snp.ParseCertificates(b) // as above
	return snp.Verify(report, chain, opt), nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path) // #nosec G304 -- the user's own argument, with the user's own rights
	if err != nil {
		return nil, &ExitError{ExitFailure, err}
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxEvidence+1))
	if err != nil {
		return nil, &ExitError{ExitFailure, err}
	}
	return b, nil // one that is longer is too long for every use, and Verify says so
}
