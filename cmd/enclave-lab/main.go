// Command enclave-lab brings up a real Slurm cluster with enclaves on one machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/slurm-enclave/slurm-enclave/internal/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status := 0
	if err := command(&status).ExecuteContext(ctx); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "enclave-lab:", err)
		status = exitStatus(err)
	}
	os.Exit(status) //nolint:gocritic // stop only restores signals
}

// exitStatus follows the command line's conventions: 7 is "not found", 1 any other error.
func exitStatus(err error) int {
	if errors.Is(err, lab.ErrDown) {
		return 7
	}
	return 1
}
