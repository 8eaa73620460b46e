package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

func (s screen) reportCommand() *cobra.Command {
	var restart uint32
	var asJSON bool
	c := command("report JOBID[.RESTART]", "One screen on a job: verdict, nodes, network, storage, timeline", cobra.ExactArgs(1))
	c.RunE = func(c *cobra.Command, args []string) error {
		job, which, err := jobAndRestart(args[0])
		if err != nil {
			return err
		}
		if c.Flags().Changed("restart") {
			if which != nil && *which != restart {
				return &ExitError{ExitUsage, fmt.Errorf("%s and --restart %d are two starts", printable(args[0]), restart)}
			}
			which = &restart
		}
		src, err := s.source(c.Context())
		if err != nil {
			return err
		}
		r, err := src.Report(c.Context(), job, which)
		if err != nil {
			return asked(err)
		}
		if asJSON {
			err = printJSON(c.OutOrStdout(), r)
		} else {
			err = printText(c.OutOrStdout(), ReportScreen(r))
		}
		if err != nil {
			return err
		}
		return reportStatus(r)
	}
	c.Flags().Uint32Var(&restart, "restart", 0, "an earlier start of a requeued job")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// jobID reads a Slurm job id. An element of an array has one of its own, which people rarely see.
func jobID(s string) (uint32, error) {
	if array, element, ok := strings.Cut(s, "_"); ok && array != "" && strings.Trim(array+element, "0123456789[]-,%") == "" {
		return 0, &ExitError{ExitUsage, fmt.Errorf("%s is of an array: say the number of its own, which sacct -X -o JobID,JobIDRaw -j %s tells", s, array)}
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, &ExitError{ExitUsage, fmt.Errorf("%q is no job id", printable(s))}
	}
	return uint32(n), nil
}

// reportStatus is the exit status of a report. A verdict that is not known is treated as one
// that is not good. SIMULATED is what a lab's policy asks for; its first line says what it is.
func reportStatus(r api.Report) error {
	switch r.Verdict {
	case enclave.VerdictProtected, enclave.VerdictSimulated:
		return nil
	case enclave.VerdictRefused:
		return &ExitError{ExitBelow, fmt.Errorf("job %d was refused", r.Job)}
	}
	return &ExitError{ExitUnknown, fmt.Errorf("job %d has no final verdict", r.Job)}
}
