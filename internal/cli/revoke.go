package cli

import (
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// revokeCommand takes a node out at once. It wants a reason: it stands in the node's drain
// reason, in the reports of the jobs that end with it, and in the ledger.
func (m Machine) revokeCommand() *cobra.Command {
	var reason string
	var asJSON bool
	c := nodeCommand("revoke NODE --reason TEXT", "Take a node out at once: its certificate, its place in running jobs, and the node itself", cobra.ExactArgs(1))
	c.Flags().StringVar(&reason, "reason", "", "why, in a few words: users of the jobs that end with it will read it")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		if strings.TrimSpace(reason) == "" {
			return &ExitError{ExitUsage, errors.New("want --reason: users of the jobs that end with it will read it")}
		}
		r, err := m.Registrar(configOf(c))
		if err != nil {
			return &ExitError{ExitUnknown, err}
		}
		a, err := r.Revoke(c.Context(), api.RevokeRequest{Node: args[0], Reason: reason})
		if err != nil {
			return asked(err)
		}
		if asJSON {
			return printJSON(c.OutOrStdout(), a)
		}
		return revoked(c.OutOrStdout(), args[0], a)
	}
	return c
}

func revoked(out io.Writer, node string, a api.RevokeAnswer) error {
	if err := printText(out, "revoked "+printable(node)+", drained\n"); err != nil {
		return err
	}
	for _, k := range a.Ended {
		if err := printText(out, "ended job "+k.Directory()+"\n"); err != nil {
			return err
		}
	}
	return nil
}
