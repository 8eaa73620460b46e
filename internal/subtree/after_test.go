package subtree_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree/subtreetest"
)

func TestReadBack(t *testing.T) {
	lies := map[string]func(m *subtree.Mount){
		"another tenant's directory": func(m *subtree.Mount) { m.Root = "/proj/tenb" },
		"the whole file system":      func(m *subtree.Mount) { m.Root = "/" },
		"a directory that was moved": func(m *subtree.Mount) { m.Root = "/proj/tena//deleted" },
		"setuid programs allowed":    func(m *subtree.Mount) { m.Options = []string{"rw", "nodev"} },
		"devices allowed":            func(m *subtree.Mount) { m.Options = []string{"rw", "nosuid"} },
		"another file system":        func(m *subtree.Mount) { m.Device = "7:1" },
	}
	for name, lie := range lies {
		t.Run(name+" at the public path is seen", func(t *testing.T) {
			h := node()
			require.NoError(t, room(h).Up(t.Context(), plan(t)))
			lie(&h.Table[len(h.Table)-1])
			refused(t, room(h).Check(t.Context(), plan(t)), subtree.CodeReadBack, enclave.FaultNode)
		})
	}
	t.Run("a mount that vanished is seen", func(t *testing.T) {
		h := node()
		require.NoError(t, room(h).Up(t.Context(), plan(t)))
		h.Table = h.Table[:len(h.Table)-1]
		refused(t, room(h).Check(t.Context(), plan(t)), subtree.CodeReadBack, enclave.FaultNode)
	})
	t.Run("a mount over the view is seen", func(t *testing.T) {
		h := node()
		require.NoError(t, room(h).Up(t.Context(), plan(t)))
		h.Mount(subtree.Mount{Point: "/tmp", FSType: "tmpfs", Source: "x", Device: "0:1", Options: []string{"nosuid", "nodev"}})
		refused(t, room(h).Check(t.Context(), plan(t)), subtree.CodeReadBack, enclave.FaultNode)
	})
}

func TestDownRefuses(t *testing.T) {
	up := func(t *testing.T) *subtreetest.Host {
		t.Helper()
		h := node()
		require.NoError(t, room(h).Up(t.Context(), plan(t)))
		return h
	}
	job := subtree.Holder{PID: 10, UID: 2001, Name: "sleep"}
	sub := subtree.Holder{PID: 11, UID: 100005, Name: "podman"}
	daemon := subtree.Holder{PID: 12, UID: 0, Name: "rsyslogd"}

	t.Run("the job's own holders are killed", func(t *testing.T) {
		h := up(t)
		h.Busy = map[string][]subtree.Holder{"/lustre": {job, sub}}
		require.NoError(t, room(h).Down(t.Context(), plan(t)))
		assert.Equal(t, site, h.String())
		assert.Equal(t, []subtree.Holder{job, sub}, h.Killed)
	})
	t.Run("root's process is named, not killed, and the rest still comes down", func(t *testing.T) {
		h := up(t)
		h.Busy = map[string][]subtree.Holder{"/lustre": {job, daemon}}
		err := room(h).Down(t.Context(), plan(t))
		refused(t, err, subtree.CodeBusy, enclave.FaultNode)
		require.ErrorContains(t, err, "pid 12 rsyslogd uid 0")
		assert.Equal(t, []subtree.Holder{job}, h.Killed)
		assert.NotContains(t, h.String(), "/tmp")
		assert.Contains(t, h.String(), "/lustre")
	})
	t.Run("without a job nobody is killed", func(t *testing.T) {
		h := up(t)
		h.Busy = map[string][]subtree.Holder{"/lustre": {job, daemon}}
		refused(t, room(h).Down(t.Context(), config().Leftovers()), subtree.CodeBusy, enclave.FaultNode)
		assert.Empty(t, h.Killed)
	})
	t.Run("a failed sync is told, and the mount goes all the same", func(t *testing.T) {
		h := up(t)
		h.Fail = map[string]error{"sync /var/lib/hidden/lustre": errors.New("EIO")}
		refused(t, room(h).Down(t.Context(), plan(t)), subtree.CodeSync, enclave.FaultNode)
		assert.Equal(t, site, h.String())
	})
	t.Run("stuck storage keeps its mount for the admin", func(t *testing.T) {
		h := up(t)
		h.Fail = map[string]error{"sync /var/lib/hidden/lustre": context.DeadlineExceeded}
		refused(t, room(h).Down(t.Context(), plan(t)), subtree.CodeStuck, enclave.FaultNode)
		assert.Contains(t, h.String(), "/lustre lustre")
		assert.NotContains(t, h.String(), "/tmp")
	})
	t.Run("a view that lives on in another namespace is told", func(t *testing.T) {
		h := up(t)
		h.Stray = []subtree.Holder{job, daemon}
		refused(t, room(h).Down(t.Context(), plan(t)), subtree.CodeStray, enclave.FaultNode)
		assert.Equal(t, []subtree.Holder{job}, h.Killed)
	})
}

func TestParseMounts(t *testing.T) {
	mounts, err := subtree.ParseMounts(strings.NewReader(
		`36 35 98:0 /proj/a\040b /mnt\134x rw,nosuid shared:1 master:2 - fuse.ssh\040fs a\012b rw,errors=continue` + "\n"))
	require.NoError(t, err)
	assert.Equal(t, []subtree.Mount{{
		ID: 36, Parent: 35, Device: "98:0", Root: "/proj/a b", Point: `/mnt\x`,
		Options: []string{"rw", "nosuid"}, Shared: true, Follows: true, FSType: "fuse.ssh fs", Source: "a\nb", Super: []string{"rw", "errors=continue"},
	}}, mounts)
	for _, bad := range []string{"36 35 98:0 / /mnt rw", "x 35 98:0 / /mnt rw - a b c", "36 35 98:0 / mnt rw - a b c", "1 2 - / / rw - a"} {
		_, err := subtree.ParseMounts(strings.NewReader(bad))
		require.Error(t, err, bad)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add(`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`)
	f.Add("36 36 98:0 / /tmp rw - tmpfs slurm-enclave:1.0 rw\n37 36 98:0 / /tmp rw - tmpfs slurm-enclave:1.0 rw\n36 37 98:0 / /tmp rw - tmpfs slurm-enclave:1.0 rw")
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := subtree.ParseMounts(strings.NewReader(text))
		if err != nil {
			return
		}
		// A table of any shape, circles included, must not hang or panic the room.
		h := &subtreetest.Host{Table: mounts}
		_ = room(h).Check(t.Context(), mustPlan())
	})
}

func mustPlan() subtree.Plan {
	p, err := subtree.NewPlan(config(), request())
	if err != nil {
		panic(err)
	}
	return p
}

func FuzzParseDetail(f *testing.F) {
	f.Add(mustPlan().Detail())
	f.Add(`{"steps":[{"target":".."}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := subtree.ParseDetail(s)
		if err != nil {
			return
		}
		again, err := subtree.ParseDetail(p.Detail())
		require.NoError(t, err)
		require.Equal(t, p.String(), again.String())
	})
}
