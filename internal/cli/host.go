package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Closable is a node that can be closed and compared with its closed state.
type Closable interface {
	Close(ctx context.Context) error
	Check(ctx context.Context) []enclave.Check
}

// NewHostCommand is `enclave host`. Open makes the node from the configuration file, when a
// command needs it.
func NewHostCommand(open func(config string) (Closable, error)) *cobra.Command {
	c := command("host", "Close this node, and compare it with its closed state", cobra.NoArgs)
	c.RunE = func(*cobra.Command, []string) error {
		return &ExitError{ExitUsage, errors.New("want close or check")}
	}
	c.AddCommand(hostCloseCommand(open), hostCheckCommand(open))
	return c
}

func hostCloseCommand(open func(config string) (Closable, error)) *cobra.Command {
	c := command("close", "Clean this node and record its closed state, at boot before slurmd starts", cobra.NoArgs)
	c.RunE = func(c *cobra.Command, _ []string) error {
		node, err := open(configOf(c))
		if err != nil {
			return err
		}
		return node.Close(c.Context())
	}
	return c
}

func hostCheckCommand(open func(config string) (Closable, error)) *cobra.Command {
	var asJSON bool
	c := command("check", "Name each difference from the recorded closed state", cobra.NoArgs)
	c.RunE = func(c *cobra.Command, _ []string) error {
		node, err := open(configOf(c))
		if err != nil {
			return &ExitError{ExitUnknown, err}
		}
		checks := node.Check(c.Context())
		if asJSON {
			err = printJSON(c.OutOrStdout(), struct {
				Closed bool            `json:"closed"`
				Checks []enclave.Check `json:"checks"`
			}{hostStatus(checks) == nil, checks})
		} else {
			err = printChecks(c.OutOrStdout(), checks)
		}
		return errors.Join(err, hostStatus(checks))
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printChecks(out io.Writer, checks []enclave.Check) error {
	for _, check := range checks {
		line := fmt.Sprintf("%-7s %s", check.Result, check.Name)
		if check.Reason != "" {
			line += ": " + check.Reason
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}

// hostStatus is nil for a closed node. A difference weighs more than what could not be looked at.
func hostStatus(checks []enclave.Check) error {
	failed, unknown := 0, 0
	for _, check := range checks {
		switch check.Result {
		case enclave.CheckPass:
		case enclave.CheckFail:
			failed++
		default:
			unknown++
		}
	}
	switch {
	case failed > 0:
		return &ExitError{ExitBelow, fmt.Errorf("the node differs from its closed state in %d of %d checks", failed, len(checks))}
	case unknown > 0 || len(checks) == 0:
		return &ExitError{ExitUnknown, fmt.Errorf("%d of %d checks could not be made", unknown, len(checks))}
	}
	return nil
}
