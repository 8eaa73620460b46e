package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// defaultConfig is read unless --config says otherwise.
const defaultConfig = "/etc/slurm-enclave/enclave.yaml"

// Source answers people's questions. The verifier's client is one.
type Source interface {
	Report(ctx context.Context, job uint32, restart *uint32) (api.Report, error)
	Jobs(ctx context.Context) (api.Jobs, error)
	Nodes(ctx context.Context) (api.Nodes, error)
	Me(ctx context.Context) (api.Me, error)
	Shares(ctx context.Context, after string) (api.Shares, error)
	LatestEvidence(ctx context.Context, node string) (api.NodeEvidence, error)
	ReceiptSource
}

// Open makes a Source from the configuration file. It is called when a command needs one, so
// that explain and evidence work without any configuration.
type Open func(ctx context.Context, config string) (Source, error)

// screen is what the commands that ask enclaved share.
type screen struct {
	open   Open
	config *string
}

// NewRootCommand is `enclave`. Further commands are the doors' to add: they need the host.
func NewRootCommand(out, errOut io.Writer, version string, open Open, more ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: "enclave", Short: "Reports, reasons and nodes of secure enclaves in Slurm", Version: version,
		SilenceUsage: true, SilenceErrors: true, Args: usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return &ExitError{ExitUsage, errors.New("want a command, see enclave --help")}
		},
	}
	c.CompletionOptions.DisableDefaultCmd = true
	c.SetOut(out)
	c.SetErr(errOut)
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &ExitError{ExitUsage, fmt.Errorf("%w; see %s --help", err, c.CommandPath())}
	})
	s := screen{open: open, config: c.PersistentFlags().String("config", defaultConfig, "configuration file")}
	c.AddCommand(s.reportCommand(), s.whyCommand(), s.nodesCommand(), s.jobsCommand(), explainCommand(), NewEvidenceCommand(out, errOut), s.policyCommand(certificateStore),
		s.receiptCommand(), s.auditCommand())
	c.AddCommand(more...)
	return c
}

// command is a command of ours, without its flags.
func command(use, short string, args cobra.PositionalArgs) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, SilenceUsage: true, SilenceErrors: true, Args: usage(args)}
}

// source opens the way to enclaved, for which it reads the configuration. What can't be asked can't be determined.
func (s screen) source(ctx context.Context) (Source, error) {
	src, err := s.open(ctx, *s.config)
	if err != nil {
		return nil, &ExitError{ExitUnknown, fmt.Errorf("read configuration: %w", err)}
	}
	return src, nil
}

// codeNotThere is the verifier's answer for a job that is not there or not the caller's.
const codeNotThere enclave.Code = "E135"

// asked gives the error of a question its exit status. No answer is never a good answer.
func asked(err error) error {
	r, ok := enclave.AsRefusal(err)
	switch {
	case !ok || r.Fault == enclave.FaultService:
		return &ExitError{ExitUnknown, fmt.Errorf("ask enclaved: %w", err)}
	case r.Code == codeNotThere:
		return &ExitError{ExitMissing, err}
	}
	return &ExitError{ExitDenied, err}
}
