package site_test

import (
	"github.com/slurm-enclave/slurm-enclave/internal/site"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

var _ site.Slurm = (*slurm.CLI)(nil)

var _ site.Slurm = (*slurm.REST)(nil)
