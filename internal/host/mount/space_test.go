package mount_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/mount"
)

// TestEnter makes a view as in a job's own namespace, by the kernel: the test's own is one.
func TestEnter(t *testing.T) {
	if inNamespace(t) {
		return
	}
	c := site(t)
	// What the whole file system has mounted below it goes with it.
	mkdir(t, c.Root+"/below", 0, 0o755)
	require.NoError(t, unix.Mount("tmpfs", c.Root+"/below", "tmpfs", 0, ""))
	image := c.Root + "/proj/tenb/secret"
	before := text(t)
	require.Contains(t, before, c.Root)
	level, err := room().Enter(t.Context(), plan(t, c, nil))
	require.NoError(t, err)
	assert.Equal(t, "L1", level)
	assert.NotContains(t, text(t), "on "+c.Root+" ")
	assert.NotContains(t, text(t), c.Root+"/below")

	t.Run("the view is the tenant's subtree and nothing else", func(t *testing.T) {
		assert.Equal(t, []string{"home", "mine"}, names(t, c.Public))
		assert.Empty(t, names(t, filepath.Dir(c.Root)))
	})
	t.Run("not even root has a way back that a mount hid", func(t *testing.T) {
		require.NoError(t, unix.Unmount(filepath.Dir(c.Root), 0))
		assert.Empty(t, names(t, c.Root), "an unmounted cover shows an empty directory")
		assert.NotContains(t, as(t, 0, "/bin/cat", image), "bob's")
	})
	t.Run("a user namespace uncovers nothing", func(t *testing.T) {
		out := as(t, alice, "/usr/bin/unshare", "-Urm", "/bin/sh", "-c",
			"umount "+c.Public+"; umount -R "+c.Public+"; umount -l "+c.Public+"; cat "+image+" "+c.Public+"/../secret; ls "+c.Public)
		assert.NotContains(t, out, "bob's")
		assert.Contains(t, out, "mine", "the view still stands: %s", out)
	})
	again(t, c.Root)
}

// again mounts the file system where the other tests' clean-up looks for it.
func again(t *testing.T, root string) {
	t.Helper()
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		out, err := exec.CommandContext(ctx, "mount", "-o", "loop", os.Getenv("MOUNT_TEST_IMAGE"), root).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
}

func TestDetachNeedsAMount(t *testing.T) {
	if inNamespace(t) {
		return
	}
	require.Error(t, mount.Host{}.Detach(t.Context(), "/mnt/nothing"))
	require.NoError(t, mount.Host{}.Private(t.Context()))
	require.NoError(t, mount.Host{}.Detach(t.Context(), "/mnt"))
}
