package survey_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/closed"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ground"
	"github.com/slurm-enclave/slurm-enclave/internal/host/againtest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/host/mount"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/host/survey"
	"github.com/slurm-enclave/slurm-enclave/internal/journal"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

const alice = 42001

func put(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

func TestGate(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("a C compiler is missing")
		}
		t.Skip("a C compiler is missing")
	}
	top, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	dir := filepath.Join(top, "etc")
	put(t, dir+"/slurm.conf", "PluginDir="+top+"/lib\n")
	put(t, dir+"/plugstack.conf", "include plugstack.conf.d/*.conf\n")
	put(t, dir+"/plugstack.conf.d/enclave.conf", "required enclave.so\n")
	put(t, top+"/x.c", `static const char r[] __attribute__((used, section(".enclave.release"))) = "1.2.3";`)
	require.NoError(t, os.Mkdir(top+"/lib", 0o755))
	out, err := exec.CommandContext(t.Context(), cc, "-shared", "-fPIC", "-o", top+"/lib/enclave.so", top+"/x.c").CombinedOutput()
	require.NoError(t, err, "%s", out)
	c := survey.Configuration{Trust: file.Trust{Owner: uint32(os.Getuid()), Top: top}}
	code := func(r *enclave.Refusal) enclave.Code {
		if r == nil {
			return ""
		}
		return r.Code
	}
	conf := dir + "/slurm.conf"

	assert.Empty(t, code(c.Gate(conf, "", "1.2.3")))
	assert.Equal(t, ground.CodeRelease, code(c.Gate(conf, "", "1.2.4")))
	assert.Equal(t, ground.CodeNoPlugin, code(c.Gate("", dir+"/plugstack.conf", "1.2.3")), "without slurm.conf PluginDir is guessed")
	require.NoError(t, os.Chmod(dir+"/plugstack.conf.d", 0o777))
	assert.Equal(t, ground.CodeWritable, code(c.Gate(conf, "", "1.2.3")), "anybody could put a plugin before the gate")
	require.NoError(t, os.Chmod(dir+"/plugstack.conf.d", 0o755))
	require.NoError(t, os.Chmod(top+"/lib/enclave.so", 0o775))
	assert.Equal(t, ground.CodePlugin, code(c.Gate(conf, "", "1.2.3")))
	put(t, top+"/lib/enclave.so", "#!/bin/sh")
	require.NoError(t, os.Chmod(top+"/lib/enclave.so", 0o755))
	assert.Equal(t, ground.CodeRelease, code(c.Gate(conf, "", "1.2.3")))
	require.NoError(t, os.Rename(dir+"/plugstack.conf.d/enclave.conf", dir+"/plugstack.conf.d/.enclave.conf"))
	assert.Equal(t, ground.CodeNoGate, code(c.Gate(conf, "", "1.2.3")), "slurmd's wildcard does not match a hidden file")
}

func TestMarked(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	c := survey.Configuration{Trust: file.Trust{Owner: uint32(os.Getuid()), Top: top}}
	marker := top + "/etc/enclave-node"
	marked, refusal := c.Marked(marker)
	assert.False(t, marked)
	assert.Nil(t, refusal)
	put(t, marker, "")
	marked, refusal = c.Marked(marker)
	assert.True(t, marked)
	assert.Nil(t, refusal)
	require.NoError(t, os.Chmod(filepath.Dir(marker), 0o777))
	marked, refusal = c.Marked(marker)
	assert.True(t, marked, "a marker that is not trusted still closes the node")
	require.NotNil(t, refusal)
	assert.Equal(t, ground.CodeMarker, refusal.Code)
	require.NoError(t, os.Remove(marker))
	require.NoError(t, os.Symlink("nowhere", marker))
	marked, _ = c.Marked(marker)
	assert.True(t, marked, "a dangling link says yes")
	marked, _ = c.Marked("/etc/passwd/enclave-node")
	assert.False(t, marked)
}

// alone: nothing of the machine's is touched or seen.
const alone = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC

func start(t *testing.T, uid uint32, title string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sleep", "1000")
	cmd.Args[0] = title
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{}}}
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
}

