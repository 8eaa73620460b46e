package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt/check"
)

type auditFlags struct {
	dir, head string
	keys      []string
	from      uint64
	json      bool
}

func (s screen) auditCommand() *cobra.Command {
	c := command("audit", "Check the chain of a cluster's receipts", cobra.NoArgs)
	c.RunE = func(*cobra.Command, []string) error { return &ExitError{ExitUsage, errors.New("audit: want verify")} }
	c.AddCommand(s.auditVerifyCommand())
	return c
}

func (s screen) auditVerifyCommand() *cobra.Command {
	f := auditFlags{}
	c := command("verify", "Find a receipt that was removed, changed or moved", cobra.NoArgs)
	c.Long = `Find a receipt that was removed, changed or moved, by signatures and by the digest of the receipt
before that each one holds. Operators ask enclaved; with --dir nobody is asked.

The last line is the head of the chain, SEQ:DIGEST. Note it somewhere else: given back with --head
later it shows whether the end of the chain was cut off or made anew, which nothing else can show.
What the receipts say of hardware is not checked here: enclave receipt verify does that.

Exit status: 0 good, 1 a file cannot be opened, 2 usage, 4 enclaved cannot be asked, 5 not an
operator, 6 the chain is broken.`
	c.RunE = func(c *cobra.Command, _ []string) error {
		chain, err := f.chain()
		if err != nil {
			return err
		}
		if f.dir != "" {
			err = walkDir(chain, f.dir)
		} else {
			err = s.walkLedger(c.Context(), chain, f.from)
		}
		if err != nil {
			return err
		}
		if f.json {
			err = printJSON(c.OutOrStdout(), auditDocument(chain))
		} else {
			err = printText(c.OutOrStdout(), AuditScreen(chain))
		}
		if err == nil && len(chain.Faults) != 0 {
			err = &ExitError{ExitInvalid, fmt.Errorf("audit verify: %d faults in the chain of receipts", len(chain.Faults))}
		}
		return err
	}
	c.Flags().StringVar(&f.dir, "dir", "", "read exported receipts from this directory, all of its files")
	c.Flags().StringVar(&f.head, "head", "", "a place of the chain that was noted before, SEQ:DIGEST")
	c.Flags().Uint64Var(&f.from, "from", 1, "begin with this receipt")
	c.Flags().StringArrayVar(&f.keys, "key", nil, "the centre's public key, PEM; may be given again (simulated receipts have another)")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return c
}

func (f auditFlags) chain() (*check.Chain, error) {
	keys, err := loadKeys(f.keys)
	if err != nil {
		return nil, err
	}
	if f.from == 0 {
		return nil, &ExitError{ExitUsage, errors.New("audit verify: --from: receipts are numbered from 1")}
	}
	if f.head == "" {
		return check.NewChain(f.from, keys, nil), nil
	}
	noted, err := check.ParsePlace(f.head)
	if err != nil {
		return nil, &ExitError{ExitUsage, fmt.Errorf("audit verify: --head: %w", err)}
	}
	return check.NewChain(f.from, keys, &noted), nil
}

// walkLedger asks for part after part. A chain that grows meanwhile is walked to its new end.
func (s screen) walkLedger(ctx context.Context, chain *check.Chain, from uint64) error {
	src, err := s.source(ctx)
	if err != nil {
		return err
	}
	for {
		part, err := src.Receipts(ctx, from)
		if err != nil {
			return asked(err)
		}
		if len(part.Receipts) == 0 {
			if chain.Count != 0 || part.Head != 0 {
				chain.End(&check.Place{Sequence: part.Head, Digest: part.Digest})
			} else {
				chain.End(nil)
			}
			return nil
		}
		for _, r := range part.Receipts {
			chain.Add(check.Link{
				Name: fmt.Sprintf("receipt %d of the ledger (job %s)", r.Sequence, r.Job.Directory()), File: r.File,
				Row: &check.Row{Job: r.Job, Sequence: r.Sequence, Digest: r.Digest, Previous: r.Previous},
			})
			if r.Sequence < from { // else a verifier could keep us here for ever
				return &ExitError{ExitInvalid, fmt.Errorf("audit verify: enclaved gave receipt %d where %d was asked for", r.Sequence, from)}
			}
			from = r.Sequence + 1
		}
	}
}

// walkDir takes files in the order of the numbers inside them; the names mean nothing.
func walkDir(chain *check.Chain, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return &ExitError{ExitFailure, err}
	}
	type exported struct {
		path     string
		sequence uint64
	}
	var list []exported
	for _, e := range entries {
		if !e.Type().IsRegular() && e.Type() != fs.ModeSymlink {
			continue
		}
		path := filepath.Join(dir, e.Name())
		b, err := readReceipt(path)
		if err != nil {
			return err
		}
		o, _ := receipt.Open(b) // Add tells of the error; such a file comes first
		list = append(list, exported{path, o.Statement.Predicate.Chain.Sequence})
	}
	if len(list) == 0 {
		return &ExitError{ExitFailure, fmt.Errorf("audit verify: there is no receipt in %s", dir)}
	}
	slices.SortStableFunc(list, func(a, b exported) int { return cmp.Compare(a.sequence, b.sequence) })
	for _, e := range list {
		b, err := readReceipt(e.path)
		if err != nil {
			return err
		}
		chain.Add(check.Link{Name: e.path, File: b})
	}
	chain.End(nil)
	return nil
}

// auditJSON is read by others: names don't change.
type auditJSON struct {
	Good      bool        `json:"good"`
	Receipts  int         `json:"receipts"`
	Simulated int         `json:"simulated"`
	Head      check.Place `json:"head"`
	Keys      []string    `json:"keys"`
	Faults    []string    `json:"faults"`
}

func auditDocument(c *check.Chain) auditJSON {
	return auditJSON{
		Good: len(c.Faults) == 0, Receipts: c.Count, Simulated: c.Simulated, Head: c.Head,
		Keys: append([]string{}, c.Keys...), Faults: append([]string{}, c.Faults...),
	}
}

// AuditScreen is the outcome of an audit as text, in printable ASCII.
func AuditScreen(c *check.Chain) string {
	var b strings.Builder
	result := "the chain is whole"
	if len(c.Faults) != 0 {
		result = fmt.Sprintf("BROKEN: %d faults", len(c.Faults))
	}
	fmt.Fprintf(&b, "%d receipts, %d of them simulated: %s\n", c.Count, c.Simulated, result)
	for _, f := range c.Faults {
		fmt.Fprintf(&b, "  - %s\n", printable(f))
	}
	for _, k := range c.Keys {
		fmt.Fprintf(&b, "key  %s\n", printable(k))
	}
	if c.Count != 0 {
		fmt.Fprintf(&b, "head %s\n", c.Head)
	}
	return clean(b.String())
}
