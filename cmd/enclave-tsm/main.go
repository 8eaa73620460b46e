// Command enclave-tsm serves a simulated configfs-tsm for one node of the lab.
//
// It mounts where the kernel would serve reports and stays in the foreground until it is told to
// end. Whatever it serves is signed by a lab's test keys and is SIMULATED.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(os.Stderr).ExecuteContext(ctx)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "enclave-tsm:", err)
		os.Exit(1)
	}
}

func command(log io.Writer) *cobra.Command {
	var mount, hierarchy, node, faults string
	c := &cobra.Command{
		Use: "enclave-tsm --mount DIR --hierarchy DIR --node NAME", Short: "Serve SIMULATED SEV-SNP reports for a node of the lab",
		SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if mount == "" || hierarchy == "" || node == "" {
				return errors.New("want --mount, --hierarchy and --node")
			}
			h, err := attesttest.NewHierarchy(hierarchy)
			if err != nil {
				return err
			}
			w, err := attesttest.NewFirmware(h, node, faults)
			if err != nil {
				return err
			}
			s, err := attesttest.Mount(mount, w)
			if err != nil {
				return err
			}
			l := logrus.New()
			l.SetOutput(log)
			l.WithFields(logrus.Fields{"node": node, "mount": mount}).Warn("serving SIMULATED reports")
			return serve(c.Context(), s)
		},
	}
	c.Flags().StringVar(&mount, "mount", "", "where to serve, an existing directory")
	c.Flags().StringVar(&hierarchy, "hierarchy", "", "directory of the test keys, made when absent")
	c.Flags().StringVar(&node, "node", "", "NodeName")
	c.Flags().StringVar(&faults, "faults", "", "JSON file of faults, read for every request")
	return c
}

// serve unmounts at the end of ctx. A file still open is waited for, a few seconds long.
func serve(ctx context.Context, s *attesttest.Server) error {
	<-ctx.Done()
	err := s.Unmount()
	for range 50 {
		if err == nil {
			return nil
		}
		<-time.After(100 * time.Millisecond)
		err = s.Unmount()
	}
	return err
}
