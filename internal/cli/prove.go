package cli

import (
	"context"
	"crypto/hpke"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

func (m Machine) proveCommand() *cobra.Command {
	c := nodeCommand("prove", "On a node that was drained: look at its ground and prove it to the verifier", cobra.NoArgs)
	c.Long = `Look at this node as the prolog of a job would: the gate that slurmd loads, socket families,
processes that have no business here, and the recorded closed state. When all is well, send fresh evidence to
the verifier, which judges it by the site's default policy. Within 15 minutes an admin can then put the node back
to work: enclave node return NODE, on the controller. Whether the file system is the right one is first
asked by the next job.

Exit status: 0 proved, 1 the node is not sound, 2 usage, 4 the verifier could not be asked, 5 it refused.`
	c.RunE = func(c *cobra.Command, _ []string) error {
		return m.prove(c.Context(), configOf(c), c.OutOrStdout())
	}
	return c
}

func (m Machine) prove(ctx context.Context, config string, out io.Writer) error {
	checks := m.Sound(ctx, config)
	if err := printChecks(out, checks); err != nil {
		return err
	}
	if hostStatus(checks) != nil {
		return &ExitError{ExitFailure, errors.New("not proved: this node is not sound")}
	}
	p, verifier, self, err := m.Prover(config)
	if err != nil {
		return &ExitError{ExitUnknown, err}
	}
	nonce, err := p.EnrolNonce(ctx, self.Node)
	if err != nil {
		return asked(err)
	}
	sealing, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	r := api.ProveRequest{Nonce: nonce.Nonce, HPKE: sealing.PublicKey().Bytes()}
	data, err := api.EnrolClaim(nonce.Cluster, verifier, nonce.Policy, self.Node, nonce.Nonce, enclave.NodeKeys{Ed25519: self.Key, HPKE: r.HPKE}).ReportData()
	if err != nil {
		return err
	}
	if r.Evidence, err = m.Attest(ctx, data); err != nil {
		return &ExitError{ExitFailure, fmt.Errorf("get report: %w", err)}
	}
	a, err := p.Prove(ctx, r)
	if err != nil {
		return asked(err)
	}
	simulated := ""
	if a.Result.Simulated {
		simulated = ", SIMULATED"
	}
	return printText(out, fmt.Sprintf("proved%s; on the controller: enclave node return %s\n", simulated, printable(self.Node)))
}
