package peer_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/peer"
)

func TestUIDOfTheOtherEnd(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	c, err := net.Dial("unix", l.Addr().String())
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	s, err := l.Accept()
	require.NoError(t, err)
	defer func() { _ = s.Close() }()
	uid, err := peer.UID(s)
	require.NoError(t, err)
	assert.Equal(t, uint32(os.Geteuid()), uid)
}

func TestOtherConnectionsHaveNoPeer(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer func() { _ = a.Close() }()
	defer func() { _ = b.Close() }()
	_, err := peer.UID(a)
	require.Error(t, err)
}
