// Package keepertest lets a test program be its own enclave-keeper: tests of what starts a keeper
// name /proc/self/exe as its program. It is for tests only.
package keepertest

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"regexp"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/host/monitor"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/host/spawn"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
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
	passed, err := spawn.Inherited()
	if err != nil {
		return err
	}
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	return keeper.Run(ctx, keeper.Parts{
		Host: spawn.Self{}, Verifier: nobody{}, Mesh: link.Kernel{}.Mesh(), Fence: filter.Kernel{}, Stuck: process.StuckPeople(1000),
		Changes: func(ctx context.Context) (<-chan struct{}, error) {
			job := passed.Config.Key.Job
			return monitor.Changes(ctx, monitor.Of{Filter: fence.Name(job), Routes: mesh.Table(job), Device: passed.Config.Device})
		},
		Log: logrus.NewEntry(quiet), Granted: passed.Granted,
	}, passed.Config, passed.Ready)
}

// nobody is a verifier that is away.
type nobody struct{ keeper.Verifier }

var errAway = errors.New("away")

// Nonce is keeper.Verifier's.
func (nobody) Nonce(context.Context, api.NonceRequest) (api.NonceAnswer, error) {
	return api.NonceAnswer{}, errAway
}

// Lost is keeper.Verifier's.
func (nobody) Lost(context.Context, api.BrokenRequest) (api.BrokenAnswer, error) {
	return api.BrokenAnswer{}, errAway
}

// Watch is keeper.Verifier's.
func (nobody) Watch(context.Context, api.WatchRequest) (api.WatchAnswer, error) {
	return api.WatchAnswer{}, errAway
}
