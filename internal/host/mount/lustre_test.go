package mount_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/mount"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

var registered = enclave.FID{Sequence: 0x200000401, Object: 0x2a}

// client is a simulated kernel with Lustre's client: none runs here.
type client struct {
	kind  int64
	fids  map[string]enclave.FID
	reach error
}

func (c client) Type(string) (int64, error) { return c.kind, nil }

func (c client) FID(dir string, _ uint32) (enclave.FID, error) {
	f, ok := c.fids[dir]
	if !ok {
		return f, unix.ENOTTY
	}
	return f, nil
}

func (c client) Reach(string, enclave.FID) error { return c.reach }

// lustre is a simulated mount at a directory, with the line of mountinfo that the kernel would have.
func lustre(t *testing.T) (subtree.SubMount, client, string) {
	t.Helper()
	dir := t.TempDir()
	m := subtree.SubMount{
		Source: "10.0.0.5@tcp:/fs", Subtree: "proj/tena", Options: []string{"flock"}, Target: dir, UID: 2001, FID: registered,
	}
	line := fmt.Sprintf("90 80 0:77 / %s rw,nosuid,nodev - lustre 10.0.0.5@tcp:/fs/proj/tena rw,flock,nouser_xattr\n", dir)
	return m, client{kind: 0x0BD00BD0, fids: map[string]enclave.FID{dir: registered}}, line
}

func prove(t *testing.T, m subtree.SubMount, c client, line string) (string, error) {
	t.Helper()
	table := filepath.Join(t.TempDir(), "mountinfo")
	require.NoError(t, os.WriteFile(table, []byte("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"+line), 0o600))
	return mount.Lustre{Table: table, Kernel: c}.Prove(t.Context(), m)
}

func TestLustreProof(t *testing.T) {
	t.Run("a sub-directory mount of the registered directory is L1", func(t *testing.T) {
		m, c, line := lustre(t)
		level, err := prove(t, m, c, line)
		require.NoError(t, err)
		assert.Equal(t, subtree.L1, level)
	})
	t.Run("a directory is proved by one that was proved before", func(t *testing.T) {
		m, c, line := lustre(t)
		m.FID, m.Same = enclave.FID{}, "/lustre/home"
		c.fids["/lustre/home"] = registered
		_, err := prove(t, m, c, line)
		require.NoError(t, err)
		c.fids["/lustre/home"] = enclave.FID{Sequence: 1}
		_, err = prove(t, m, c, line)
		require.ErrorIs(t, err, subtree.ErrFID)
	})
	lies := map[string]struct {
		lie  func(m *subtree.SubMount, c *client, line *string)
		want error
	}{
		"another file system's magic number": {func(_ *subtree.SubMount, c *client, _ *string) { c.kind = 0xEF53 }, subtree.ErrType},
		"a server's target":                  {func(_ *subtree.SubMount, c *client, _ *string) { c.kind = 0x0BD00BD1 }, subtree.ErrType},
		"fuse with Lustre's name":            {func(_ *subtree.SubMount, c *client, _ *string) { c.kind = 0x65735546 }, subtree.ErrType},
		"a type that is fuse.lustre":         {replace(" lustre ", " fuse.lustre "), subtree.ErrType},
		"no line in mountinfo":               {func(_ *subtree.SubMount, _ *client, l *string) { *l = "" }, subtree.ErrType},
		"another mount on top": {func(m *subtree.SubMount, _ *client, l *string) {
			*l += "91 90 0:78 / " + m.Target + " rw - tmpfs x rw\n"
		}, subtree.ErrType},
		"setuid programs allowed":             {replace("nosuid,", ""), subtree.ErrOpen},
		"devices allowed":                     {replace(",nodev", ""), subtree.ErrOpen},
		"paths of every FID told to everyone": {replace("flock", "flock,user_fid2path"), subtree.ErrOpen},
		"another directory": {func(m *subtree.SubMount, c *client, _ *string) {
			c.fids[m.Target] = enclave.FID{Sequence: 7, Object: 7}
		}, subtree.ErrFID},
		"the whole file system": {func(m *subtree.SubMount, c *client, _ *string) { c.fids[m.Target] = enclave.RootFID() }, subtree.ErrOpen},
		"no FID to be had":      {func(_ *subtree.SubMount, c *client, _ *string) { c.fids = nil }, subtree.ErrFID},
		"nothing registered": {func(m *subtree.SubMount, c *client, _ *string) {
			m.FID, c.fids[m.Target] = enclave.FID{}, enclave.FID{}
		}, subtree.ErrFID},
		".lustre within": {func(m *subtree.SubMount, _ *client, _ *string) {
			require.NoError(t, os.Mkdir(m.Target+"/.lustre", 0o700))
		}, subtree.ErrOpen},
	}
	for name, l := range lies {
		t.Run(name+" is refused", func(t *testing.T) {
			m, c, line := lustre(t)
			l.lie(&m, &c, &line)
			_, err := prove(t, m, c, line)
			require.ErrorIs(t, err, l.want)
		})
	}
	t.Run("L2 is what the servers' no to root says, and nothing else", func(t *testing.T) {
		for _, a := range []struct {
			answer error
			level  string
		}{
			{unix.EACCES, subtree.L2}, {unix.EPERM, subtree.L2}, {nil, subtree.L1}, {unix.ESTALE, subtree.L1}, {unix.EINVAL, subtree.L1}, {unix.ENOTTY, subtree.L1},
		} {
			m, c, line := lustre(t)
			m.Canary, c.reach = enclave.FID{Sequence: 0x200000401, Object: 9}, a.answer
			level, err := prove(t, m, c, line)
			require.NoError(t, err)
			assert.Equal(t, a.level, level, "%v", a.answer)
			m.Canary = enclave.FID{}
			level, err = prove(t, m, c, line)
			require.NoError(t, err)
			assert.Equal(t, subtree.L1, level, "without a canary nothing was tried")
		}
	})
	t.Run("this machine's kernel is asked without a simulation, and what is no Lustre is refused", func(t *testing.T) {
		m, _, _ := lustre(t)
		_, err := mount.Lustre{}.Prove(t.Context(), m)
		require.ErrorIs(t, err, subtree.ErrType)
	})
}

