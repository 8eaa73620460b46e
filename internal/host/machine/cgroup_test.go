package machine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

func TestFindCgroups(t *testing.T) {
	for name, c := range map[string]struct {
		mountinfo string
		kind      machine.Cgroups
		where     string
	}{
		"the freezer of version 1 is found": {
			"30 1 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n31 1 0:28 / /sys/fs/cgroup/freezer rw shared:1 - cgroup cgroup rw,freezer\n",
			machine.CgroupFreezer, "/sys/fs/cgroup/freezer",
		},
		"the freezer wins over a unified hierarchy beside it": {
			"29 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n31 1 0:28 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n",
			machine.CgroupFreezer, "/sys/fs/cgroup/freezer",
		},
		"a unified hierarchy is found": {
			"29 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", machine.CgroupUnified, "/sys/fs/cgroup",
		},
		"a machine without any has none": {"22 1 0:21 / /proc rw - proc proc rw\n\nhalf a line\n", machine.CgroupNone, ""},
	} {
		t.Run(name, func(t *testing.T) {
			kind, where, err := machine.FindCgroups(strings.NewReader(c.mountinfo))
			require.NoError(t, err)
			assert.Equal(t, c.kind, kind)
			assert.Equal(t, c.where, where)
		})
	}
}

func TestRemoveCgroups(t *testing.T) {
	t.Run("a tree of empty folders goes", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "lab")
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "n1", "slurm_n1"), 0o755))
		require.NoError(t, machine.RemoveCgroups(dir))
		assert.NoDirExists(t, dir)
	})
	t.Run("one that is gone is fine", func(t *testing.T) {
		assert.NoError(t, machine.RemoveCgroups(filepath.Join(t.TempDir(), "gone")))
	})
}
