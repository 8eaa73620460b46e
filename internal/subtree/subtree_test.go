package subtree_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree/subtreetest"
)

const site = "/var/lib/hidden/lustre lustre / site \n"

func config() subtree.Config {
	return subtree.Config{
		Root: "/var/lib/hidden/lustre", FSType: "lustre", Magic: 0x0BD00BD0, Public: "/lustre",
		Temps:  []subtree.Temp{{Path: "/tmp", Size: 1 << 30}, {Path: "/dev/shm", Size: 1 << 30}},
		Covers: []string{"/dev/infiniband"}, Home: "/home", Visible: []string{"/opt/apps"},
	}
}

func request() subtree.Request {
	return subtree.Request{
		Job: enclave.JobKey{Cluster: "c", Job: 4711}, UID: 2001, Subtree: "proj/tena", HomeKeep: "alice",
		SubUIDs: []enclave.UIDRange{{Start: 100000, Count: 65536}},
	}
}

func plan(t *testing.T) subtree.Plan {
	t.Helper()
	p, err := subtree.NewPlan(config(), request())
	require.NoError(t, err)
	return p
}

func room(h *subtreetest.Host) subtree.Room {
	return subtree.Room{Mounter: h, Observer: h, Holders: h, Space: h, Pause: time.Nanosecond}
}

func node() *subtreetest.Host { return subtreetest.New("/var/lib/hidden/lustre", "lustre") }

func refused(t *testing.T, err error, code enclave.Code, fault enclave.Fault) {
	t.Helper()
	r, ok := enclave.AsRefusal(err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, code, r.Code, "%v", err)
	assert.Equal(t, fault, r.Fault, "%v", err)
	assert.NotEmpty(t, r.Fix)
}

func TestPlan(t *testing.T) {
	t.Run("the tenant's subtree comes last", func(t *testing.T) {
		assert.Equal(t, `cover  /dev/infiniband
temp   /tmp 1073741824 bytes
temp   /dev/shm 1073741824 bytes
home   /home keeping alice
public /lustre <- /var/lib/hidden/lustre/proj/tena
`, plan(t).String())
	})
	t.Run("a tenant's homes are a directory of its subtree", func(t *testing.T) {
		r := request()
		r.HomeTree, r.HomeKeep = "home", ""
		p, err := subtree.NewPlan(config(), r)
		require.NoError(t, err)
		assert.Contains(t, p.String(), "home   /home <- /var/lib/hidden/lustre/proj/tena/home\n")
	})
	t.Run("the inverse runs backwards", func(t *testing.T) {
		inverse := plan(t).Inverse()
		assert.Equal(t, "/lustre", inverse[0].Target)
		assert.Equal(t, "/dev/infiniband", inverse[4].Target)
	})
	t.Run("the journal gives the plan back", func(t *testing.T) {
		p, err := subtree.ParseDetail(plan(t).Detail())
		require.NoError(t, err)
		assert.Equal(t, plan(t), p)
	})
	for _, evil := range []string{"", "/", "/proj/tena", ".", "..", "proj/../tenb", "proj//tena", "proj/./tena", "proj/tena/", "a\x00b", "a\nb"} {
		t.Run(fmt.Sprintf("subtree %q is refused", evil), func(t *testing.T) {
			r := request()
			r.Subtree = evil
			_, err := subtree.NewPlan(config(), r)
			refused(t, err, subtree.CodeConfig, enclave.FaultPolicy)
			r = request()
			r.HomeKeep = evil
			_, err = subtree.NewPlan(config(), r)
			if evil != "" {
				require.Error(t, err)
			}
		})
	}
	bad := map[string]func(*subtree.Config){
		"two targets in each other":          func(c *subtree.Config) { c.Home = "/tmp/home" },
		"the same target twice":              func(c *subtree.Config) { c.Home = "/tmp" },
		"the root directory as a target":     func(c *subtree.Config) { c.Public = "/" },
		"a target that holds the hidden one": func(c *subtree.Config) { c.Covers = []string{"/var/lib"} },
		"a target in the hidden directory":   func(c *subtree.Config) { c.Public = "/var/lib/hidden/x" },
		"a path with a second spelling":      func(c *subtree.Config) { c.Public = "/lustre/" },
		"no expected type":                   func(c *subtree.Config) { c.FSType = "" },
		"no expected magic":                  func(c *subtree.Config) { c.Magic = 0 },
		"a temporary directory without size": func(c *subtree.Config) { c.Temps[0].Size = 0 },
	}
	for name, change := range bad {
		t.Run(name+" is refused", func(t *testing.T) {
			c := config()
			change(&c)
			_, err := subtree.NewPlan(c, request())
			refused(t, err, subtree.CodeConfig, enclave.FaultPolicy)
		})
	}
	t.Run("root gets no view", func(t *testing.T) {
		r := request()
		r.UID = 0
		_, err := subtree.NewPlan(config(), r)
		refused(t, err, subtree.CodeConfig, enclave.FaultRequest)
	})
}

