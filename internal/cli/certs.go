package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Storehouse is what `enclave certs` needs of the host that it runs on. All that takes a path
// reads the configuration file there, when a command needs it.
type Storehouse struct {
	Settings func(path string) (config.Controller, error)
	Roots    func(c config.Controller) (snp.Roots, error)
	Chips    func(ctx context.Context, path string) (api.Chips, error)
	Server   func(address string) (certs.Getter, error)
	Pause    func(ctx context.Context, d time.Duration) error
	Now      func() time.Time
	Terminal bool // progress may move the cursor
}

// NewCertsCommand is `enclave certs`.
func NewCertsCommand(h Storehouse) *cobra.Command {
	c := command("certs", "Fetch and show AMD's certificates and revocation lists", cobra.NoArgs)
	c.RunE = func(*cobra.Command, []string) error {
		return &ExitError{ExitUsage, errors.New("certs: want sync or show")}
	}
	c.AddCommand(h.syncCommand(), h.showCommand())
	return c
}

// shelf is the store, opened, with what it holds.
type shelf struct {
	config  config.Controller
	roots   snp.Roots
	store   *certs.Store // nil: there is none
	holding []certs.Holding
}

// open reads the configuration, unless a directory is named: then there is a store and no site.
func (h Storehouse) open(path, dir string) (shelf, error) {
	c := config.Default().Controller
	c.Certificates = dir
	if dir == "" {
		var err error
		if c, err = h.Settings(path); err != nil {
			return shelf{}, &ExitError{ExitFailure, fmt.Errorf("certs: %w", err)}
		}
	}
	roots, err := h.Roots(c)
	if err != nil {
		return shelf{}, &ExitError{ExitFailure, fmt.Errorf("certs: %w", err)}
	}
	s := shelf{config: c, roots: roots}
	s.store, err = certs.Open(c.Certificates)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		s.holding, err = certs.Survey(s.store, roots)
	}
	if err != nil {
		return s, noRight(err)
	}
	return s, nil
}

func (s shelf) close() error {
	if s.store == nil {
		return nil
	}
	return s.store.Close()
}

// noRight tells rights from other troubles.
func noRight(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &ExitError{ExitDenied, fmt.Errorf("certs: %w: run it as root, or as the user that enclaved runs as", err)}
	}
	return &ExitError{ExitFailure, fmt.Errorf("certs: %w", err)}
}

// wants are the chips that somebody will need a certificate for, and what to say of the others.
type wants struct {
	needs       []certs.Need
	authorities []certs.Authority
	notes       []string
}

func (w *wants) authority(product, signer string) {
	a := certs.Authority{Product: product, Signer: signer}
	if !slices.Contains(w.authorities, a) {
		w.authorities = append(w.authorities, a)
	}
}

func (w *wants) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

// chip takes a node's processor.
func (w *wants) chip(c api.Chip) {
	node := printable(c.Node)
	switch {
	case c.Product == "":
		w.note("%s: its evidence does not name its product", node)
		return
	case c.Signer == "VLEK":
		w.authority(c.Product, "VLEK")
		w.note("%s: signs with a VLEK, which AMD gives to its cloud only: the host must hand it out", node)
		return
	}
	w.authority(c.Product, "VCEK")
	if c.ChipID == (enclave.ChipID{}) {
		w.note("%s: its CHIP_ID is masked: the host must hand out its certificate", node)
		return
	}
	w.needs = append(w.needs, certs.Need{Key: certs.Key{Product: c.Product, Chip: c.ChipID, TCB: c.TCB}, Node: node, Given: c.Certificate})
}

// report takes a report from a file, for a node that is not enrolled yet.
func (w *wants) report(name string, b []byte, product string) error {
	r := snp.Verify(b, snp.Chain{}, snp.Options{}).SNPReport // for its fields: it trusts nobody
	if r.Version == 0 {
		return &ExitError{ExitInvalid, fmt.Errorf("certs sync: %s is no report of a version known here", name)}
	}
	if r.Product == "" {
		if product == "" {
			return &ExitError{ExitUsage, fmt.Errorf("certs sync: %s, of version %d, does not name its product: say --product milan or genoa", name, r.Version)}
		}
		r.Product = product
	}
	w.chip(api.Chip{Node: name, Product: r.Product, ChipID: r.ChipID, TCB: r.ReportedTCB, Signer: r.Signer})
	return nil
}
