package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/certs"
)

// syncFlags are the words of `certs sync`.
type syncFlags struct {
	server  string
	store   string
	reports []string
	product []string
	pending bool
	json    bool
}

func (h Storehouse) syncCommand() *cobra.Command {
	var f syncFlags
	c := command("sync", "Fetch what the site's chips need and the store does not have", cobra.NoArgs)
	c.Long = `Fetch certificates, chains and revocation lists for the enrolled nodes from AMD's key server or a mirror.

What is there and valid is not asked for again, so a sync that was broken off goes on. What comes
back is verified before it is stored. Run it on the controller, as root or the user of enclaved.

Exit status: 0 all there, 1 error, 2 usage, 4 the server or enclaved gives no answer, 5 not permitted,
6 something came back that is not what was asked for, 7 the server does not have something.`
	c.RunE = func(c *cobra.Command, _ []string) error { return h.sync(c.Context(), configOf(c), c.OutOrStdout(), f) }
	c.Flags().StringVar(&f.store, "store", "", "fill this directory; no configuration is read and no enclaved asked")
	c.Flags().StringVar(&f.server, "kds", "", "ask this server, not controller.kds.url")
	c.Flags().StringArrayVar(&f.reports, "report", nil, "fetch for the chip of this report, too; may be repeated")
	c.Flags().StringArrayVar(&f.product, "product", nil, "fetch list and chain of milan, genoa or turin, too; may be repeated")
	c.Flags().BoolVar(&f.pending, "pending", false, "fetch for nodes that could not be enrolled without a certificate, too")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return c
}

// syncJSON is read by others: names don't change.
type syncJSON struct {
	Fetched int      `json:"fetched"`
	Taken   int      `json:"taken"` // as the nodes' own hosts gave them
	Present int      `json:"present"`
	Failed  []string `json:"failed"`
	Notes   []string `json:"notes"`
}

func (h Storehouse) sync(ctx context.Context, path string, out io.Writer, f syncFlags) error {
	s, err := h.open(path, f.store)
	if err != nil {
		return err
	}
	defer func() { _ = s.close() }() // every file was synced on its own
	w, err := h.wants(ctx, path, f)
	if err != nil {
		return err
	}
	if s.store == nil {
		if s.store, err = makeStore(s.config.Certificates); err != nil {
			return err
		}
	}
	tasks := certs.Plan(w.needs, w.authorities, s.holding, h.Now())
	getter, tasks, unasked, err := h.server(f, s, tasks)
	if err != nil {
		return err
	}
	tell := h.progress(out)
	if f.json {
		tell = func(certs.Event) {}
	}
	syncer := certs.Syncer{Store: s.store, Judge: s.roots, Getter: getter, Interval: s.config.KDS.Interval(), Pause: h.Pause, Now: h.Now, Tell: tell}
	r := syncer.Sync(ctx, tasks)
	if unasked > 0 {
		r.Failed = append(r.Failed, fmt.Errorf("%w: %d files are missing and no server is configured: set controller.kds.url, or say --kds %s", certs.ErrAway, unasked, certs.AMD))
	}
	j := syncJSON{Fetched: r.Fetched, Taken: r.Taken, Present: len(s.holding), Failed: []string{}, Notes: append([]string{}, w.notes...)}
	for _, err := range r.Failed {
		j.Failed = append(j.Failed, err.Error())
	}
	if f.json {
		err = printJSON(out, j)
	} else {
		err = printText(out, clean(SyncScreen(j.Fetched, j.Taken, len(r.Failed), w.notes)))
	}
	return errors.Join(err, synced(r))
}

// SyncScreen is the end of a sync as text.
func SyncScreen(fetched, taken, failed int, notes []string) string {
	var b strings.Builder
	for _, n := range notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	fmt.Fprintf(&b, "%d fetched, %d as the nodes' hosts gave them, %d failed\n", fetched, taken, failed)
	return b.String()
}

// synced is the exit status: the worst of what happened.
func synced(r certs.Result) error {
	err := errors.Join(r.Failed...)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, certs.ErrWrong):
		return &ExitError{ExitInvalid, err}
	case errors.Is(err, os.ErrPermission):
		return noRight(err)
	case errors.Is(err, certs.ErrAway), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &ExitError{ExitUnknown, err}
	case errors.Is(err, certs.ErrMissing):
		return &ExitError{ExitMissing, err}
	}
	return &ExitError{ExitFailure, err}
}

