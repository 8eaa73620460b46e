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
	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/release"
)

func main() {
	log := logrus.New()
	log.SetOutput(os.Stderr)
	log.SetFormatter(plain{})
	os.Exit(run(log))
}

func run(log *logrus.Logger) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := cli.NewRootCommand(os.Stdout, os.Stderr, release.Version, open,
		cli.NewNodeCommand(node()), cli.NewHostCommand(host(log)), cli.NewStorageCommand(tree{}, estate), cli.NewCertsCommand(storehouse()), cli.NewOkCommand(facts), cli.NewDoctorCommand(open, storehouse(), ground),
		cli.NewAcctCommand(open, sacct(), time.Now), cli.NewBenchCommand(benchmarks())).ExecuteContext(ctx)
	if err == nil {
		return cli.ExitOK
	}
	exit, ok := errors.AsType[*cli.ExitError](err)
	if ok && exit.Err == nil {
		return exit.Code
	}
	log.Error(err)
	if ok {
		return exit.Code
	}
	return cli.ExitFailure
}

// plain is how a command complains: its name and one line, without a byte for the terminal.
type plain struct{}

const maxComplaint = 2000

// Format is "enclave: message".
func (plain) Format(e *logrus.Entry) ([]byte, error) {
	return fmt.Appendf(nil, "enclave: %s\n", job.Printable(e.Message, maxComplaint)), nil
}
