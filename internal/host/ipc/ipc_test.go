package ipc_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/againtest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/ipc"
)

const (
	alice = 42001
	bob   = 42002
)

// makeObjects makes one object of each kind and ends; they outlive it.
func makeObjects(t *testing.T) {
	t.Helper()
	_, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
	require.NoError(t, err)
	_, _, errno := unix.Syscall(unix.SYS_SEMGET, unix.IPC_PRIVATE, 1, unix.IPC_CREAT|0o600)
	require.Zero(t, errno)
	_, _, errno = unix.Syscall(unix.SYS_MSGGET, unix.IPC_PRIVATE, unix.IPC_CREAT|0o600, 0)
	require.Zero(t, errno)
	name, err := unix.BytePtrFromString("left\nbehind-" + os.Getenv("IPC_TEST_MAKE"))
	require.NoError(t, err)
	fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_CREAT|unix.O_RDWR, 0o600, 0, 0, 0)
	require.Zero(t, errno)
	require.NoError(t, unix.Close(int(fd)))
}

func text(t *testing.T, uid uint32) string {
	t.Helper()
	objects, err := ipc.List([]enclave.UIDRange{{Start: uid, Count: 1}})
	require.NoError(t, err)
	var s []string
	for _, o := range objects {
		s = append(s, string(o.Kind))
	}
	return strings.Join(s, " ")
}

func TestRemove(t *testing.T) {
	if os.Getenv("IPC_TEST_MAKE") != "" {
		makeObjects(t)
		return
	}
	if againtest.Outer(t, unix.CLONE_NEWIPC) {
		return
	}
	for name, uid := range map[string]uint32{"alice": alice, "bob": bob, "root": 0} {
		againtest.Run(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{}}}, "IPC_TEST_MAKE="+name)
	}
	const all = "shm sem msg mqueue"
	require.Equal(t, all, text(t, alice))
	objects, err := ipc.List([]enclave.UIDRange{{Start: bob, Count: 1}})
	require.NoError(t, err)
	var keep []string
	for _, o := range objects {
		keep = append(keep, o.String())
	}
	require.NoError(t, ipc.Remove([]enclave.UIDRange{{Start: bob, Count: 1}}, keep))
	assert.Equal(t, all, text(t, bob), "what is to be kept stays")
	require.NoError(t, ipc.Remove([]enclave.UIDRange{{Start: alice, Count: 1}}, nil))
	assert.Empty(t, text(t, alice))
	assert.Equal(t, all, text(t, bob), "another user's objects stay")
	assert.Equal(t, all, text(t, 0))
	require.Error(t, ipc.Remove([]enclave.UIDRange{{Start: 0, Count: 5000}}, nil), "a range with root is refused")
	assert.Equal(t, all, text(t, 0))
	require.NoError(t, ipc.Remove([]enclave.UIDRange{{Start: alice, Count: 1}}, nil), "a second time is fine")
}

func TestParseTable(t *testing.T) {
	objects, err := ipc.ParseTable(ipc.KindMemory, strings.NewReader(`       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap
         0          7   600                  4096   111     0      0  2001  2001  2002  2001          0          0 1700000000                     0                     0
`))
	require.NoError(t, err)
	assert.Equal(t, []ipc.Object{{Kind: ipc.KindMemory, ID: 7, Owner: 2001, Creator: 2002}}, objects)
	for _, bad := range []string{"", "key semid\n", "key shmid uid cuid\n1 2 3\n", "key shmid uid cuid\n1 x 3 4\n"} {
		_, err := ipc.ParseTable(ipc.KindMemory, strings.NewReader(bad))
		require.Error(t, err, bad)
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add("key shmid perms uid gid cuid cgid\n0 1 600 2001 2001 2001 2001\n")
	f.Fuzz(func(t *testing.T, s string) {
		if objects, err := ipc.ParseTable(ipc.KindMemory, strings.NewReader(s)); err == nil && len(objects) > 0 {
			require.Greater(t, strings.Count(s, "\n")+1, len(objects))
		}
	})
}
