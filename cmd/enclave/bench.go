package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/bench"
	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// shell runs programs of this machine with the caller's environment.
type shell struct{ prefix []string }

// Run runs one; what it prints on standard error is in the error.
func (s shell) Run(ctx context.Context, input string, argv ...string) (string, error) {
	argv = append(append([]string(nil), s.prefix...), argv...)
	var out, errOut strings.Builder
	status, err := machine.Run(ctx, argv, os.Environ(), strings.NewReader(input), &out, &errOut)
	if err == nil && status != 0 {
		err = fmt.Errorf("%s: exit status %d: %s", argv[0], status, strings.TrimSpace(errOut.String()))
	}
	return out.String(), err
}

// benchmarks finds the lab's program beside this one, or in PATH.
func benchmarks() cli.Benchmarks {
	return cli.Benchmarks{Here: shell{}, Lab: func() (bench.Shell, error) {
		const lab = "enclave-lab"
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		if path := filepath.Join(filepath.Dir(self), lab); machine.Missing([]string{path}) == nil {
			return shell{[]string{path}}, nil
		}
		if machine.Missing([]string{lab}) != nil {
			return nil, fmt.Errorf("find %s: it is neither beside %s nor in PATH", lab, self)
		}
		return shell{[]string{lab}}, nil
	}}
}
