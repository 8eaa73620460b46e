// Package againtest runs a test a second time, as a program of its own in namespaces of its own,
// so that nothing of the machine's is touched or seen. It is for tests only and needs root.
package againtest

import (
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside holds the name of the test that is run again.
const inside = "AGAINTEST_INSIDE"

// Root ends the test where the user is not root: it fails in CI and is skipped elsewhere.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("root is missing")
	}
	t.Skip("root is missing: the test makes namespaces or changes owners")
}

// Inside says whether this is the run inside.
func Inside(t testing.TB) bool { return os.Getenv(inside) == t.Name() }

// Outer says whether this is the outer run, whose test is then over: the inner one has been made
// in the namespaces (CLONE_NEW*) and has passed. An own pid namespace has its own /proc.
func Outer(t testing.TB, namespaces uintptr, env ...string) bool {
	t.Helper()
	if Inside(t) {
		if namespaces&unix.CLONE_NEWPID != 0 {
			if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
				t.Fatalf("mount /proc: %s", err)
			}
		}
		return false
	}
	Root(t)
	// Unshared and not cloned, for Go then makes the new namespace's mounts private first.
	mounts := namespaces & unix.CLONE_NEWNS
	attr := &syscall.SysProcAttr{Unshareflags: mounts, Cloneflags: namespaces &^ mounts}
	Run(t, attr, append(env, inside+"="+t.Name())...)
	return true
}

// Run runs the calling test again with more in its environment; it has to pass there.
func Run(t testing.TB, attr *syscall.SysProcAttr, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = attr
	if attr != nil && attr.Credential != nil {
		cmd.Dir = "/" // the user may not be let into the package's own
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("run %s again: %s\n%s", t.Name(), err, out)
	}
	// A run that skipped itself, or found no test of the name, ends well, too.
	if !regexp.MustCompile(`(?m)^--- PASS: ` + regexp.QuoteMeta(t.Name()) + ` `).Match(out) {
		t.Fatalf("run %s again: it did not pass\n%s", t.Name(), out)
	}
}