const view = site + `/dev/infiniband tmpfs / slurm-enclave:4711.0 ro,nosuid,nodev
/tmp tmpfs / slurm-enclave:4711.0 rw,nosuid,nodev
/dev/shm tmpfs / slurm-enclave:4711.0 rw,nosuid,nodev
/home tmpfs / slurm-enclave:4711.0 ro,nosuid,nodev
/home/alice ext4 /home/alice /dev/sda1 rw,nosuid,nodev
/lustre tmpfs / slurm-enclave:4711.0 ro,nosuid,nodev
/lustre lustre /proj/tena site rw,nosuid,nodev
`

func TestUpAndDown(t *testing.T) {
	t.Run("up makes the view, down leaves what was there", func(t *testing.T) {
		h := node()
		require.NoError(t, room(h).Up(t.Context(), plan(t)))
		assert.Equal(t, view, h.String())
		require.NoError(t, room(h).Down(t.Context(), plan(t)))
		assert.Equal(t, site, h.String())
		assert.Equal(t, []string{"/var/lib/hidden/lustre", "/home/alice"}, h.Synced)
	})
	t.Run("up twice is up, down twice is down", func(t *testing.T) {
		h := node()
		require.NoError(t, room(h).Up(t.Context(), plan(t)))
		require.NoError(t, room(h).Up(t.Context(), plan(t)))
		assert.Equal(t, view, h.String())
		require.NoError(t, room(h).Down(t.Context(), plan(t)))
		require.NoError(t, room(h).Down(t.Context(), plan(t)))
		assert.Equal(t, site, h.String())
	})
	t.Run("down alone does nothing", func(t *testing.T) {
		h := node()
		require.NoError(t, room(h).Down(t.Context(), config().Leftovers()))
		assert.Equal(t, site, h.String())
	})
	t.Run("killed before any change, down cleans and up completes", func(t *testing.T) {
		for at := 1; ; at++ {
			h := node()
			h.DieAt = at
			err := room(h).Up(t.Context(), plan(t))
			if err == nil {
				assert.Equal(t, 7, at, "every change was tried")
				break
			}
			h.DieAt = 0
			half := *h
			half.Table = append([]subtree.Mount(nil), h.Table...)
			require.NoError(t, room(h).Down(t.Context(), config().Leftovers()), "killed at %d", at)
			assert.Equal(t, site, h.String())
			require.NoError(t, room(&half).Up(t.Context(), plan(t)), "killed at %d", at)
			assert.Equal(t, strings.Count(view, "\n"), strings.Count(half.String(), "\n"))
		}
	})
	t.Run("killed while taking down, down goes on", func(t *testing.T) {
		for at := 1; at < 8; at++ {
			h := node()
			require.NoError(t, room(h).Up(t.Context(), plan(t)))
			again := subtreetest.Host{Table: h.Table, DieAt: at}
			require.Error(t, room(&again).Down(t.Context(), plan(t)))
			again.DieAt = 0
			require.NoError(t, room(&again).Down(t.Context(), plan(t)))
			assert.Equal(t, site, again.String())
		}
	})
	t.Run("the view of an earlier start is replaced", func(t *testing.T) {
		h := node()
		r := request()
		r.Job.Job, r.Subtree = 9, "proj/tenb"
		old, err := subtree.NewPlan(config(), r)
		require.NoError(t, err)
		require.NoError(t, room(h).Up(t.Context(), old))
		require.NoError(t, room(h).Up(t.Context(), plan(t)))
		assert.Equal(t, view, h.String())
	})
	t.Run("mounts of ours in double, crossed, and with the user's own in them all go", func(t *testing.T) {
		h := node()
		for range 3 {
			require.NoError(t, h.Tmpfs(t.Context(), subtree.Tmpfs{Target: "/tmp", Label: "slurm-enclave:9.0"}))
			h.Mount(subtree.Mount{Point: "/tmp/a/b", FSType: "fuse.sshfs", Source: "elsewhere:", Device: "0:9"})
			h.Mount(subtree.Mount{Point: "/tmp/a", FSType: "fuse.sshfs", Source: "elsewhere:", Device: "0:8"})
		}
		require.NoError(t, room(h).Down(t.Context(), config().Leftovers()))
		assert.Equal(t, site, h.String())
	})
	t.Run("a mount of the site's on a target is covered and stays", func(t *testing.T) {
		h := node()
		h.Mount(subtree.Mount{Point: "/tmp", FSType: "tmpfs", Source: "tmpfs", Device: "0:7"})
		h.Mount(subtree.Mount{Point: "/home", FSType: "nfs4", Source: "nas:/home", Device: "0:6"})
		before := h.String()
		require.NoError(t, room(h).Up(t.Context(), plan(t)))
		require.NoError(t, room(h).Down(t.Context(), plan(t)))
		assert.Equal(t, before, h.String())
	})
	t.Run("a device directory that is not there is not covered", func(t *testing.T) {
		h := node()
		h.Missing = []string{"/dev/infiniband"}
		require.NoError(t, room(h).Up(t.Context(), plan(t)))
		assert.NotContains(t, h.String(), "infiniband")
	})
}

