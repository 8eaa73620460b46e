package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
	"github.com/slurm-enclave/slurm-enclave/internal/lab/suite"
)

// base is what the hosts' roots are laid on, and what its Slurm is.
type base struct {
	path    string // "/" is this machine's own
	release string // of Slurm: "22.05"
	pmix    bool   // Slurm was built with PMIx
}

// basePath is the root that a lab of the spec stands on.
func basePath(s Spec) string {
	if s.Suite == "" {
		return "/"
	}
	return suite.Path(s.Suite)
}

// inspect asks the Slurm of a root what it is.
func inspect(ctx context.Context, path string) (base, error) {
	argv := []string{"slurmctld", "-V"}
	if path != "/" {
		argv = append([]string{"chroot", path}, argv...)
	}
	var out bytes.Buffer
	status, err := machine.Run(ctx, argv, os.Environ(), nil, &out, &out)
	if err == nil && status != 0 {
		err = errors.New(strings.TrimSpace(out.String()))
	}
	if err != nil {
		return base{}, fmt.Errorf("ask %s for its release: %w", argv[0], err)
	}
	release, err := releaseOf(out.String())
	if err != nil {
		return base{}, err
	}
	plugins, err := filepath.Glob(filepath.Join(path, "usr/lib/*/slurm-wlm/mpi_pmix.so"))
	return base{path: path, release: release, pmix: len(plugins) > 0}, err
}

// releaseOf finds the release in what slurmctld -V says, as in "slurm-wlm 24.11.5".
func releaseOf(said string) (string, error) {
	found := regexp.MustCompile(`\b(\d{2}\.\d{2})\.\d+`).FindStringSubmatch(said)
	if found == nil {
		return "", fmt.Errorf("find the release of Slurm in %q", strings.TrimSpace(said))
	}
	return found[1], nil
}

// Prepare makes the root of a suite and builds the plugin for it, as Up does on first use.
func Prepare(ctx context.Context, name, programs string, progress io.Writer) error {
	if err := suite.Check(name); err != nil {
		return err
	}
	return prepare(ctx, Spec{Suite: name}, programs, progress)
}

// prepare makes the root of the spec's suite and, where the project's source is beside the
// programs, builds there what depends on Slurm's headers.
func prepare(ctx context.Context, s Spec, programs string, progress io.Writer) error {
	if s.Suite == "" {
		return nil
	}
	if _, err := suite.Build(ctx, s.Suite, progress); err != nil {
		return err
	}
	source, out := filepath.Dir(programs), filepath.Join(programs, s.Suite)
	if _, err := os.Stat(filepath.Join(source, "spank", "enclave.map")); err == nil {
		return suite.Plugin(ctx, s.Suite, source, out)
	}
	if _, err := os.Stat(filepath.Join(out, "enclave.so")); err != nil {
		return fmt.Errorf("find the plugin for %s: %w, and the project's source is not beside it", s.Suite, err)
	}
	return nil
}

// from says where a program of this project comes from: what depends on Slurm's headers was
// built for each suite.
func from(s Spec, programs, name string) string {
	if s.Suite != "" && strings.HasSuffix(name, ".so") {
		return filepath.Join(programs, s.Suite, name)
	}
	return filepath.Join(programs, name)
}
