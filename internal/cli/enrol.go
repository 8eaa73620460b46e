package cli

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Enroller is what a node asks the verifier while it is a stranger; the verifier's client is one.
type Enroller interface {
	EnrolNonce(ctx context.Context, node string) (api.EnrolNonceAnswer, error)
	EnrolRequest(ctx context.Context, r api.EnrolRequest) (api.EnrolTicket, error)
	EnrolStatus(ctx context.Context, r api.EnrolStatusRequest) (api.EnrolStatus, error)
}

// Prover is what an enrolled node asks the verifier outside of a job.
type Prover interface {
	EnrolNonce(ctx context.Context, node string) (api.EnrolNonceAnswer, error)
	Prove(ctx context.Context, r api.ProveRequest) (api.ProveAnswer, error)
}

// Registrar is what an admin asks the verifier on the controller.
type Registrar interface {
	PendingEnrols(ctx context.Context) ([]api.PendingEnrol, error)
	EnrolApprove(ctx context.Context, r api.ApproveRequest) error
	Revoke(ctx context.Context, r api.RevokeRequest) (api.RevokeAnswer, error)
	Return(ctx context.Context, node string) error
}

// Machine is what `enclave node` needs of the host that it runs on. Enroller and Registrar read
// the configuration file; they are called when a command needs them.
type Machine struct {
	Name      func(config string) (string, error) // NodeName of this host
	Attest    func(ctx context.Context, reportData [64]byte) (enclave.Evidence, error)
	Enroller  func(config string) (e Enroller, verifier enclave.Digest, err error)
	Prover    func(config string) (p Prover, verifier enclave.Digest, self Enrolled, err error)
	Sound     func(ctx context.Context, config string) []enclave.Check // this node's ground, outside of a job
	Registrar func(config string) (Registrar, error)
	Store     func(c tls.Certificate) error // the node's key and certificate, for good
	In        io.Reader                     // the admin's yes
}

// Enrolled is who a node is to the verifier: what its certificate says.
type Enrolled struct {
	Node string
	Key  enclave.PublicKey
}

// pollEnrolment is how often a node asks whether the admin has answered.
const pollEnrolment = time.Second

// NewNodeCommand is `enclave node`.
func NewNodeCommand(m Machine) *cobra.Command {
	c := nodeCommand("node", "Enrol, prove, revoke and return enclave nodes", cobra.NoArgs)
	c.RunE = func(*cobra.Command, []string) error {
		return &ExitError{ExitUsage, errors.New("want enrol, prove, revoke or return")}
	}
	c.AddCommand(m.enrolCommand(), m.proveCommand(), m.revokeCommand(), m.returnCommand())
	return c
}

func nodeCommand(use, short string, args cobra.PositionalArgs) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, SilenceUsage: true, SilenceErrors: true, Args: usage(args)}
}

// configOf is the root command's --config.
func configOf(c *cobra.Command) string {
	if f := c.Root().PersistentFlags().Lookup("config"); f != nil {
		return f.Value.String()
	}
	return defaultConfig
}

func (m Machine) enrolCommand() *cobra.Command {
	var request bool
	var id machineID
	var name string
	c := nodeCommand("enrol [NODE]", "Make this node known, or say yes to one that wants to be", cobra.MaximumNArgs(1))
	c.Flags().BoolVar(&request, "request", false, "on the node: make key and report, and wait for the admin")
	c.Flags().StringVar(&name, "node", "", "on the node: its NodeName, where slurm.conf does not lead to it from the host's name")
	c.Flags().StringVar(&id.chip, "chip", "", "on the controller: the chip that the node must have, in place of the question")
	c.Flags().StringVar(&id.report, "report-id", "", "the same, where the host masks the chip: the report id that the node shows")
	c.Flags().StringVar(&id.key, "key", "", "the same, by the fingerprint that the node shows: where several guests of one chip ask")
	c.RunE = func(c *cobra.Command, args []string) error {
		switch {
		case request && len(args) == 0 && id == machineID{}:
			return m.request(c.Context(), configOf(c), name, c.OutOrStdout())
		case !request && len(args) == 1 && name == "":
			return m.approve(c.Context(), configOf(c), c.OutOrStdout(), args[0], id)
		}
		return &ExitError{ExitUsage, errors.New("want --request on the node, or NODE on the controller")}
	}
	return c
}

