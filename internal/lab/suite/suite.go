// Package suite makes roots of Debian's suites, each with its own release of Slurm, for the
// hosts of a lab, and builds in them what depends on Slurm's headers.
//
// A root is made once, by debootstrap and apt, and kept in Directory. It is never written to
// again: a lab's hosts put their own layers on it. It starts nothing and changes nothing else on
// the machine; which daemons run in a root is the lab's business.
package suite

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed" // the scripts
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// Directory keeps the roots. What is in it can be deleted when no lab is up.
const Directory = "/var/cache/slurm-enclave-lab"

//go:embed build.sh
var buildScript string

//go:embed plugin.sh
var pluginScript string

// Names are the suites that have a release of Slurm this project is written for.
func Names() []string { return []string{"bookworm", "trixie", "forky", "sid"} }

// Check refuses a name that is no suite of Names: it becomes part of paths.
func Check(name string) error {
	if slices.Contains(Names(), name) {
		return nil
	}
	return fmt.Errorf("find suite %q: there are %s", name, strings.Join(Names(), ", "))
}

// Path is where the root of a suite is, or will be. Its name changes with the script that makes
// it, so that a root of other packages is never taken for this one.
func Path(name string) string {
	sum := sha256.Sum256([]byte(buildScript))
	return filepath.Join(Directory, name+"-"+hex.EncodeToString(sum[:6]))
}

// Build makes the root of a suite unless it is there, and returns its path. It takes minutes and
// some 400 MB of packages; several callers wait for one.
func Build(ctx context.Context, name string, progress io.Writer) (string, error) {
	if err := Check(name); err != nil {
		return "", err
	}
	root := Path(name)
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	if missing := machine.Missing([]string{"debootstrap", "unshare", "flock", "apt-get"}); len(missing) > 0 {
		return "", fmt.Errorf("make root of %s: missing %s; make deps installs them", name, strings.Join(missing, ", "))
	}
	_, _ = fmt.Fprintf(progress, "making the root of %s, which takes some minutes once; see %s\n", name, logPath(name)) // telling is no duty
	if err := script(ctx, name, buildScript, name, root); err != nil {
		return "", fmt.Errorf("make root of %s: %w", name, err)
	}
	return root, nil
}

// Plugin builds the plugin, the submit library and the MPI programs in the root of a suite, from
// the project's source into out, which is below it. What is up to date is left alone.
func Plugin(ctx context.Context, name, source, out string) error {
	if missing := machine.Missing([]string{"go", "unshare", "flock"}); len(missing) > 0 {
		return fmt.Errorf("build the plugin for %s: missing %s", name, strings.Join(missing, ", "))
	}
	if err := script(ctx, name, pluginScript, Path(name), source, out, filepath.Join(Directory, name+".build")); err != nil {
		return fmt.Errorf("build the plugin for %s: %w", name, err)
	}
	return nil
}

func logPath(name string) string { return filepath.Join(Directory, name+".log") }

// script runs one of the scripts in namespaces of its own, alone for this suite, its words going
// to the suite's log.
func script(ctx context.Context, name, text string, args ...string) error {
	if err := os.MkdirAll(Directory, 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(logPath(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	// --no-fork and --kill-child: whoever ends this process ends the script with all it started.
	argv := append([]string{
		"flock", "--no-fork", filepath.Join(Directory, name+".lock"),
		"unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
		"sh", "-c", text, name,
	}, args...)
	var said bytes.Buffer
	both := io.MultiWriter(log, &said)
	status, err := machine.Run(ctx, argv, os.Environ(), nil, both, both)
	if err == nil && status != 0 {
		err = errors.New(tail(said.String()))
	}
	return err
}

// tail is the end of what a script said, where the reason is.
func tail(said string) string {
	const most = 15
	lines := strings.Split(strings.TrimSpace(said), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
