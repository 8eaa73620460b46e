// Package program starts one program and gives back what it printed.
//
// There is no shell and no PATH of the caller: a bare name is looked up in four system
// directories, the arguments travel as they are, the environment is fixed, standard input is
// empty, the output is bounded, and the context must carry a deadline. It does not know what
// the programs mean. Doors, lab and cmd hand a Runner to the rooms that drive Slurm.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Path is the PATH of every program, and where a bare name is looked up, in this order.
const Path = "/usr/bin:/usr/sbin:/bin:/sbin"

// MaxOutput bounds standard output. Standard error is cut at MaxStderr without an error.
const (
	MaxOutput = 1 << 20
	MaxStderr = 4 << 10
)

const waitDelay = 2 * time.Second

var errTooMuch = errors.New("output over the limit")

// Runner starts programs. The zero value looks into Path and allows MaxOutput bytes.
type Runner struct {
	Directories []string // instead of Path; for tests
	MaxOutput   int      // instead of MaxOutput
	Environment []string // NAME=VALUE beside PATH and LC_ALL
}

// Failure is a program that ran and did not exit with 0.
type Failure struct {
	Program string
	Code    int    // exit status; -1 when a signal ended it
	Printed string // the beginning of standard error, printable, one line
	cause   error
}

// Error is "run NAME: exit status N: what it printed".
func (f *Failure) Error() string {
	s := fmt.Sprintf("run %s: %v", f.Program, f.cause)
	if f.Printed != "" {
		s += ": " + f.Printed
	}
	return s
}

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.cause }

// ExitCode is the exit status, or -1.
func (f *Failure) ExitCode() int { return f.Code }

// Stderr is the beginning of what the program printed there.
func (f *Failure) Stderr() string { return f.Printed }

// Run starts the program and waits. At the deadline the program and its children are killed.
func (r Runner) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		return nil, fmt.Errorf("run %s: no deadline", name)
	}
	path, err := r.find(name)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", name, err)
	}
	for _, a := range args {
		if strings.ContainsRune(a, 0) {
			return nil, fmt.Errorf("run %s: an argument holds a zero byte", name)
		}
	}
	stdout := &bounded{limit: MaxOutput, fail: true}
	if r.MaxOutput > 0 {
		stdout.limit = r.MaxOutput
	}
	stderr := &bounded{limit: MaxStderr}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append([]string{"PATH=" + Path, "LC_ALL=C"}, r.Environment...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
	err = cmd.Run()
	switch {
	case err == nil:
		return stdout.kept.Bytes(), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("run %s: %w", name, ctx.Err())
	case stdout.over:
		return nil, fmt.Errorf("run %s: %w", name, errTooMuch)
	}
	code := -1
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	}
	return nil, &Failure{Program: name, Code: code, Printed: oneLine(stderr.kept.Bytes()), cause: err}
}

// find refuses relative paths: "./scontrol" would depend on the working directory.
func (r Runner) find(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, executable(name)
	}
	if name == "" || strings.ContainsRune(name, '/') {
		return "", errors.New("neither a bare name nor an absolute path")
	}
	directories := r.Directories
	if directories == nil {
		directories = filepath.SplitList(Path)
	}
	for _, d := range directories {
		if path := filepath.Join(d, name); executable(path) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w in %s", os.ErrNotExist, strings.Join(directories, ":"))
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("%s: %w", path, os.ErrPermission)
	}
	return nil
}

// bounded keeps the first bytes. With fail it breaks the pipe at the limit, so that a flood
// ends the program; otherwise the rest is swallowed. The buffer is a named field: embedded, its
// ReadFrom would be found by io.Copy and go round the limit.
type bounded struct {
	kept  bytes.Buffer
	limit int
	fail  bool
	over  bool
}

// Write keeps what fits.
func (b *bounded) Write(p []byte) (int, error) {
	room := b.limit - b.kept.Len()
	if len(p) <= room {
		return b.kept.Write(p)
	}
	b.over = true
	_, _ = b.kept.Write(p[:max(room, 0)]) // a bytes.Buffer never fails
	if b.fail {
		return 0, errTooMuch
	}
	return len(p), nil
}

// oneLine makes foreign bytes fit for an error message.
func oneLine(b []byte) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, string(b))
	return strings.Join(strings.Fields(clean), " ")
}