func TestFacts(t *testing.T) {
	if againtest.Outer(t, alone) {
		return
	}
	base := t.TempDir()
	for _, job := range []uint32{5, 6} {
		j, err := journal.Create(base, journal.Header{JobKey: enclave.JobKey{Cluster: "c", Job: job}, UID: alice, Boot: "b"}, func() int64 { return 0 })
		require.NoError(t, err)
		require.NoError(t, j.Leave())
	}
	start(t, 0, "slurmstepd: [6.extern]")
	start(t, alice, "slurmstepd: [5.extern]")
	start(t, 65534, "dnsmasq")
	var f ground.Facts
	require.Eventually(t, func() bool {
		var err error
		f, err = survey.Facts(enclave.JobKey{Cluster: "c", Job: 7}, base, 1000, nil)
		require.NoError(t, err)
		return len(f.Live) > 0 && len(f.Foreign) > 0
	}, 10*time.Second, 10*time.Millisecond)
	assert.Equal(t, []uint32{6}, f.Live, "a user cannot keep a node by a process's title")
	require.Len(t, f.Foreign, 1)
	assert.Equal(t, uint32(alice), f.Foreign[0].UID)
	assert.Len(t, f.Journals, 2)
	_, refusal := ground.Decide(f)
	require.NotNil(t, refusal)
	assert.Equal(t, ground.CodeSuspended, refusal.Code)
}

// TestClosed leaves one thing of each kind behind; each shows, and nothing when it is gone.
func TestClosed(t *testing.T) {
	if againtest.Outer(t, alone|unix.CLONE_NEWNET) {
		return
	}
	require.NoError(t, unix.Mount("tmpfs", "/mnt", "tmpfs", 0, "mode=0755"))
	require.NoError(t, unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"))
	for _, dir := range []string{"/mnt/run/gate", "/mnt/tmp", "/mnt/lib"} {
		require.NoError(t, os.MkdirAll(dir, 0o700))
	}
	none := func(context.Context) ([]string, error) { return nil, nil }
	network := survey.Network()
	network.Tables = none // nftables may not be had here; the epilogs of the lab list them
	places := func() ([]string, error) { return []string{"/mnt/spool", "/mnt/none"}, nil }
	put(t, "/mnt/spool/cron/bob", "")
	require.NoError(t, os.Lchown("/mnt/spool/cron/bob", alice+1, alice+1))
	view := subtree.Config{Root: "/mnt/hidden/fs", FSType: "ext4", Public: "/mnt/lustre", Temps: []subtree.Temp{{Path: "/mnt/tmp"}}}
	node := closed.Node{
		Store: survey.Record{Path: "/mnt/lib/closed.json", Trust: file.Trust{Top: "/mnt"}}, Boot: process.BootID,
		Sources: survey.Closed{View: view, Run: "/mnt/run", Ignore: []string{"7.0"}, Least: 1000, Places: places, Ports: []uint16{51820}}.
			Sources(network),
		Clean: func(context.Context) error { return nil },
	}
	require.NoError(t, node.Close(t.Context()))
	require.Nil(t, closed.Refuse(node.Check(t.Context())))

	put(t, "/mnt/run/7.0/journal", "")
	require.Nil(t, closed.Refuse(node.Check(t.Context())), "the journal that is being closed may be there")

	failed := func() []string {
		var names []string
		for _, c := range node.Check(t.Context()) {
			if c.Result != enclave.CheckPass {
				names = append(names, c.Name)
			}
		}
		return names
	}
	put(t, "/mnt/run/gate/7.go", "")
	assert.Equal(t, []string{"closed.files"}, failed())
	require.NoError(t, os.Remove("/mnt/run/gate/7.go"))

	put(t, "/mnt/spool/cron/alice", "")
	assert.Empty(t, failed(), "root's own is not a user's")
	require.NoError(t, os.Lchown("/mnt/spool/cron/alice", alice, alice))
	assert.Equal(t, []string{"closed.files"}, failed())
	require.NoError(t, os.Remove("/mnt/spool/cron/alice"))

	require.NoError(t, mount.Host{}.Tmpfs(t.Context(), subtree.Tmpfs{Target: "/mnt/tmp", Label: subtree.Label + "7.0", Size: 1 << 20}))
	assert.Equal(t, []string{"closed.mounts"}, failed())
	require.NoError(t, mount.Host{}.Unmount(t.Context(), "/mnt/tmp"))

	leaveNetwork(t, failed)

	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
	require.NoError(t, err)
	assert.Empty(t, failed(), "root's own is not a user's")
	desc := unix.SysvShmDesc{}
	_, err = unix.SysvShmCtl(id, unix.IPC_STAT, &desc)
	require.NoError(t, err)
	desc.Perm.Uid = alice
	_, err = unix.SysvShmCtl(id, unix.IPC_SET, &desc)
	require.NoError(t, err)
	assert.Equal(t, []string{"closed.ipc"}, failed())
	_, err = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	require.NoError(t, err)

	start(t, alice, "sleep")
	assert.Equal(t, []string{"closed.processes"}, failed())
	require.NoError(t, process.Kill(t.Context(), []enclave.UIDRange{{Start: alice, Count: 1}}, 1000))
	assert.Empty(t, failed())
}

// leaveNetwork leaves one thing of each of the network's kinds behind.
func leaveNetwork(t *testing.T, failed func() []string) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetUp(lo))
	require.Empty(t, failed())

	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: mesh.Name(7)}}
	require.NoError(t, netlink.LinkAdd(link))
	assert.Equal(t, []string{"closed.links"}, failed())
	require.NoError(t, netlink.LinkDel(link))

	for _, to := range []string{"10.9.9.9/32", "fd09::9/128"} {
		destination := net.IPNet{IP: netip.MustParsePrefix(to).Addr().AsSlice(), Mask: net.CIDRMask(netip.MustParsePrefix(to).Bits(), netip.MustParsePrefix(to).Addr().BitLen())}
		route := &netlink.Route{Table: int(mesh.Table(7)), Dst: &destination, LinkIndex: lo.Attrs().Index}
		require.NoError(t, netlink.RouteAdd(route))
		assert.Equal(t, []string{"closed.routes"}, failed(), to)
		require.NoError(t, netlink.RouteDel(route))
		route.Table = 4242
		require.NoError(t, netlink.RouteAdd(route))
		assert.Empty(t, failed(), "a table of the site's is not ours")
	}

	tunnel, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 51820})
	require.NoError(t, err)
	assert.Equal(t, []string{"closed.sockets"}, failed())
	require.NoError(t, tunnel.Close())
	put(t, "/run/wireguard/enc7.sock", "")
	put(t, "/run/wireguard/wg0.sock", "")
	assert.Equal(t, []string{"closed.sockets"}, failed(), "a keeper's control socket")
	require.NoError(t, os.Remove("/run/wireguard/enc7.sock"))
	assert.Empty(t, failed(), "the site's own is not ours")

	for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
		domain, kind := unix.AF_INET, unix.SOCK_STREAM
		if strings.HasSuffix(network, "6") {
			domain = unix.AF_INET6
		}
		if strings.HasPrefix(network, "udp") {
			kind = unix.SOCK_DGRAM
		}
		fd, err := unix.Socket(domain, kind, 0)
		require.NoError(t, err)
		var at unix.Sockaddr = &unix.SockaddrInet4{Port: 7777}
		if domain == unix.AF_INET6 {
			at = &unix.SockaddrInet6{Port: 7777}
		}
		require.NoError(t, unix.Bind(fd, at))
		if kind == unix.SOCK_STREAM {
			require.NoError(t, unix.Listen(fd, 1))
		}
		assert.Empty(t, failed(), "root's own is not a user's")
		require.NoError(t, unix.Fchown(fd, alice, alice))
		assert.Equal(t, []string{"closed.sockets"}, failed(), network+" of a user, in the hands of root")
		require.NoError(t, unix.Close(fd))
	}
	assert.Empty(t, failed())
}