// wants asks enclaved. It may be away where the command line says what to fetch.
func (h Storehouse) wants(ctx context.Context, path string, f syncFlags) (w wants, err error) {
	for _, p := range f.product {
		if !slices.Contains([]string{"milan", "genoa", "turin"}, p) {
			return w, &ExitError{ExitUsage, fmt.Errorf("certs sync: --product %q: want milan, genoa or turin", p)}
		}
		w.authority(p, "VCEK")
	}
	named := ""
	if len(f.product) == 1 {
		named = f.product[0]
	}
	for _, name := range f.reports {
		b, errFile := readFile(name)
		if errFile != nil {
			return w, errFile
		}
		if err = w.report(filepath.Base(name), b, named); err != nil {
			return w, err
		}
	}
	if f.store != "" {
		return w, nil
	}
	chips, err := h.Chips(ctx, path)
	if err != nil {
		err = asked(err)
		if len(f.reports)+len(f.product) == 0 || exitCode(err) == ExitDenied {
			return w, err
		}
		w.note("the enrolled nodes are left out: %v", err)
		return w, nil
	}
	for _, c := range chips.Chips {
		if c.Pending && !f.pending {
			w.note("%s asked to be enrolled and has no certificate for chip %s: --pending fetches it", printable(c.Node), c.ChipID)
			continue
		}
		w.chip(c)
	}
	if len(w.needs)+len(w.authorities)+len(w.notes) == 0 {
		w.note("no node is enrolled: nothing to fetch (--report FILE, --product NAME)")
	}
	return w, nil
}

func exitCode(err error) int {
	if exit, ok := errors.AsType[*ExitError](err); ok {
		return exit.Code
	}
	return ExitFailure
}

// server finds who is asked. Without one only what the hosts gave can be stored.
func (h Storehouse) server(f syncFlags, s shelf, tasks []certs.Task) (g certs.Getter, do []certs.Task, unasked int, err error) {
	address := f.server
	if address == "" {
		address = s.config.KDS.URL
	}
	if address == "" {
		do = slices.DeleteFunc(slices.Clone(tasks), func(t certs.Task) bool { return t.Given == nil })
		return nil, do, len(tasks) - len(do), nil
	}
	g, err = h.Server(address)
	if err != nil {
		return nil, nil, 0, &ExitError{ExitUsage, err}
	}
	return g, tasks, 0, nil
}

func makeStore(dir string) (*certs.Store, error) {
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		var s *certs.Store
		if s, err = certs.Open(dir); err == nil {
			return s, nil
		}
	}
	return nil, noRight(err)
}

// barWidth is that of the progress bar on a terminal.
const barWidth = 24

// progress writes a bar that moves on a terminal, and a line for each file elsewhere.
func (h Storehouse) progress(out io.Writer) func(certs.Event) {
	line := func(format string, args ...any) {
		_, _ = io.WriteString(out, clean(fmt.Sprintf(format, args...))) // people's comfort only
	}
	if !h.Terminal {
		return func(e certs.Event) {
			switch e.Step {
			case certs.Waiting:
				line("%s: %v, again in %s\n", e.Task, e.Err, e.Wait)
			case certs.Stored:
				line("%d of %d: %s, %s\n", e.Done, e.All, e.Task.Path, e.Task)
			case certs.Failed:
				line("%d of %d: failed: %v\n", e.Done, e.All, e.Err)
			}
		}
	}
	return func(e certs.Event) {
		full := barWidth * e.Done / max(e.All, 1)
		_, _ = io.WriteString(out, "\r\x1b[K") // our own; nothing of the server's passes clean
		line("[%s%s] %d of %d  %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), e.Done, e.All, e.Task)
		switch {
		case e.Step == certs.Waiting:
			line(", again in %s", e.Wait)
		case e.Step == certs.Failed:
			line("\nfailed: %v\n", e.Err)
		case e.Done == e.All:
			line("\n")
		}
	}
}
