package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Compile builds a program of this module without cgo, so that it runs in a machine: that of a
// main package, or with test its package's test program.
func Compile(to, pkg string, test bool) error {
	top, err := Top()
	if err != nil {
		return err
	}
	argv := []string{"build"}
	if test {
		argv = []string{"test", "-c", "-tags", "vm"}
	}
	cmd := exec.Command("go", append(argv, "-trimpath", "-ldflags", "-s -w", "-o", to, pkg)...)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	if _, err := os.Stat(to); err != nil { // a package without tests
		return fmt.Errorf("build %s: no %s: %w", pkg, filepath.Base(to), err)
	}
	return nil
}
