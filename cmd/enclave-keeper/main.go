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
)

func main() {
	// The signal's handler stands before the prolog hears "ready".
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	runtime.GOMAXPROCS(1) // a tunnel that this process holds may change it
	if err := door.Keep(ctx); err != nil {
		os.Exit(1) //nolint:gocritic // the kernel takes the handler back
	}
}
