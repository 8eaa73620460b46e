package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest"
	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
)

func TestServesUntilItIsToldToEnd(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("no /dev/fuse, or not root")
		}
		t.Skip("no /dev/fuse, or not root: configfs-tsm can't be served")
	}
	mount, keys, faults := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "faults.json")
	_, err := attesttest.NewHierarchy(keys, attesttest.SmallKeys())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		c := command(&bytes.Buffer{})
		c.SetArgs([]string{"--mount", mount, "--hierarchy", keys, "--node", "n7", "--faults", faults})
		done <- c.ExecuteContext(ctx)
	}()
	attester := attest.New(mount)
	require.Eventually(t, func() bool {
		ev, errEvidence := attester.Evidence(t.Context(), [64]byte{5})
		id := attesttest.ChipID("n7")
		return errEvidence == nil && bytes.Equal(ev.Report[0x1a0:0x1e0], id[:])
	}, 10*time.Second, 20*time.Millisecond)
	require.NoError(t, os.WriteFile(faults, []byte(`{"no_report":true}`), 0o600))
	_, err = attester.Evidence(t.Context(), [64]byte{5})
	require.Error(t, err, "faults are read while it runs")
	cancel()
	require.NoError(t, <-done)
	dirs, err := os.ReadDir(mount)
	require.NoError(t, err)
	assert.Empty(t, dirs)
	_, err = attester.Evidence(t.Context(), [64]byte{5})
	require.Error(t, err, "it is unmounted: a plain directory is no attester")
}

func TestFlagsAreNeeded(t *testing.T) {
	for _, args := range [][]string{{}, {"--mount", "/x"}, {"--mount", "/x", "--hierarchy", "/y"}, {"x"}} {
		c := command(&bytes.Buffer{})
		c.SetArgs(args)
		require.Error(t, c.ExecuteContext(t.Context()))
	}
}
