package process_test

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
)

func TestAside(t *testing.T) {
	wrong := errors.New("wrong")
	for range 500 { // the first thread is met by chance
		require.ErrorIs(t, process.Aside(func() error {
			if unix.Gettid() == unix.Getpid() {
				return nil
			}
			if os.Geteuid() == 0 {
				_, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 64123, 64123, 0)
				assert.Zero(t, e)
			}
			return wrong
		}), wrong)
	}
	b, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	assert.NotContains(t, string(b), "64123", "the process is who it was")
}
