package subtree_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree/subtreetest"
)

func TestEnter(t *testing.T) {
	t.Run("the view stands and the whole file system is gone", func(t *testing.T) {
		h := node()
		level, err := room(h).Enter(t.Context(), plan(t))
		require.NoError(t, err)
		assert.Equal(t, subtree.L1, level)
		assert.NotContains(t, h.String(), "/var/lib/hidden/lustre lustre")
		assert.Contains(t, h.String(), "/lustre lustre /proj/tena site rw,nosuid,nodev\n")
		assert.Contains(t, h.String(), "/var/lib/hidden tmpfs / slurm-enclave:4711.0 ro,nosuid,nodev\n")
	})
	t.Run("homes of the tenant's own are in it", func(t *testing.T) {
		h, r := node(), request()
		r.HomeKeep, r.HomeTree = "", "home"
		p, err := subtree.NewPlan(config(), r)
		require.NoError(t, err)
		_, err = room(h).Enter(t.Context(), p)
		require.NoError(t, err)
		assert.Contains(t, h.String(), "/home lustre /proj/tena/home site rw,nosuid,nodev\n")
	})
	t.Run("mounts of other namespaces neither come nor go", func(t *testing.T) {
		h := node()
		h.Table[0].Shared = true
		h.Mount(subtree.Mount{Root: "/", Point: "/opt", FSType: "ext4", Follows: true})
		_, err := room(h).Enter(t.Context(), plan(t))
		require.NoError(t, err)
		for _, m := range h.Table {
			assert.False(t, m.Shared || m.Follows, m.String())
		}
	})
	t.Run("whatever fails, there is no view", func(t *testing.T) {
		for _, what := range []string{"private", "bind /lustre", "detach /var/lib/hidden/lustre", "tmpfs /var/lib/hidden", "tmpfs /tmp"} {
			h := node()
			h.Fail = map[string]error{what: errors.New("no")}
			_, err := room(h).Enter(t.Context(), plan(t))
			refused(t, err, subtree.CodeAct, enclave.FaultNode)
		}
	})
	for name, c := range map[string]struct {
		host func(*fooled)
		code enclave.Code
	}{
		"a kernel that leaves the whole file system is found out": {func(f *fooled) { f.detach = false }, subtree.CodeWhole},
		"a cover that does not stand is found out":                {func(f *fooled) { f.cover = false }, subtree.CodeWhole},
		"mounts that stay shared are found out": {func(f *fooled) {
			f.private = false
			f.Mount(subtree.Mount{Root: "/", Point: "/opt", FSType: "ext4", Shared: true})
		}, subtree.CodeWhole},
		"a second mount of the file system is found out": {func(f *fooled) {
			f.Mount(subtree.Mount{Device: "7:0", Root: "/", Point: "/mnt", FSType: "lustre", Source: "site"})
		}, subtree.CodeSecond},
		"a network mount that nobody listed is found out": {func(f *fooled) {
			f.Mount(subtree.Mount{Device: "0:99", Root: "/", Point: "/mnt", FSType: "nfs4", Source: "x"})
		}, subtree.CodeUnlisted},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fooled{Host: node(), detach: true, cover: true, private: true}
			c.host(f)
			r := room(f.Host)
			r.Mounter, r.Space = f, f
			_, err := r.Enter(t.Context(), plan(t))
			refused(t, err, c.code, enclave.FaultNode)
		})
	}
	t.Run("backend lustre is not for it", func(t *testing.T) {
		_, err := room(node()).Enter(t.Context(), subtree.Plan{Backend: subtree.BackendLustre})
		refused(t, err, subtree.CodeConfig, enclave.FaultPolicy)
	})
}

// fooled is a node whose kernel says yes and does not do it.
type fooled struct {
	*subtreetest.Host

	detach, cover, private bool
}

func (f *fooled) Private(ctx context.Context) error {
	if !f.private {
		return nil
	}
	return f.Host.Private(ctx)
}

func (f *fooled) Detach(ctx context.Context, point string) error {
	if !f.detach {
		return nil
	}
	return f.Host.Detach(ctx, point)
}

func (f *fooled) Tmpfs(ctx context.Context, m subtree.Tmpfs) error {
	if !f.cover && m.Target == "/var/lib/hidden" {
		return nil
	}
	return f.Host.Tmpfs(ctx, m)
}

func TestOutside(t *testing.T) {
	t.Run("a node without a view is ready for one elsewhere", func(t *testing.T) {
		require.NoError(t, room(node()).Ready(t.Context(), plan(t)))
	})
	t.Run("a view in the node's own namespace is refused", func(t *testing.T) {
		h := node()
		require.NoError(t, room(h).Up(t.Context(), plan(t)))
		refused(t, room(h).Ready(t.Context(), plan(t)), subtree.CodeVisible, enclave.FaultNode)
		refused(t, room(h).Outside(t.Context(), plan(t)), subtree.CodeVisible, enclave.FaultNode)
	})
	t.Run("so is the file system at the public path", func(t *testing.T) {
		h := node()
		h.Mount(subtree.Mount{Device: "7:0", Root: "/proj/tenb", Point: "/lustre", FSType: "lustre", Source: "site"})
		refused(t, room(h).Outside(t.Context(), plan(t)), subtree.CodeVisible, enclave.FaultNode)
	})
}

func TestFlush(t *testing.T) {
	h := node()
	require.NoError(t, room(h).Flush(t.Context(), plan(t)))
	assert.Equal(t, []string{"/var/lib/hidden/lustre"}, h.Synced)
	h.Fail = map[string]error{"sync /var/lib/hidden/lustre": errors.New("input/output error")}
	refused(t, room(h).Flush(t.Context(), plan(t)), subtree.CodeSync, enclave.FaultNode)
	require.NoError(t, room(&subtreetest.Host{}).Flush(t.Context(), plan(t)), "what is not mounted has nothing to lose")
}