func replace(old, with string) func(*subtree.SubMount, *client, *string) {
	return func(_ *subtree.SubMount, _ *client, line *string) {
		was := *line
		for i := 0; i+len(old) <= len(was); i++ {
			if was[i:i+len(old)] == old {
				*line = was[:i] + with + was[i+len(old):]
				return
			}
		}
	}
}

func TestLustreHelper(t *testing.T) {
	dir := t.TempDir()
	helper, log := filepath.Join(dir, "mount.lustre"), filepath.Join(dir, "log")
	write := func(end string) {
		require.NoError(t, os.WriteFile(helper, []byte("#!/bin/sh\nfor a; do echo \"$a\"; done >"+log+"\n/usr/bin/env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= >>"+log+"\n"+end+"\n"), 0o700))
	}
	m, _, _ := lustre(t)
	t.Setenv("LD_PRELOAD_TEST", "not handed on")
	t.Run("it gets a fixed line of arguments and no environment", func(t *testing.T) {
		write("exit 0")
		require.NoError(t, mount.Lustre{Helper: helper}.SubMount(t.Context(), m))
		b, err := os.ReadFile(log)
		require.NoError(t, err)
		assert.Equal(t, "-o\nnosuid,nodev,flock\n10.0.0.5@tcp:/fs/proj/tena\n"+m.Target+"\n", string(b))
	})
	t.Run("its failure is told with its words", func(t *testing.T) {
		write("echo 'mount.lustre: Input/output error' >&2; exit 5")
		err := mount.Lustre{Helper: helper}.SubMount(t.Context(), m)
		require.ErrorIs(t, err, subtree.ErrHelper)
		require.ErrorContains(t, err, "Input/output error")
	})
	t.Run("a node without it is told", func(t *testing.T) {
		require.ErrorIs(t, mount.Lustre{Helper: dir + "/none"}.SubMount(t.Context(), m), subtree.ErrHelper)
	})
}
