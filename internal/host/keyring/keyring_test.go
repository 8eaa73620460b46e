package keyring_test

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/keyring"
)

const (
	inChild = "KEYRING_TEST"
	alice   = 64123
	user    = -4
	session = -3

	userSession = -5
)

// TestChild is a process of a user's: it leaves a key, or looks for it.
func TestChild(t *testing.T) {
	switch os.Getenv(inChild) {
	case "leave":
		_, err := unix.AddKey("user", "left", []byte("secret"), user)
		require.NoError(t, err)
	case "leave in the session":
		_, err := unix.AddKey("user", "left", []byte("secret"), session)
		require.NoError(t, err)
		hidden, err := unix.AddKey("user", "hidden", []byte("secret"), session)
		require.NoError(t, err)
		require.NoError(t, unix.KeyctlSetperm(hidden, 0))
	case "leave open":
		possess(t)
		key, err := unix.AddKey("user", "left", []byte("secret"), user)
		require.NoError(t, err)
		require.NoError(t, unix.KeyctlSetperm(key, 0x3f3f3f3f))
	case "leave for others":
		possess(t)
		key, err := unix.AddKey("user", "left", []byte("a longer secret"), user)
		require.NoError(t, err)
		require.NoError(t, unix.KeyctlSetperm(key, 0x02))
	case "revoke":
		_, err := unix.KeyctlInt(unix.KEYCTL_REVOKE, user, 0, 0, 0)
		require.NoError(t, err)
	case "expire":
		_, err := unix.AddKey("user", "left", []byte("secret"), user)
		require.NoError(t, err)
		_, err = unix.KeyctlInt(unix.KEYCTL_SET_TIMEOUT, user, 1, 0, 0)
		require.NoError(t, err)
		for err == nil {
			_, err = unix.KeyctlSearch(user, "user", "left", 0)
		}
	case "lock", "lock the session's":
		require.NoError(t, unix.KeyctlSetperm(map[bool]int{true: user, false: userSession}[os.Getenv(inChild) == "lock"], 0))
	case "look in the session":
		_, err := unix.KeyctlSearch(session, "user", "left", 0)
		require.NoError(t, err)
	case "look":
		_, err := unix.KeyctlSearch(user, "user", "left", 0)
		require.NoError(t, err)
	}
}

// possess puts the user's keyring into a session of this thread's own: only who possesses a key may change what
// others may do with it. The session that a test runs in can be root's, from a login or from a look at it.
func possess(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	require.NoError(t, err)
	_, err = unix.KeyctlInt(unix.KEYCTL_LINK, user, session, 0, 0)
	require.NoError(t, err)
}

func child(t *testing.T, what string) error {
	t.Helper()
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestChild$")
	c.Env = []string{inChild + "=" + what}
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: alice, Gid: alice}}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Logf("%s: %s", what, out)
	}
	return err
}

func TestClear(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not root")
		}
		t.Skip("not root: can't act as another user")
	}
	require.NoError(t, child(t, "leave"))
	require.NoError(t, child(t, "look"), "control: the key outlives its process")
	t.Run("another user's stays", func(t *testing.T) {
		require.NoError(t, keyring.Clear(t.Context(), []enclave.UIDRange{{Start: alice + 1, Count: 10}}))
		require.NoError(t, child(t, "look"))
	})
	t.Run("the job's goes", func(t *testing.T) {
		require.NoError(t, keyring.Clear(t.Context(), []enclave.UIDRange{{Start: alice, Count: 1}}))
		require.Error(t, child(t, "look"))
	})
	t.Run("the keyring can be used afterwards", func(t *testing.T) {
		require.NoError(t, child(t, "leave"))
		require.NoError(t, child(t, "look"))
		require.NoError(t, keyring.Clear(t.Context(), []enclave.UIDRange{{Start: alice - 5, Count: 10}}))
		require.Error(t, child(t, "look"))
	})
	t.Run("a key in the session keyring that slurmd's children share goes, and only the job's", func(t *testing.T) {
		runtime.LockOSThread() // a thread has a keyring of its own; this one is not used again
		_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
		require.NoError(t, err)
		_, err = unix.AddKey("user", "ours", []byte("x"), session)
		require.NoError(t, err)
		require.NoError(t, child(t, "leave in the session"))
		require.NoError(t, child(t, "look in the session"), "control: it outlives its process")
		require.NoError(t, keyring.Clear(t.Context(), []enclave.UIDRange{{Start: alice + 1, Count: 10}}))
		require.NoError(t, child(t, "look in the session"))
		require.NoError(t, keyring.Clear(t.Context(), []enclave.UIDRange{{Start: alice, Count: 1}}))
		require.Error(t, child(t, "look in the session"))
		ring, err := unix.KeyctlBuffer(unix.KEYCTL_READ, session, nil, 0)
		require.NoError(t, err)
		assert.Equal(t, 4, ring, "one key is left, not the one that nobody may see")
		_, err = unix.KeyctlSearch(session, "user", "ours", 0)
		require.NoError(t, err)
		_, err = unix.KeyctlInt(unix.KEYCTL_REVOKE, session, 0, 0, 0)
		require.NoError(t, err)
		require.NoError(t, keyring.Clear(t.Context(), []enclave.UIDRange{{Start: alice, Count: 1}}), "one that was revoked is no error")
	})
	assert.Zero(t, os.Geteuid(), "this process is who it was")
}

func TestParseUsers(t *testing.T) {
	users, err := keyring.ParseUsers(strings.NewReader("    0:    27 26/26 22/1000000 423/25000000\n 2001:     1 1/1 1/200 9/20000\n"))
	require.NoError(t, err)
	assert.Equal(t, []uint32{0, 2001}, users)
	_, err = keyring.ParseUsers(strings.NewReader("what"))
	require.Error(t, err)
}

func FuzzParseUsers(f *testing.F) {
	f.Add("    0:    27 26/26\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = keyring.ParseUsers(strings.NewReader(text)) })
}
