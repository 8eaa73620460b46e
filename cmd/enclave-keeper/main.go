// Command enclave-keeper holds a job's enclave on a node while the job runs. The prolog starts
// it and the epilog ends it; nobody runs it by hand. What it does stands in internal/keeper.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/slurm-enclave/slurm-enclave/internal/door"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
)

func main() {
	// The signal's handler stands before the prolog hears "ready".
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	runtime.GOMAXPROCS(keeper.Processors(runtime.NumCPU()))
	if err := door.Keep(ctx); err != nil {
		os.Exit(1) //nolint:gocritic // the kernel takes the handler back
	}
}
