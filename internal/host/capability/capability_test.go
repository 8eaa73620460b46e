package capability_test

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/againtest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/capability"
)

func TestTry(t *testing.T) {
	againtest.Root(t)
	before := machine(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	k := capability.Try(ctx)
	assert.True(t, k.NFTables.Works, k.NFTables.Reason)
	assert.True(t, k.Mounts.Works, k.Mounts.Reason)
	assert.True(t, k.TUN.Tried && k.WireGuard.Tried)
	assert.Equal(t, k.WireGuard.Works, k.WireGuard.Reason == "")
	t.Run("nothing of it is seen on the machine", func(t *testing.T) {
		assert.Equal(t, before, machine(t))
	})
	t.Run("a context that is over is no success", func(t *testing.T) {
		cancel()
		assert.False(t, capability.Try(ctx).NFTables.Works)
	})
}

// machine is what a trial could leave behind.
func machine(t *testing.T) []string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	seen := []string{string(mounts)}
	links, err := net.Interfaces()
	require.NoError(t, err)
	for _, l := range links {
		seen = append(seen, l.Name)
	}
	return seen
}
