package survey_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
	if againtest.Outer(t, alone) {
		return
	}
	require.NoError(t, unix.Mount("tmpfs", "/mnt", "tmpfs", 0, "mode=0755"))
	for _, dir := range []string{"/mnt/run/gate", "/mnt/tmp", "/mnt/lib"} {
		require.NoError(t, os.MkdirAll(dir, 0o700))
	}
	none := func(context.Context) ([]string, error) { return nil, nil }
	places := func() ([]string, error) { return []string{"/mnt/spool", "/mnt/none"}, nil }
	put(t, "/mnt/spool/cron/bob", "")
	require.NoError(t, os.Lchown("/mnt/spool/cron/bob", alice+1, alice+1))
	view := subtree.Config{Root: "/mnt/hidden/fs", FSType: "ext4", Public: "/mnt/lustre", Temps: []subtree.Temp{{Path: "/mnt/tmp"}}}
	node := closed.Node{
		Store: survey.Record{Path: "/mnt/lib/closed.json", Trust: file.Trust{Top: "/mnt"}}, Boot: process.BootID,
		Sources: survey.Closed{View: view, Run: "/mnt/run", Ignore: []string{"7.0"}, Least: 1000, Places: places}.
			Sources(closed.Sources{Links: none, Rules: none, Tables: none}),
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
