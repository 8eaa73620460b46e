package keyring_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/keyring"
)

const inNamespace = "KEYRING_NAMESPACE"

// apart runs a test again in a user namespace of its own, with all ids: what is locked there for
// good goes with it.
func apart(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not root")
		}
		t.Skip("not root: can't act as another user")
	}
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$")
	c.Env = append(os.Environ(), inNamespace+"="+t.Name())
	all := []syscall.SysProcIDMap{{Size: 1<<32 - 1}}
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true}
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "--- PASS")
	return false
}

var ofAlice = []enclave.UIDRange{{Start: alice, Count: 1}}

func TestLocked(t *testing.T) {
	if !apart(t) {
		return
	}
	require.NoError(t, child(t, "leave"))
	require.NoError(t, child(t, "revoke"))
	require.Error(t, child(t, "leave"), "control: a revoked ring takes no key")
	require.NoError(t, keyring.Clear(t.Context(), ofAlice), "a revoked ring is an empty one")
	require.NoError(t, child(t, "leave"), "there is a new one at once")
	require.NoError(t, keyring.Guard(alice))
}

func TestLockedEmpty(t *testing.T) {
	if !apart(t) {
		return
	}
	require.NoError(t, child(t, "lock"))
	require.Error(t, child(t, "look"), "control: nobody gets into it")
	for range 2 {
		require.NoError(t, keyring.Clear(t.Context(), ofAlice), "one that is locked and empty harms nobody")
	}
	require.NoError(t, keyring.Guard(alice))
}

func TestLockedReachable(t *testing.T) {
	if !apart(t) {
		return
	}
	require.NoError(t, child(t, "leave open"))
	require.NoError(t, child(t, "lock"))
	require.NoError(t, keyring.Clear(t.Context(), ofAlice), "a key that can be reached by its number goes")
}

func TestLockedSession(t *testing.T) {
	if !apart(t) {
		return
	}
	require.NoError(t, child(t, "leave open"))
	require.NoError(t, child(t, "lock the session's"))
	require.Error(t, child(t, "look"), "control: the user's is out of reach as well")
	require.NoError(t, keyring.Clear(t.Context(), ofAlice))
}

func TestLockedHidden(t *testing.T) {
	if !apart(t) {
		return
	}
	require.NoError(t, child(t, "leave for others"))
	require.NoError(t, child(t, "lock"))
	require.ErrorIs(t, keyring.Clear(t.Context(), ofAlice), keyring.ErrLocked, "what others can read and nobody can remove is told")
}

func TestGuard(t *testing.T) {
	if !apart(t) {
		return
	}
	require.NoError(t, keyring.Guard(alice))
	require.Error(t, child(t, "lock"), "the ring's permissions are not the user's any more")
	require.Error(t, child(t, "lock the session's"))
	require.NoError(t, child(t, "leave"))
	require.NoError(t, child(t, "look"), "it is of use as before")
	require.NoError(t, keyring.Guard(alice), "again")
	require.NoError(t, keyring.Clear(t.Context(), ofAlice))
	require.Error(t, child(t, "look"))
	require.NoError(t, keyring.Guard(0))
}

// TestExpired is in the machine's own namespace, where the kernel's collector can be hurried: of an
// expired ring nothing is left after a moment.
func TestExpired(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not root")
		}
		t.Skip("not root: can't act as another user")
	}
	require.NoError(t, child(t, "expire"))
	require.NoError(t, keyring.Clear(t.Context(), ofAlice))
	require.NoError(t, child(t, "leave"), "there is a new one")
	require.NoError(t, keyring.Clear(t.Context(), ofAlice))
}

func TestParseKeys(t *testing.T) {
	keys, err := keyring.ParseKeys(strings.NewReader("0974059a I--Q---     1 perm 1f3f0000 64124 65534 keyring   _uid_ses.64124: 1\n2812b1e7 I--Q---     1 expd 3f010000  2001     0 user      x y: 6\n"))
	require.NoError(t, err)
	assert.Equal(t, []keyring.Key{{ID: 0x0974059a, UID: 64124}, {ID: 0x2812b1e7, UID: 2001}}, keys)
	for _, bad := range []string{"what", "z I 1 perm 0 1 1 user x", "1 I 1 perm 0 a 1 user x"} {
		_, err = keyring.ParseKeys(strings.NewReader(bad))
		require.Error(t, err, bad)
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add("2812b1e7 I--Q---     1 expd 3f010000  2001     0 user      x y: 6\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = keyring.ParseKeys(strings.NewReader(text)) })
}
