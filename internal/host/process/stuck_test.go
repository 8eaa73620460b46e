package process_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/againtest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
)

// deaf is a file system of alice's at /mnt which reads a question and answers nothing but the first one.
func deaf(t *testing.T) (asked chan struct{}) {
	t.Helper()
	dir := t.TempDir()
	device := filepath.Join(dir, "fuse")
	require.NoError(t, unix.Mknod(device, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 229))))
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, unix.Close(fd)) })
	require.NoError(t, unix.Mount("deaf", "/mnt", "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", fd, alice, alice)))
	asked = make(chan struct{}, 1)
	go func() {
		question := make([]byte, 1<<18)
		if n, err := unix.Read(fd, question); err != nil || n < 16 {
			return
		}
		answer := make([]byte, 80) // fuse_out_header and fuse_init_out of <linux/fuse.h>
		binary.NativeEndian.PutUint32(answer, 80)
		copy(answer[8:16], question[8:16])
		binary.NativeEndian.PutUint32(answer[16:], 7)
		binary.NativeEndian.PutUint32(answer[20:], 31)
		binary.NativeEndian.PutUint32(answer[24:], 65536)
		binary.NativeEndian.PutUint32(answer[36:], 65536)
		if _, err := unix.Write(fd, answer); err != nil {
			return
		}
		if _, err := unix.Read(fd, question); err == nil {
			asked <- struct{}{}
		}
	}()
	return asked
}

// TestStuck: a user's file system answers nothing, and who waits for it hears no signal.
func TestStuck(t *testing.T) {
	if againtest.Outer(t, alone) {
		return
	}
	asked := deaf(t)
	other := start(t, bob, "", "/bin/sleep", "1000")
	waits := start(t, alice, "", "/bin/cat", "/mnt/x")
	<-asked
	stuck := process.StuckPeople(least)
	for range 3 {
		ended, err := stuck.Look()
		require.NoError(t, err)
		assert.Zero(t, ended, "a process that waits and was not killed is let be")
	}
	require.NoError(t, waits.Process.Kill())
	status := filepath.Join("/proc", strconv.Itoa(waits.Process.Pid), "status")
	asleep := func() bool {
		b, err := os.ReadFile(status)
		return err == nil && strings.Contains(string(b), "State:\tD")
	}
	require.Eventually(t, asleep, 10*time.Second, time.Millisecond)
	require.Never(t, func() bool { return !asleep() }, 200*time.Millisecond, 5*time.Millisecond, "control: it does not end by itself")
	stuck = process.StuckOf(ids(bob))
	for range 3 {
		ended, err := stuck.Look()
		require.NoError(t, err)
		assert.Zero(t, ended, "another user's")
	}
	require.NoError(t, kill(t, ids(alice)))
	assert.Empty(t, living(t, alice))
	assert.Len(t, living(t, bob), 1)
	require.NoError(t, other.Process.Kill())
	require.NoError(t, unix.Unmount("/mnt", 0))
	b, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	assert.NotContains(t, string(b), "fusectl", "nothing was mounted to be seen")
}
