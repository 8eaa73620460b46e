// Command enclave is the command line for people: reports, reasons, nodes, evidence. What its
// commands do stands in internal/cli; here they get the way to enclaved.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/host/munge"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/release"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
)

// patience is how long a command tries to reach enclaved.
const patience = 5 * time.Second

func main() {
	log := logrus.New()
	log.SetOutput(os.Stderr)
	log.SetFormatter(plain{})
	os.Exit(run(log))
}

func run(log *logrus.Logger) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := cli.NewRootCommand(os.Stdout, os.Stderr, release.Version, open).ExecuteContext(ctx)
	if err == nil {
		return cli.ExitOK
	}
	log.Error(err)
	if exit, ok := errors.AsType[*cli.ExitError](err); ok {
		return exit.Code
	}
	return cli.ExitFailure
}

// open makes the way to enclaved: one pinned key, and a munge credential for each question.
func open(_ context.Context, path string) (cli.Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	cfg, err := config.Load(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	pin, err := cfg.Verifier.KeyDigest()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return client.New(client.Options{Address: cfg.Verifier.Address, Pin: pin, Patience: patience, Credential: munge.Munge{}.Encode}), nil
}

// plain is how a command complains: its name and one line, without a byte for the terminal.
type plain struct{}

const maxComplaint = 2000

// Format is "enclave: message".
func (plain) Format(e *logrus.Entry) ([]byte, error) {
	return fmt.Appendf(nil, "enclave: %s\n", job.Printable(e.Message, maxComplaint)), nil
}
