package subtree_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree/subtreetest"
)

var (
	tenA = enclave.FID{Sequence: 0x200000401, Object: 1}
	tenB = enclave.FID{Sequence: 0x200000401, Object: 2}
)

func lustreConfig() subtree.Config {
	c := config()
	c.Backend, c.Root, c.Source, c.Options = subtree.BackendLustre, "", "10.0.0.5@tcp:10.0.0.6@tcp:/fs", []string{"flock"}
	return c
}

func lustreRequest() subtree.Request {
	r := request()
	r.FID = tenA
	return r
}

// lustreNode is a simulated node with a simulated client: no Lustre runs here.
func lustreNode() (*subtreetest.Host, *subtreetest.Lustre, subtree.Room) {
	h := &subtreetest.Host{}
	c := &subtreetest.Lustre{Host: h, Level: subtree.L1, FIDs: map[string]enclave.FID{
		"proj/tena": tenA, "proj/tenb": tenB, "proj/tena/home": {Sequence: 0x200000401, Object: 3},
	}}
	r := room(h)
	r.Client = c
	return h, c, r
}

func lustrePlan(t *testing.T, c subtree.Config, r subtree.Request) subtree.Plan {
	t.Helper()
	p, err := subtree.NewPlan(c, r)
	require.NoError(t, err)
	return p
}

func TestLustrePlan(t *testing.T) {
	t.Run("each mount is the job's own, and homes are mounted after the subtree that proves them", func(t *testing.T) {
		r := lustreRequest()
		r.HomeTree, r.HomeKeep = "home", ""
		p := lustrePlan(t, lustreConfig(), r)
		assert.Equal(t, `cover  /dev/infiniband
temp   /tmp 1073741824 bytes
temp   /dev/shm 1073741824 bytes
public /lustre <- 10.0.0.5@tcp:10.0.0.6@tcp:/fs/proj/tena
home   /home <- 10.0.0.5@tcp:10.0.0.6@tcp:/fs/proj/tena/home
`, p.String())
		again, err := subtree.ParseDetail(p.Detail())
		require.NoError(t, err)
		assert.Equal(t, p, again)
	})
	t.Run("a tenant that is not registered gets none", func(t *testing.T) {
		_, err := subtree.NewPlan(lustreConfig(), request())
		refused(t, err, subtree.CodeUnregistered, enclave.FaultRequest)
	})
	t.Run("nor one that is registered as the whole file system", func(t *testing.T) {
		r := lustreRequest()
		r.FID = enclave.RootFID()
		_, err := subtree.NewPlan(lustreConfig(), r)
		refused(t, err, subtree.CodeFID, enclave.FaultRequest)
	})
}

func TestLustreUpAndDown(t *testing.T) {
	h, _, r := lustreNode()
	p := lustrePlan(t, lustreConfig(), lustreRequest())
	require.NoError(t, r.Up(t.Context(), p))
	assert.Contains(t, h.String(), "/lustre lustre / 10.0.0.5@tcp:10.0.0.6@tcp:/fs/proj/tena rw,nosuid,nodev,flock\n")
	view := h.String()
	require.NoError(t, r.Up(t.Context(), p), "again")
	assert.Equal(t, view, h.String())
	require.NoError(t, r.Down(t.Context(), lustreConfig().Leftovers()))
	assert.Empty(t, h.String())
	assert.Contains(t, h.Synced, "/lustre")

	t.Run("killed before any change, down cleans", func(t *testing.T) {
		for at := 1; ; at++ {
			h, _, r := lustreNode()
			h.DieAt = at
			if r.Up(t.Context(), p) == nil {
				assert.Equal(t, 7, at, "every change was tried")
				break
			}
			h.DieAt = 0
			require.NoError(t, r.Down(t.Context(), lustreConfig().Leftovers()), "killed at %d", at)
			assert.Empty(t, h.String(), "killed at %d", at)
		}
	})
}

func TestLustreRefuses(t *testing.T) {
	up := func(t *testing.T, change func(*subtreetest.Host, *subtreetest.Lustre)) error {
		t.Helper()
		h, c, r := lustreNode()
		change(h, c)
		return r.Up(t.Context(), lustrePlan(t, lustreConfig(), lustreRequest()))
	}
	t.Run("a directory that was exchanged for another tenant's", func(t *testing.T) {
		err := up(t, func(_ *subtreetest.Host, c *subtreetest.Lustre) { c.FIDs["proj/tena"] = tenB })
		refused(t, err, subtree.CodeFID, enclave.FaultRequest)
	})
	t.Run("a helper that fails", func(t *testing.T) {
		err := up(t, func(_ *subtreetest.Host, c *subtreetest.Lustre) { c.Fail = subtree.ErrHelper })
		refused(t, err, subtree.CodeHelper, enclave.FaultNode)
	})
	t.Run("a node with a mount of the whole file system", func(t *testing.T) {
		for _, point := range []string{"/mnt", "/var/lib/hidden/lustre"} {
			err := up(t, func(h *subtreetest.Host, _ *subtreetest.Lustre) {
				h.Mount(subtree.Mount{Device: "0:50", Root: "/", Point: point, FSType: "lustre", Source: "10.0.0.5@tcp:/fs"})
			})
			refused(t, err, subtree.CodeUnlisted, enclave.FaultNode)
		}
	})
	lies := map[string]func(m *subtree.Mount){
		"fuse that calls itself lustre": func(m *subtree.Mount) { m.FSType = "fuse.lustre" },
		"another tenant's mount":        func(m *subtree.Mount) { m.Source = strings.Replace(m.Source, "tena", "tenb", 1) },
		"a part of another mount":       func(m *subtree.Mount) { m.Root = "/proj/tena" },
		"setuid programs allowed":       func(m *subtree.Mount) { m.Options = []string{"rw", "nodev"} },
	}
	for name, lie := range lies {
		t.Run(name+" at the public path is seen", func(t *testing.T) {
			h, _, r := lustreNode()
			p := lustrePlan(t, lustreConfig(), lustreRequest())
			require.NoError(t, r.Up(t.Context(), p))
			lie(&h.Table[len(h.Table)-1])
			refused(t, r.Check(t.Context(), p), subtree.CodeReadBack, enclave.FaultNode)
		})
	}
}

func TestAssurance(t *testing.T) {
	h, c, r := lustreNode()
	conf := lustreConfig()
	p := lustrePlan(t, conf, lustreRequest())
	require.NoError(t, r.Up(t.Context(), p))
	for _, level := range []string{subtree.L1, subtree.L2} {
		c.Level = level
		got, err := r.Assurance(t.Context(), p)
		require.NoError(t, err)
		assert.Equal(t, level, got)
	}
	t.Run("less than the site wants is refused, and no node's fault", func(t *testing.T) {
		conf.Least = subtree.L2
		c.Level = subtree.L1
		_, err := r.Assurance(t.Context(), lustrePlan(t, conf, lustreRequest()))
		refused(t, err, subtree.CodeAssurance, enclave.FaultPolicy)
	})
	t.Run("a bind mount has L1", func(t *testing.T) {
		got, err := room(h).Assurance(t.Context(), plan(t))
		require.NoError(t, err)
		assert.Equal(t, subtree.L1, got)
	})
}
