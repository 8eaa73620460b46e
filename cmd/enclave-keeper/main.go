// Command enclave-keeper holds a job's enclave on a node while the job runs. The prolog starts
// it and the epilog ends it; nobody runs it by hand. What it does stands in internal/keeper.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/host/spawn"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
)

func main() {
	log := logrus.New()
	if err := run(); err != nil {
		log.WithError(err).Error("keeper ended")
		os.Exit(1)
	}
}

func run() error {
	// The signal's handler stands before the prolog hears "ready".
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	runtime.GOMAXPROCS(keeper.Processors(runtime.NumCPU()))
	cfg, ready, err := spawn.Inherited()
	if err != nil {
		return err
	}
	return keeper.Run(ctx, spawn.Self{}, cfg, ready)
}
