package subtree_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

func TestWatched(t *testing.T) {
	h := node()
	h.Mount(subtree.Mount{Point: "/opt/apps", FSType: "nfs4", Source: "nas:/apps"})
	h.Mount(subtree.Mount{Point: "/boot", FSType: "ext4", Source: "/dev/sda1"})
	before := subtree.Watched(config(), h.Table)
	assert.Equal(t, []string{`"/var/lib/hidden/lustre" type lustre root "/" source "site" `}, before)

	require.NoError(t, room(h).Up(t.Context(), plan(t)))
	assert.Len(t, subtree.Watched(config(), h.Table), 7, "every mount of the view but the user's own home, which goes with its cover")
	require.NoError(t, room(h).Down(t.Context(), plan(t)))
	assert.Equal(t, before, subtree.Watched(config(), h.Table))

	h.Mount(subtree.Mount{Point: "/home/alice/x", FSType: "fuse.sshfs", Source: "elsewhere:\n"})
	assert.Contains(t, subtree.Watched(config(), h.Table), `"/home/alice/x" type fuse.sshfs root "" source "elsewhere:\n" `, "a user's FUSE mount is seen wherever it is")
}
