// Command enclave-epilog is Slurm's Epilog and EpilogSlurmctld: it closes an enclave on a node,
// or settles the job on the controller. It tells its side from SLURM_SCRIPT_CONTEXT.
package main

import (
	"context"
	"os"

	"github.com/slurm-enclave/slurm-enclave/internal/door"
)

func main() {
	os.Exit(door.Run(context.Background(), os.Args, os.Getenv, door.Epilog()))
}
