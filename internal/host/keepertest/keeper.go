// Package keepertest lets a test program be its own enclave-keeper: tests of what starts a keeper
// name /proc/self/exe as its program. It is for tests only.
package keepertest

import (
	"context"
	"os"
	"os/signal"
	"regexp"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/spawn"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
)

// Play is the keeper's main when the program was started as one, with the one argument that
// spawn.Keeper gives, and does not return then. A TestMain calls it first.
func Play() {
	if len(os.Args) != 2 || !regexp.MustCompile(`^\d+\.\d+$`).MatchString(os.Args[1]) {
		return
	}
	if err := run(); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	cfg, ready, err := spawn.Inherited()
	if err != nil {
		return err
	}
	return keeper.Run(ctx, spawn.Self{}, cfg, ready)
}
