package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/nodemap"
)

// Tree finds directories of a mounted Lustre file system.
type Tree interface {
	// FID is the FID of the directory at the path beneath the mount of the whole file system.
	FID(mount, subtree string) (enclave.FID, error)
}

// Estate is what the site's files say of tenants and nodes.
type Estate struct {
	Tenants []enclave.Tenant
	Nodes   []enclave.Node
}

// NewStorageCommand is `enclave storage`. Estate reads the files that the configuration names.
func NewStorageCommand(tree Tree, estate func(config string) (Estate, error)) *cobra.Command {
	c := command("storage", "Register tenants' directories of Lustre, and hold the servers to them", cobra.NoArgs)
	c.RunE = func(*cobra.Command, []string) error {
		return &ExitError{ExitUsage, errors.New("want register or nodemap")}
	}
	s := storage{tree, estate}
	c.AddCommand(s.register(), s.nodemap())
	return c
}

type storage struct {
	tree   Tree
	estate func(config string) (Estate, error)
}

func (s storage) tenant(config, name string) (Estate, enclave.Tenant, error) {
	e, err := s.estate(config)
	if err != nil {
		return e, enclave.Tenant{}, &ExitError{ExitUnknown, err}
	}
	i := slices.IndexFunc(e.Tenants, func(t enclave.Tenant) bool { return t.Name == name })
	if i < 0 {
		return e, enclave.Tenant{}, &ExitError{ExitMissing, fmt.Errorf("tenants.yaml has no tenant %s", name)}
	}
	return e, e.Tenants[i], nil
}

type registration struct {
	Tenant     string      `json:"tenant"`
	Subtree    string      `json:"subtree"`
	RootFID    enclave.FID `json:"root_fid"`
	Registered enclave.FID `json:"registered"`
	Same       bool        `json:"same"`
}

