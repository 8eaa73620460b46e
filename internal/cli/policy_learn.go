package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
)

// learnFlags are the words of `policy learn`.
type learnFlags struct {
	judgeFlags
	reports, certs, nodes []string
	name                  string
	json                  bool
}

func (s screen) learnCommand(store string) *cobra.Command {
	f := learnFlags{judgeFlags: judgeFlags{store: store}}
	c := command("learn (--report FILE [--cert FILE] | --node NODE)...", "Draft a policy from the evidence of machines that you trust today", cobra.NoArgs)
	c.Long = `Draft a policy from the evidence of machines that you trust today, and print it.

Evidence comes from files, or with --node from enclaved, for operators: the last that the node
sent. It is verified here; what is not genuine is refused. The draft never fills in covers, so it
affirms nothing until you have; each line with DECIDE is a question to you.

Exit status: 0 drafted, 1 a machine that no policy can admit, 2 usage, 4 no certificate or no
enclaved, 5 not an operator, 6 evidence is not genuine, 7 no such node.`
	c.RunE = func(c *cobra.Command, _ []string) error { return s.learn(c.Context(), c.OutOrStdout(), f) }
	c.Flags().StringArrayVar(&f.reports, "report", nil, "a report, 1184 bytes; may be repeated")
	c.Flags().StringArrayVar(&f.certs, "cert", nil, "its certificate, the first one the first report's")
	c.Flags().StringArrayVar(&f.nodes, "node", nil, "a node whose last evidence is taken; may be repeated")
	c.Flags().StringVar(&f.name, "name", "default", "the policy's name")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	f.add(c)
	return c
}

func (s screen) learn(ctx context.Context, out io.Writer, f learnFlags) error {
	if len(f.reports)+len(f.nodes) == 0 || len(f.certs) > len(f.reports) {
		return &ExitError{ExitUsage, errors.New("policy learn: want --report FILE or --node NODE, and at most one --cert for each report")}
	}
	j, err := f.judge()
	if err != nil {
		return err
	}
	samples, err := s.samples(ctx, f, j)
	if err != nil {
		return err
	}
	d, err := appraise.Learn(f.name, samples, f.simulated)
	switch {
	case errors.Is(err, appraise.ErrNotGenuine):
		return &ExitError{ExitInvalid, err}
	case err != nil:
		return &ExitError{ExitFailure, err}
	case f.json:
		return printJSON(out, d)
	}
	return printText(out, d.Text)
}

func (s screen) samples(ctx context.Context, f learnFlags, j judge) ([]appraise.Sample, error) {
	var out []appraise.Sample
	for i, name := range f.reports {
		cert := ""
		if i < len(f.certs) {
			cert = f.certs[i]
		}
		res, err := j.file(name, cert)
		if err == nil {
			err = invalid(name, res)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, appraise.Sample{From: filepath.Base(name), Report: res.SNPReport})
	}
	if len(f.nodes) == 0 {
		return out, nil
	}
	src, err := s.source(ctx)
	if err != nil {
		return nil, err
	}
	for _, node := range f.nodes {
		e, err := src.LatestEvidence(ctx, node)
		if err != nil {
			return nil, asked(err)
		}
		res, err := j.verify(e.Evidence.Report, e.Evidence.Certificates)
		if err == nil {
			err = invalid("node "+printable(node), res)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, appraise.Sample{From: fmt.Sprintf("%s, %s", node, instant(&e.At)), Report: res.SNPReport})
	}
	return out, nil
}
