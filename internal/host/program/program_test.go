package program_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/program"
)

func script(t *testing.T, name, body string) program.Runner {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body), 0o700))
	return program.Runner{Directories: []string{dir}}
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestRun(t *testing.T) {
	t.Parallel()
	t.Run("arguments arrive as they are, no shell reads them", func(t *testing.T) {
		t.Parallel()
		r := script(t, "p", `for a in "$@"; do printf '<%s>' "$a"; done`)
		out, err := r.Run(soon(t), "p", "a b", `$(id)`, "; rm -rf /", "x\ny", "", `{"v":"it's"}`)
		require.NoError(t, err)
		assert.Equal(t, "<a b><$(id)><; rm -rf /><x\ny><><{\"v\":\"it's\"}>", string(out))
	})
	t.Run("the environment is fixed and standard input is empty", func(t *testing.T) {
		t.Parallel()
		r := script(t, "p", "/usr/bin/env; pwd; cat")
		out, err := r.Run(soon(t), "p")
		require.NoError(t, err)
		lines := strings.Fields(string(out))
		assert.ElementsMatch(t, []string{"PATH=" + program.Path, "LC_ALL=C", "PWD=/", "/"}, lines)
	})
	t.Run("an exit status comes with what was printed, on one line", func(t *testing.T) {
		t.Parallel()
		r := script(t, "p", `printf 'no\033[31m such\nnode\n' >&2; exit 3`)
		_, err := r.Run(soon(t), "p")
		f, ok := errors.AsType[*program.Failure](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, 3, f.ExitCode())
		assert.Equal(t, "no [31m such node", f.Stderr())
		assert.EqualError(t, err, "run p: exit status 3: no [31m such node")
	})
	t.Run("a program that a signal ends is no success", func(t *testing.T) {
		t.Parallel()
		_, err := script(t, "p", "kill -KILL $$").Run(soon(t), "p")
		f, ok := errors.AsType[*program.Failure](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, -1, f.Code)
	})
	t.Run("a flood of output is cut and the program ends", func(t *testing.T) {
		t.Parallel()
		r := script(t, "p", "while :; do echo xxxxxxxxxxxxxxxx; done")
		r.MaxOutput = 1000
		_, err := r.Run(soon(t), "p")
		require.ErrorContains(t, err, "output over the limit")
	})
	t.Run("a flood of errors does not fill the memory", func(t *testing.T) {
		t.Parallel()
		r := script(t, "p", "head -c 1000000 /dev/zero | tr '\\0' y >&2; exit 1")
		_, err := r.Run(soon(t), "p")
		f, ok := errors.AsType[*program.Failure](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, program.MaxStderr, len(f.Stderr())) //nolint:testifylint // Len prints the whole text
	})
	t.Run("at the deadline its children go too", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		mark := filepath.Join(t.TempDir(), "pid")
		r := script(t, "p", "sleep 1000 & echo $! > "+mark+"; wait")
		_, err := r.Run(ctx, "p")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		b, err := os.ReadFile(mark)
		require.NoError(t, err)
		gone := func() bool {
			stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/stat")
			return err != nil || strings.Contains(string(stat), ") Z ")
		}
		assert.Eventually(t, gone, 10*time.Second, 10*time.Millisecond)
	})
	t.Run("no deadline, no run", func(t *testing.T) {
		t.Parallel()
		_, err := program.Runner{}.Run(t.Context(), "true")
		require.EqualError(t, err, "run true: no deadline")
	})
	t.Run("a zero byte in an argument is refused", func(t *testing.T) {
		t.Parallel()
		_, err := program.Runner{}.Run(soon(t), "true", "a\x00b")
		require.Error(t, err)
	})
	for name, which := range map[string]string{
		"a relative path": "./true", "a path below": "bin/true", "nothing": "", "an unknown name": "no-such-program",
		"a directory": "/usr", "a file that is no program": "/etc/passwd",
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			_, err := program.Runner{}.Run(soon(t), which)
			require.Error(t, err)
		})
	}
	t.Run("a bare name is found in the system's directories", func(t *testing.T) {
		t.Parallel()
		_, err := program.Runner{}.Run(soon(t), "true")
		require.NoError(t, err)
	})
}
