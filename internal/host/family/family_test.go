package family

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
)

func TestEveryFamilyOfTheConfigurationCanBeAsked(t *testing.T) {
	t.Parallel()
	open, err := Open(config.Families())
	require.NoError(t, err)
	assert.Subset(t, config.Families(), open)
}

// The kernel lists the protocols of the families it has.
func TestAnswerIsTheKernels(t *testing.T) {
	t.Parallel()
	open, err := Open(config.Families())
	require.NoError(t, err)
	text, err := os.ReadFile("/proc/net/protocols")
	require.NoError(t, err)
	for name, protocol := range map[string]string{"smc": "\nSMC ", "rds": "\nRDS ", "tipc": "\nTIPC ", "vsock": "\nAF_VSOCK ", "rxrpc": "\nRXRPC "} {
		if !strings.Contains(string(text), protocol) {
			assert.NotContains(t, open, name)
		}
	}
}

func TestUnknownFamilyIsAnError(t *testing.T) {
	t.Parallel()
	_, err := Open([]string{"inet"})
	require.ErrorIs(t, err, errUnknown)
}

func TestErrorsOfTheKernel(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		unix.EAFNOSUPPORT: false, unix.EPERM: false, unix.EACCES: false, unix.EPROTONOSUPPORT: true, unix.ESOCKTNOSUPPORT: true,
	} {
		is, other := verdict(err)
		require.NoError(t, other)
		assert.Equal(t, want, is, "%v", err)
	}
	_, err := verdict(unix.EMFILE)
	assert.Error(t, err, "not being able to ask is no answer")
}
