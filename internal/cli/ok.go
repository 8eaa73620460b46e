package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
)

// ladderJSON is read by others: names don't change.
type ladderJSON struct {
	ladder.Ladder
	Exit  int          `json:"exit"`
	Facts ladder.Facts `json:"facts"`
}

// NewOkCommand is `enclave ok`. Gather reads and tries this machine.
func NewOkCommand(gather func(ctx context.Context, config string) ladder.Facts) *cobra.Command {
	var asJSON, simulated bool
	c := command("ok", "Say what this machine can do for cpu-sev, and the one thing to fix", cobra.NoArgs)
	c.Long = `Say what this machine can do for cpu-sev, rung by rung: processor, memory encryption, a report
that is really made, verified and appraised, kernel, Slurm. The first line says what kind of
machine it is and the one thing to fix. Run it as root, in the guest.

Exit status: 0 every needed rung holds, 3 one fails, or the report is simulated and
--allow-simulated is not given, 4 no attestation is possible here or it could not be judged,
6 the report is not genuine.`
	c.RunE = func(c *cobra.Command, _ []string) error {
		facts := gather(c.Context(), configOf(c))
		l := ladder.Climb(facts)
		exit := okStatus(l, simulated)
		var err error
		if asJSON {
			err = printJSON(c.OutOrStdout(), ladderJSON{l, exit, facts})
		} else {
			err = printLadder(c.OutOrStdout(), l)
		}
		if err != nil || exit == ExitOK {
			return err
		}
		return &ExitError{Code: exit} // the last line has said it
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&simulated, "allow-simulated", false, "leave with 0 where only a lab's report is made")
	return c
}

// okStatus is the exit status of a ladder. Every outcome that is not known here is no success.
func okStatus(l ladder.Ladder, allowSimulated bool) int {
	switch l.Outcome {
	case ladder.Invalid:
		return ExitInvalid
	case ladder.Below:
		return ExitBelow
	case ladder.Ready:
		if l.Simulated && !allowSimulated {
			return ExitBelow
		}
		return ExitOK
	}
	return ExitUnknown
}

// maxLine bounds a line: hypervisor, firmware and files have a say in it.
const maxLine = 1000

func printLadder(out io.Writer, l ladder.Ladder) error {
	for line := range strings.SplitSeq(strings.TrimSuffix(l.String(), "\n"), "\n") {
		if _, err := fmt.Fprintln(out, job.Printable(line, maxLine)); err != nil {
			return err
		}
	}
	return nil
}
