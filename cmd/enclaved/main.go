// Command enclaved decides which jobs get an enclave: verifier and site role in one process,
// on the controller, as user enclave.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/enclaved"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/release"
)

const defaultConfig = "/etc/slurm-enclave/enclave.yaml"

func main() {
	log := logrus.New()
	if err := command(log).Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "enclaved:", err)
		os.Exit(1)
	}
}

func command(log *logrus.Logger) *cobra.Command {
	root := &cobra.Command{
		Use: "enclaved", Short: "Verifier and site role of secure enclaves in Slurm", Version: release.Version,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
	}
	path := root.PersistentFlags().String("config", defaultConfig, "configuration file")
	root.RunE = func(c *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		reload := make(chan os.Signal, 1)
		signal.Notify(reload, syscall.SIGHUP)
		return enclaved.Run(ctx, log, enclaved.Options{Config: *path, Reload: reload})
	}
	root.AddCommand(&cobra.Command{
		Use: "run", Hidden: true, Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true, RunE: root.RunE,
	}, &cobra.Command{
		Use: "key", Short: "Print the line verifier.key, making the key when there is none", Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			line, err := enclaved.KeyLine(*path, file.Trust{})
			if err == nil {
				_, err = fmt.Fprintln(c.OutOrStdout(), line)
			}
			return err
		},
	})
	root.SetContext(context.Background())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		fmt.Fprintln(os.Stderr, "enclaved:", err)
		os.Exit(2)
		return err
	})
	return root
}
