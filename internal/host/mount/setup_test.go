package mount_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/againtest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/mount"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

const (
	alice = 42001
	bob   = 42002
	base  = "/mnt/node" // on a tmpfs of the test's own namespace
)

// inNamespace runs the test again in mount and pid namespaces of its own, so that nothing is ever
// mounted in the machine's, and says whether this is the outer run.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if !againtest.Inside(t) {
		againtest.Root(t)
		image := filepath.Join(t.TempDir(), "image")
		fileSystem(t, image)
		t.Setenv("MOUNT_TEST_IMAGE", image)
	}
	if againtest.Outer(t, unix.CLONE_NEWNS|unix.CLONE_NEWPID) {
		return true
	}
	require.NoError(t, unix.Mount("tmpfs", "/mnt", "tmpfs", 0, "mode=0755"))
	return false
}

// fileSystem makes an empty ext4 in a file.
func fileSystem(t *testing.T, image string) {
	t.Helper()
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("mkfs.ext4 is missing")
		}
		t.Skip("mkfs.ext4 is missing: no file system can be mounted")
	}
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 8<<20))
	run(t, "mkfs.ext4", "-q", image)
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	require.NoError(t, err, "%s: %s", strings.Join(argv, " "), out)
	return string(out)
}

// as runs a program as a user; its output ends with the error if there was one.
func as(t *testing.T, uid uint32, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{}}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out) + err.Error()
	}
	return string(out)
}

// background starts a program as a user in a directory and gives it back when it runs.
func background(t *testing.T, uid uint32, dir string, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{}}}
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	return cmd
}

func mkdir(t *testing.T, path string, uid int, mode os.FileMode) {
	t.Helper()
	require.NoError(t, os.MkdirAll(path, 0o755))
	require.NoError(t, os.Chown(path, uid, uid))
	require.NoError(t, os.Chmod(path, mode))
}

func write(t *testing.T, path, text string, uid int, mode os.FileMode) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	require.NoError(t, os.Chown(path, uid, uid))
	require.NoError(t, os.Chmod(path, mode))
}

// site builds a node with the site's file system and two tenants on it. Bob's data can be read by
// everybody: only the view protects them.
func site(t *testing.T) subtree.Config {
	t.Helper()
	fs := base + "/hidden/fs"
	mkdir(t, base+"/hidden", 0, 0o700)
	mkdir(t, fs, 0, 0o755)
	run(t, "mount", "-o", "loop", os.Getenv("MOUNT_TEST_IMAGE"), fs)
	mkdir(t, fs+"/proj/tena/home", alice, 0o755)
	mkdir(t, fs+"/proj/tena", alice, 0o750)
	mkdir(t, fs+"/proj/tenb", bob, 0o755)
	write(t, fs+"/proj/tena/mine", "alice's", alice, 0o644)
	write(t, fs+"/proj/tenb/secret", "bob's", bob, 0o644)
	if _, err := os.Lstat(fs + "/proj/evil"); err != nil {
		require.NoError(t, os.Symlink("tenb", fs+"/proj/evil"))
	}
	for _, dir := range []string{"/lustre", "/tmp", "/shm", "/infiniband", "/home"} {
		mkdir(t, base+dir, 0, 0o755)
	}
	write(t, base+"/infiniband/uverbs0", "", 0, 0o666)
	mkdir(t, base+"/home/alice", alice, 0o755)
	mkdir(t, base+"/home/bob", bob, 0o755)
	write(t, base+"/home/bob/secret", "bob's", bob, 0o644)
	c := subtree.Config{
		Root: fs, FSType: "ext4", Magic: unix.EXT4_SUPER_MAGIC, Public: base + "/lustre",
		Temps:  []subtree.Temp{{Path: base + "/tmp", Size: 1 << 20}, {Path: base + "/shm", Size: 1 << 20}},
		Covers: []string{base + "/infiniband", base + "/none"}, Home: base + "/home",
	}
	// What the machine has mounted anyway is not this test's matter.
	for _, m := range table(t) {
		c.Visible = append(c.Visible, m.Point)
	}
	t.Cleanup(func() {
		require.NoError(t, room().Down(context.WithoutCancel(t.Context()), c.Leftovers()))
		require.NoError(t, unix.Unmount(fs, 0), "nothing keeps the file system")
		require.NoError(t, os.RemoveAll(base))
	})
	return c
}

func room() subtree.Room {
	return subtree.Room{Mounter: mount.Host{}, Observer: mount.Host{}, Holders: mount.Host{}, Space: mount.Host{}, Pause: 50 * time.Millisecond}
}

func plan(t *testing.T, c subtree.Config, change func(*subtree.Request)) subtree.Plan {
	t.Helper()
	r := subtree.Request{Job: enclave.JobKey{Job: 4711}, UID: alice, Subtree: "proj/tena", HomeKeep: "alice"}
	if change != nil {
		change(&r)
	}
	p, err := subtree.NewPlan(c, r)
	require.NoError(t, err)
	return p
}

func table(t *testing.T) []subtree.Mount {
	t.Helper()
	mounts, err := mount.Host{}.Mounts(t.Context())
	require.NoError(t, err)
	return mounts
}

// text is the mount table without the numbers that differ from mount to mount.
func text(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, m := range table(t) {
		b.WriteString(m.String() + " " + strings.Join(m.Options, ",") + "\n")
	}
	return b.String()
}

func refused(t *testing.T, err error, code enclave.Code) {
	t.Helper()
	r, ok := enclave.AsRefusal(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, r.Code, "%v", err)
}
