package main

import (
	"context"
	"os"

	"github.com/slurm-enclave/slurm-enclave/internal/attest"
	"github.com/slurm-enclave/slurm-enclave/internal/door"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
	"github.com/slurm-enclave/slurm-enclave/internal/posture"
	"github.com/slurm-enclave/slurm-enclave/internal/release"
)

// facts are what `enclave ok` judges.
func facts(ctx context.Context, config string) ladder.Facts {
	m := posture.Machine{
		Config: config, Marker: door.Marker, SlurmConf: os.Getenv("SLURM_CONF"), Release: release.Version, Attest: attest.New(tsm).Evidence,
	}
	return m.Facts(ctx)
}