func TestUpRefuses(t *testing.T) {
	mount := func(m subtree.Mount) func(*subtreetest.Host) { return func(h *subtreetest.Host) { h.Mount(m) } }
	cases := map[string]struct {
		change func(*subtreetest.Host)
		code   enclave.Code
		fault  enclave.Fault
	}{
		"a file system that is not mounted":         {func(h *subtreetest.Host) { h.Table = nil }, subtree.CodeType, enclave.FaultNode},
		"fuse that calls itself lustre":             {func(h *subtreetest.Host) { h.Table[0].FSType = "fuse.lustre" }, subtree.CodeType, enclave.FaultNode},
		"the file system mounted twice":             {mount(subtree.Mount{Point: "/var/lib/hidden/lustre", FSType: "lustre"}), subtree.CodeType, enclave.FaultNode},
		"the whole file system at the public path":  {mount(subtree.Mount{Device: "7:0", Root: "/", Point: "/lustre", FSType: "lustre"}), subtree.CodeSecond, enclave.FaultNode},
		"another directory of it somewhere":         {mount(subtree.Mount{Device: "7:0", Root: "/proj", Point: "/mnt", FSType: "lustre"}), subtree.CodeSecond, enclave.FaultNode},
		"a local mount at the public path":          {mount(subtree.Mount{Device: "8:2", Root: "/", Point: "/lustre", FSType: "xfs"}), subtree.CodeTarget, enclave.FaultNode},
		"an unlisted nfs mount":                     {mount(subtree.Mount{Device: "0:5", Point: "/scratch", FSType: "nfs4"}), subtree.CodeUnlisted, enclave.FaultNode},
		"an unlisted sshfs mount":                   {mount(subtree.Mount{Device: "0:5", Point: "/scratch", FSType: "fuse.sshfs"}), subtree.CodeUnlisted, enclave.FaultNode},
		"an automounter":                            {mount(subtree.Mount{Device: "0:5", Point: "/net", FSType: "autofs"}), subtree.CodeUnlisted, enclave.FaultNode},
		"a mount beneath a listed one":              {mount(subtree.Mount{Device: "0:5", Point: "/opt/apps/x", FSType: "nfs4"}), subtree.CodeUnlisted, enclave.FaultNode},
		"a tenant that is a symlink":                {fail("bind /lustre", subtree.ErrTenant), subtree.CodeTenant, enclave.FaultRequest},
		"a tenant's directory of somebody else":     {fail("bind /lustre", subtree.ErrOwner), subtree.CodeOwner, enclave.FaultRequest},
		"a hidden directory that is open":           {fail("bind /lustre", subtree.ErrExposed), subtree.CodeExposed, enclave.FaultNode},
		"a kernel that does not mount":              {fail("tmpfs /tmp", errors.New("ENOSPC")), subtree.CodeAct, enclave.FaultNode},
		"a public path that is missing":             {func(h *subtreetest.Host) { h.Missing = []string{"/lustre"} }, subtree.CodeTarget, enclave.FaultNode},
		"a mount of the file system in a dev cover": {mount(subtree.Mount{Device: "7:0", Point: "/dev/x", FSType: "lustre"}), subtree.CodeSecond, enclave.FaultNode},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h := node()
			c.change(h)
			refused(t, room(h).Up(t.Context(), plan(t)), c.code, c.fault)
		})
	}
	t.Run("systemd's automounter of binary formats and listed mounts are fine", func(t *testing.T) {
		h := node()
		h.Mount(subtree.Mount{Device: "0:5", Point: "/proc/sys/fs/binfmt_misc", FSType: "autofs"})
		h.Mount(subtree.Mount{Device: "0:6", Point: "/opt/apps", FSType: "nfs4"})
		require.NoError(t, room(h).Up(t.Context(), plan(t)))
	})
}

func fail(what string, err error) func(*subtreetest.Host) {
	return func(h *subtreetest.Host) { h.Fail = map[string]error{what: err} }
}
