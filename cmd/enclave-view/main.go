// Command enclave-view makes a job's view of data in the mount namespace that Slurm's
// job_container/tmpfs has made for the job: it is CloneNSScript of job_container.conf. Nobody runs
// it by hand. What it does stands in internal/door and internal/subtree.
package main

import (
	"context"
	"os"

	"github.com/slurm-enclave/slurm-enclave/internal/door"
)

func main() { os.Exit(door.View(context.Background(), os.Args, os.Getenv)) }