func (m Machine) returnCommand() *cobra.Command {
	c := nodeCommand("return NODE", "Put a node that was drained by us back to work, once it has proved itself", cobra.ExactArgs(1))
	c.RunE = func(c *cobra.Command, args []string) error {
		r, err := m.Registrar(configOf(c))
		if err != nil {
			return &ExitError{ExitUnknown, err}
		}
		if err := r.Return(c.Context(), args[0]); err != nil {
			return asked(err)
		}
		return printText(c.OutOrStdout(), "returned "+printable(args[0])+"\n")
	}
	return c
}

// approve shows what is pending and takes the admin's yes: --chip, --report-id or --key in scripts, else a word.
func (m Machine) approve(ctx context.Context, config string, out io.Writer, node string, want machineID) error {
	r, err := m.Registrar(config)
	if err != nil {
		return &ExitError{ExitUnknown, err}
	}
	all, err := r.PendingEnrols(ctx)
	if err != nil {
		return asked(err)
	}
	p, err := choose(all, node, want)
	if err != nil {
		return err
	}
	if err = printText(out, PendingScreen(p)); err != nil {
		return err
	}
	if want == (machineID{}) && !m.yes(out, p) {
		return &ExitError{ExitDenied, errors.New("not enrolled")}
	}
	err = r.EnrolApprove(ctx, api.ApproveRequest{Node: p.Node, Fingerprint: p.Fingerprint, ChipID: p.ChipID, ReportID: p.ReportID})
	if err != nil {
		return asked(err)
	}
	return printText(out, "enrolled "+printable(p.Node)+"\n")
}

// machineID is how an admin names the machine in a script.
type machineID struct{ chip, report, key string }

// is true for a wish that all that was said is true of.
func (id machineID) is(p api.PendingEnrol) bool {
	said := func(want, is string) bool { return want == "" || strings.EqualFold(want, is) }
	named := p.ReportID == "" || id.report != "" || id.key != "" || id == machineID{} // zeros name no machine
	return named && said(id.chip, p.ChipID) && said(id.report, p.ReportID) && said(id.key, p.Fingerprint.String())
}

// choose finds the one wish that is meant. Where several are pending for a node only the admin can say
// which: a stranger may have asked in its name, and a chip is that of all guests of one host.
func choose(all []api.PendingEnrol, node string, id machineID) (api.PendingEnrol, error) {
	var found []api.PendingEnrol
	for _, p := range all {
		if p.Node == node && id.is(p) {
			found = append(found, p)
		}
	}
	switch {
	case len(found) == 0 && id != machineID{}:
		return api.PendingEnrol{}, &ExitError{ExitMissing, fmt.Errorf("no enrolment of %s with this chip, report id or key is pending", printable(node))}
	case len(found) == 0:
		return api.PendingEnrol{}, &ExitError{ExitMissing, fmt.Errorf("no enrolment of %s is pending: run enclave node enrol --request there", printable(node))}
	case len(found) > 1:
		var b strings.Builder
		for _, p := range found {
			fmt.Fprintf(&b, "\n  --key %s  from %s", p.Fingerprint, printable(p.From))
		}
		return api.PendingEnrol{}, &ExitError{ExitUnknown, fmt.Errorf("%d such enrolments of %s are pending: say which with --key, as the node itself shows it%s", len(found), printable(node), b.String())}
	}
	return found[0], nil
}

func (m Machine) yes(out io.Writer, p api.PendingEnrol) bool {
	question := "Is this the chip of that machine? Type yes: "
	if p.ReportID != "" {
		question = "The host masks the chip. Is this the report id that the node itself shows? Type yes: "
	}
	if err := printText(out, question); err != nil {
		return false
	}
	line, err := bufio.NewReader(io.LimitReader(m.In, 64)).ReadString('\n')
	return err == nil && strings.TrimSpace(line) == "yes"
}

// PendingScreen is a wish as text.
func PendingScreen(p api.PendingEnrol) string {
	var b strings.Builder
	if p.Result.Simulated {
		b.WriteString("SIMULATED: this chip is a lab's, no hardware\n")
	}
	lines := [][2]string{
		{"NODE", p.Node},
		{"CHIP", chipText(p)},
		{"KEY", p.Fingerprint.String()},
		{"PRODUCT", or(p.Result.Product, "-")},
		{"FROM", p.From},
		{"SINCE", instant(&p.At)},
	}
	if p.ReportID != "" {
		lines = slices.Insert(lines, 2, [2]string{"REPORT ID", p.ReportID})
	}
	if p.Replaces != "" {
		lines = append(lines, [2]string{"REPLACES CHIP", p.Replaces})
	}
	fields(&b, lines)
	return clean(b.String())
}

func chipText(p api.PendingEnrol) string {
	if p.ReportID != "" {
		return "masked by the host: the report id stands for it, until the guest is started anew"
	}
	return p.ChipID
}
