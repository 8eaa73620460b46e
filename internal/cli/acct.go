package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/acct"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Accounting reads Slurm's accounting with the caller's rights.
type Accounting interface {
	Records(ctx context.Context, w slurm.Want) ([]slurm.Record, error)
}

// acctFlags are what `enclave acct` is told.
type acctFlags struct {
	since      string
	accounts   []string
	partitions []string
	own        bool
	format     string
	asJSON     bool
}

// sinceDefault is how far back it goes unless it is told.
const sinceDefault = "7d"

// acctTimeout bounds the two questions: a quarter of a large site is some hundred thousand records.
const acctTimeout = 5 * time.Minute

// NewAcctCommand is `enclave acct`.
func NewAcctCommand(open Open, books Accounting, now func() time.Time) *cobra.Command {
	var f acctFlags
	c := command("acct", "Slurm's accounting and the ledger together: what each job had of its enclave", cobra.NoArgs)
	c.Long = `One line for each start of each job that sacct knows from --since on, with what enclaved's ledger has of it.
You see what you may see: your own jobs, those of accounts that you coordinate, as an operator all. A job
outside enclaves has the verdict none; a start that accounting has lost is there, too.`
	c.RunE = func(c *cobra.Command, _ []string) error {
		since, err := parseSince(f.since, now())
		if err == nil {
			err = checkNames(f)
		}
		if err != nil {
			return &ExitError{ExitUsage, err}
		}
		if f.asJSON {
			f.format = "json"
		}
		if !slices.Contains([]string{"table", "csv", "json"}, f.format) {
			return &ExitError{ExitUsage, fmt.Errorf("--format %q, want table, csv or json", printable(f.format))}
		}
		config := configOf(c)
		src, err := screen{open: open, config: &config}.source(c.Context())
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.Context(), acctTimeout)
		defer cancel()
		lines, err := joined(ctx, src, books, since, f)
		if err != nil {
			return err
		}
		switch f.format {
		case "csv":
			return printCSV(c.OutOrStdout(), lines)
		case "json":
			return printJSON(c.OutOrStdout(), AcctDocument(since, lines))
		}
		return printText(c.OutOrStdout(), AcctScreen(lines))
	}
	flags := c.Flags()
	flags.StringVar(&f.since, "since", sinceDefault, "from when on: 2026-07-01, 2026-07-01T12:00, or so long ago: 36h, 7d, 13w")
	flags.StringSliceVar(&f.accounts, "account", nil, "jobs of these accounts only")
	flags.StringSliceVar(&f.partitions, "partition", nil, "jobs of these partitions only")
	flags.BoolVar(&f.own, "own", false, "your own jobs only, where you may see others' too")
	flags.StringVar(&f.format, "format", "table", "table, csv or json")
	flags.BoolVar(&f.asJSON, "json", false, "the same as --format json")
	return c
}

// checkNames looks at the names of accounts and partitions before anybody is asked for them.
func checkNames(f acctFlags) error {
	for flag, list := range map[string][]string{"--account": f.accounts, "--partition": f.partitions} {
		for _, name := range list {
			if err := job.CheckWord(name); err != nil {
				return fmt.Errorf("%s %w", flag, err)
			}
		}
	}
	return nil
}

// parseSince reads a day or a time of this machine's clock, or a time ago. What is to come is nothing that has been.
func parseSince(s string, now time.Time) (time.Time, error) {
	for _, layout := range []string{"2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339} {
		t, err := time.ParseInLocation(layout, s, now.Location())
		if err == nil && t.After(now) {
			return time.Time{}, fmt.Errorf("--since %s is in the future", printable(s))
		}
		if err == nil {
			return t, nil
		}
	}
	units := map[string]time.Duration{"h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	if s != "" {
		n, err := strconv.ParseUint(s[:len(s)-1], 10, 16)
		if unit, ok := units[s[len(s)-1:]]; ok && err == nil {
			return now.Add(-time.Duration(n) * unit), nil
		}
	}
	return time.Time{}, fmt.Errorf("--since %q, want 2026-07-01, 2026-07-01T12:00, 36h, 7d or 13w", printable(s))
}

// joined asks who we are, then accounting, then the ledger from the first start on that accounting has told of.
func joined(ctx context.Context, src Source, books Accounting, since time.Time, f acctFlags) ([]acct.Line, error) {
	me, err := src.Me(ctx)
	if err != nil {
		return nil, asked(err)
	}
	want := slurm.Want{Since: since, Accounts: f.accounts, Partitions: f.partitions}
	if f.own || (!me.Operator && len(me.Accounts) == 0) {
		want.UID = &me.UID
		me = api.Me{UID: me.UID}
	}
	records, err := books.Records(ctx, want)
	if err != nil {
		return nil, &ExitError{ExitUnknown, fmt.Errorf("ask Slurm: %w", err)}
	}
	from := since
	for _, r := range records {
		if r.Start != nil && r.Start.Before(from) {
			from = *r.Start
		}
	}
	shares, err := allShares(ctx, src, from.Add(-acct.Slack))
	if err != nil {
		return nil, asked(err)
	}
	return acct.Join(me, records, shares, func(s api.Share) bool {
		return !s.Registered.Before(since) && (want.UID == nil || s.UID == *want.UID) &&
			(len(f.accounts) == 0 || slices.Contains(f.accounts, s.Account)) &&
			(len(f.partitions) == 0 || slices.Contains(f.partitions, s.Partition))
	}), nil
}

// allShares asks page by page. A page that does not go on is an error, not a loop.
func allShares(ctx context.Context, src Source, from time.Time) ([]api.Share, error) {
	var all []api.Share
	after := strconv.FormatInt(max(from.UnixMilli(), 0), 10)
	for {
		page, err := src.Shares(ctx, after)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Shares...)
		if page.More == "" {
			return all, nil
		}
		if len(page.Shares) == 0 || page.More == after {
			return nil, fmt.Errorf("enclaved's list does not go on after %s", strings.ToValidUTF8(after, "?"))
		}
		after = page.More
	}
}