func (s storage) register() *cobra.Command {
	var mount string
	var asJSON bool
	c := command("register TENANT", "Print the line of tenants.yaml that pins a tenant's directory, or say that it stands", cobra.ExactArgs(1))
	c.RunE = func(c *cobra.Command, args []string) error {
		_, t, err := s.tenant(configOf(c), args[0])
		if err != nil {
			return err
		}
		if mount == "" {
			return &ExitError{ExitUsage, errors.New("want --mount, where the whole file system is mounted on this host")}
		}
		fid, err := s.tree.FID(mount, t.Subtree)
		if err != nil {
			return &ExitError{ExitUnknown, err}
		}
		if fid == enclave.RootFID() {
			return &ExitError{ExitBelow, fmt.Errorf("%s of %s is the whole file system", t.Subtree, mount)}
		}
		r := registration{t.Name, t.Subtree, fid, t.RootFID, fid == t.RootFID}
		if asJSON {
			err = printJSON(c.OutOrStdout(), r)
		} else {
			err = r.print(c.OutOrStdout())
		}
		if err == nil && !r.Same {
			return &ExitError{Code: ExitBelow}
		}
		return err
	}
	c.Flags().StringVar(&mount, "mount", "", "where the whole file system is mounted on this host")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (r registration) print(out io.Writer) error {
	var err error
	switch {
	case r.Same:
		_, err = fmt.Fprintf(out, "%s: %s is registered as %s\n", r.Tenant, r.Subtree, r.RootFID)
	case r.Registered == enclave.FID{}:
		_, err = fmt.Fprintf(out, "%s: %s is not registered. In tenants.yaml, beside its subtree:\n    root_fid: %q\n", r.Tenant, r.Subtree, r.RootFID)
	default:
		_, err = fmt.Fprintf(out, "%s: %s is registered as %s and is another directory now. If that is meant, in tenants.yaml:\n    root_fid: %q\n",
			r.Tenant, r.Subtree, r.Registered, r.RootFID)
	}
	return err
}

func (s storage) nodemap() *cobra.Command {
	var network, check string
	var nodes, ids []string
	var offset, limit uint32
	var asJSON bool
	c := command("nodemap TENANT", "Print what the MGS's operator runs to hold a tenant on the servers, or check that it stands", cobra.ExactArgs(1))
	c.RunE = func(c *cobra.Command, args []string) error {
		e, t, err := s.tenant(configOf(c), args[0])
		if err != nil {
			return err
		}
		n := nodemap.Tenant{Name: t.Name, Subtree: t.Subtree, Offset: offset, Limit: limit}
		if (offset == 0) != (limit == 0) {
			return &ExitError{ExitUsage, errors.New("--offset and --limit go together")}
		}
		if offset == 0 && len(ids) == 0 {
			return &ExitError{ExitUsage, errors.New("want --offset and --limit, or --idmap: unmapped users are denied")}
		}
		for _, id := range ids {
			m, parseErr := nodemap.ParseIDMap(id)
			if parseErr != nil {
				return &ExitError{ExitUsage, parseErr}
			}
			n.IDs = append(n.IDs, m)
		}
		if n.NIDs, err = nids(e.Nodes, nodes, network); err != nil {
			return err
		}
		if check != "" {
			return checkNodemap(c, n, check, asJSON)
		}
		if asJSON {
			return printJSON(c.OutOrStdout(), struct {
				Commands []string `json:"commands"`
			}{nodemap.Stanza(n)})
		}
		for _, line := range nodemap.Stanza(n) {
			if _, err = fmt.Fprintln(c.OutOrStdout(), line); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), "# These nodes serve this tenant alone while it stands: a NID is in one nodemap.\n"+
			"# Then: lctl get_param 'nodemap.*' 'nodemap.*.*' | enclave storage nodemap "+t.Name+" ... --check -")
		return err
	}
	f := c.Flags()
	f.StringVar(&network, "network", "tcp", "LNet network of the nodes' addresses")
	f.StringSliceVar(&nodes, "nodes", nil, "only these nodes of the inventory")
	f.Uint32Var(&offset, "offset", 0, "add this to the ids of clients")
	f.Uint32Var(&limit, "limit", 0, "how many ids the offset maps")
	f.StringArrayVar(&ids, "idmap", nil, "map one id: uid|gid|projid:CLIENT:SERVER; can be repeated")
	f.StringVar(&check, "check", "", "compare with what lctl get_param printed on the MGS: a file, or - for standard input")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func nids(all []enclave.Node, wanted []string, network string) ([]string, error) {
	var out []string
	for _, w := range wanted {
		if !slices.ContainsFunc(all, func(n enclave.Node) bool { return n.Name == w }) {
			return nil, &ExitError{ExitMissing, fmt.Errorf("inventory.yaml has no node %s", w)}
		}
	}
	for _, n := range all {
		if len(wanted) > 0 && !slices.Contains(wanted, n.Name) {
			continue
		}
		for _, a := range n.Addresses {
			out = append(out, a.String()+"@"+network)
		}
	}
	return out, nil
}

func checkNodemap(c *cobra.Command, t nodemap.Tenant, from string, asJSON bool) error {
	in := c.InOrStdin()
	if from != "-" {
		f, err := os.Open(from)
		if err != nil {
			return &ExitError{ExitUnknown, err}
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	checks, err := nodemap.Check(t, in)
	if err != nil {
		return &ExitError{ExitUnknown, err}
	}
	status := hostStatus(checks)
	if status != nil {
		status = &ExitError{Code: exitOf(checks), Err: fmt.Errorf("the servers do not hold tenant %s as the stanza says", t.Name)}
	}
	if asJSON {
		err = printJSON(c.OutOrStdout(), struct {
			Held   bool            `json:"held"`
			Checks []enclave.Check `json:"checks"`
		}{status == nil, checks})
	} else {
		err = printChecks(c.OutOrStdout(), checks)
	}
	return errors.Join(err, status)
}

// exitOf is below policy when something is known to be wrong, else cannot determine.
func exitOf(checks []enclave.Check) int {
	if slices.ContainsFunc(checks, func(c enclave.Check) bool { return c.Result == enclave.CheckFail }) {
		return ExitBelow
	}
	return ExitUnknown
}
