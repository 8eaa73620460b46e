package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

func (h Storehouse) showCommand() *cobra.Command {
	var roots, asJSON bool
	var store string
	c := command("show", "What the store holds, what is missing, and what ends soon", cobra.NoArgs)
	c.Long = `Show what the certificate store holds, what the enrolled nodes lack in it, and what ends within 30 days.

--roots shows AMD's keys that are built into this program; it needs no configuration. They are never
taken from evidence or from the store.

Exit status: 0 all there and good, 1 error, 2 usage, 4 enclaved does not say which chips there are,
5 not permitted, 6 a file of the store is of no use, 7 a certificate is missing.`
	c.RunE = func(c *cobra.Command, _ []string) error {
		if roots {
			return showRoots(c.OutOrStdout(), asJSON)
		}
		return h.show(c.Context(), configOf(c), store, c.OutOrStdout(), asJSON)
	}
	c.Flags().StringVar(&store, "store", "", "show this directory; no configuration is read and no enclaved asked")
	c.Flags().BoolVar(&roots, "roots", false, "show the keys that are trusted, with their SHA-256")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func showRoots(out io.Writer, asJSON bool) error {
	amd, err := snp.AMDRoots()
	if err != nil {
		return &ExitError{ExitFailure, err}
	}
	anchors := amd.Anchors()
	if asJSON {
		return printJSON(out, struct {
			Roots []enclave.Anchor `json:"roots"`
		}{anchors})
	}
	return printText(out, RootsScreen(anchors))
}

// RootsScreen is the built-in keys as text.
func RootsScreen(anchors []enclave.Anchor) string {
	var b strings.Builder
	w := table(&b)
	row(w, "KEY", "IS", "VALID UNTIL", "SHA-256 OF THE CERTIFICATE")
	for _, a := range anchors {
		is := "intermediate"
		if a.Root {
			is = "root"
		}
		row(w, a.Name, is, a.NotAfter.Format(time.DateOnly), a.SHA256.String())
	}
	_ = w.Flush() // a strings.Builder never fails
	return clean(b.String())
}

// showJSON is read by others: names don't change.
type showJSON struct {
	Store    string          `json:"store"`
	Files    []fileJSON      `json:"files"`
	Missing  []string        `json:"missing"`
	Warnings []certs.Warning `json:"warnings"`
	Notes    []string        `json:"notes"`
}

type fileJSON struct {
	Path      string     `json:"path"`
	Kind      certs.Kind `json:"kind"`
	Good      bool       `json:"good"`
	From      *time.Time `json:"from,omitempty"`
	Until     *time.Time `json:"until,omitempty"`
	Simulated bool       `json:"simulated"`
	Problem   string     `json:"problem,omitempty"`
}

func (h Storehouse) show(ctx context.Context, path, dir string, out io.Writer, asJSON bool) error {
	s, err := h.open(path, dir)
	if err != nil {
		return err
	}
	defer func() { _ = s.close() }() // only read
	now := h.Now()
	j := showJSON{Store: s.config.Certificates, Files: []fileJSON{}, Missing: []string{}, Notes: []string{}}
	j.Warnings = certs.Warnings(s.holding, now, certs.WarnAhead)
	var status error
	for _, f := range s.holding {
		j.Files = append(j.Files, fileOf(f, now))
		if f.Problem != nil {
			status = &ExitError{ExitInvalid, fmt.Errorf("certs show: %s: %w", f.Path, f.Problem)}
		}
	}
	var chips api.Chips
	var errChips error
	if dir == "" {
		chips, errChips = h.Chips(ctx, path)
	}
	var w wants
	for _, c := range chips.Chips {
		if c.Pending {
			w.note("%s asked to be enrolled and has no certificate: enclave certs sync --pending", printable(c.Node))
			continue
		}
		w.chip(c)
	}
	for _, t := range certs.Missing(w.needs, s.holding, now) {
		if t.Given != nil {
			w.note("%s is not in the store, its host hands it out", t)
			continue
		}
		j.Missing = append(j.Missing, t.String())
	}
	j.Notes = append(j.Notes, w.notes...)
	if status == nil && len(j.Missing) > 0 {
		status = &ExitError{ExitMissing, fmt.Errorf("certs show: %d certificates are missing: enclave certs sync", len(j.Missing))}
	}
	if errChips != nil {
		j.Notes = append(j.Notes, "which chips the site has is not known: "+errChips.Error())
		if status == nil {
			status = asked(errChips)
		}
	}
	if asJSON {
		return errors.Join(printJSON(out, j), status)
	}
	return errors.Join(printText(out, j.screen()), status)
}

func fileOf(h certs.Holding, now time.Time) fileJSON {
	f := fileJSON{Path: h.Path, Kind: h.Kind, Good: h.Good(now), Simulated: h.Simulated}
	if !h.Until.IsZero() {
		from, until := h.From.UTC(), h.Until.UTC()
		f.From, f.Until = &from, &until
	}
	if h.Problem != nil {
		f.Problem = h.Problem.Error()
	}
	return f
}

func (j showJSON) screen() string {
	var b strings.Builder
	fmt.Fprintf(&b, "store %s: %d files\n", j.Store, len(j.Files))
	w := table(&b)
	if len(j.Files) > 0 {
		row(w, "KIND", "GOOD", "UNTIL", "FILE")
	}
	for _, f := range j.Files {
		good, until := "yes", "-"
		if !f.Good {
			good = "NO"
		}
		if f.Simulated {
			good += " SIMULATED"
		}
		if f.Until != nil {
			until = f.Until.Format(time.DateOnly)
		}
		row(w, string(f.Kind), good, until, f.Path)
	}
	_ = w.Flush() // a strings.Builder never fails
	for _, m := range j.Missing {
		fmt.Fprintf(&b, "missing: %s\n", m)
	}
	for _, x := range j.Warnings {
		fmt.Fprintf(&b, "warning: %s %s\n", x.Path, x.Text)
	}
	for _, n := range j.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	return clean(b.String())
}