func FuzzParseSockets(f *testing.F) {
	for _, name := range []string{"tcp", "tcp6", "udp", "raw"} {
		b, err := os.ReadFile("/proc/net/" + name)
		require.NoError(f, err)
		f.Add(string(b))
	}
	f.Add("  sl  local_address rem_address\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  2001 0 77 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := survey.ParseSockets(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, s := range list {
			require.True(t, s.Local.IsValid())
		}
	})
}

func TestParseSockets(t *testing.T) {
	list, err := survey.ParseSockets(strings.NewReader("head\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  2001        0 77 1 0 100 0\n" +
		"   1: 000080FE00000000FF565486D2F8E9FE:C7DC 0 07 0 0 0 0 0 0 2\n"))
	require.NoError(t, err)
	assert.Equal(t, []survey.Socket{
		{Local: netip.MustParseAddrPort("127.0.0.1:8080"), UID: 2001, Inode: 77},
		{Local: netip.MustParseAddrPort("[fe80::8654:56ff:fee9:f8d2]:51164")},
	}, list)
	for _, bad := range []string{"head\n 0: 0100007F\n", "head\n0: 0100007F 0 0 0 0 0 0 0 0\n", "head\n0: 01:1 0 0 0 0 0 x 0 0\n"} {
		_, err := survey.ParseSockets(strings.NewReader(bad))
		require.Error(t, err, bad)
	}
}

func TestHidden(t *testing.T) {
	c := survey.Configuration{Trust: file.Trust{Owner: uint32(os.Getuid())}}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	require.NoError(t, c.Hidden(dir))
	for _, mode := range []os.FileMode{0o755, 0o710, 0o701, 0o500, 0o700 | os.ModeSticky} {
		require.NoError(t, os.Chmod(dir, mode))
		require.ErrorContains(t, c.Hidden(dir), dir, mode)
	}
	require.NoError(t, os.Chmod(dir, 0o700))
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	require.Error(t, c.Hidden(link), "what a link leads to may change")
	require.ErrorIs(t, c.Hidden(dir+"/gone"), os.ErrNotExist)
	require.Error(t, survey.Configuration{Trust: file.Trust{Owner: uint32(os.Getuid()) + 1}}.Hidden(dir))
}
