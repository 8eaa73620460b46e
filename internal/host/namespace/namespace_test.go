package namespace_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/againtest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/namespace"
)

// The test's own program is what runs inside.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == namespace.EnterWord {
		fmt.Fprintln(os.Stderr, namespace.Enter(os.Args[0], os.Args[2:]))
		os.Exit(1)
	}
	if len(os.Args) == 2 && os.Args[1] == "look" {
		own, _ := namespace.Own()
		files, _ := os.ReadDir("/proc/self/fd")
		held := 0
		for _, f := range files {
			if at, err := os.Stat("/proc/self/fd/" + f.Name()); err == nil && at.IsDir() { // one would lead out again
				held++
			}
		}
		in := make([]byte, 64)
		n, _ := os.Stdin.Read(in)
		_, marked := os.Stat("/mnt/inside")
		dir, _ := os.Getwd()
		fmt.Printf("%d %s %t %s %d %d", own, in[:n], marked == nil, dir, len(os.Environ()), held)
		os.Exit(0)
	}
	if len(os.Args) == 2 && os.Args[1] == "fail" {
		fmt.Print("a word")
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// pinned makes a mount namespace with a mark in it, and keeps it by a file as Slurm does.
func pinned(t *testing.T) string {
	t.Helper()
	dir := "/mnt/pins"
	require.NoError(t, unix.Mount("tmpfs", "/mnt", "tmpfs", 0, ""))
	require.NoError(t, os.Mkdir(dir, 0o700))
	pin := filepath.Join(dir, ".ns")
	require.NoError(t, os.WriteFile(pin, nil, 0o600))
	ready := make(chan error)
	hold := make(chan struct{})
	go func() {
		ready <- apart(pin)
		<-hold
	}()
	require.NoError(t, <-ready)
	t.Cleanup(func() { close(hold) })
	return pin
}

func TestRun(t *testing.T) {
	if againtest.Outer(t, unix.CLONE_NEWNS|unix.CLONE_NEWPID) {
		return
	}
	pin, err := namespace.Open(pinned(t))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, pin.Close()) })
	own, err := namespace.Own()
	require.NoError(t, err)
	require.NotEqual(t, own, pin.ID)

	t.Run("what runs inside is inside, and holds nothing of the outside", func(t *testing.T) {
		out, err := pin.Run(t.Context(), "/proc/self/exe", []string{"look"}, []byte("words"))
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("%d words true / 0 0", pin.ID), string(out))
	})
	t.Run("the caller stays outside", func(t *testing.T) {
		still, err := namespace.Own()
		require.NoError(t, err)
		assert.Equal(t, own, still)
		assert.NoFileExists(t, "/mnt/inside")
	})
	t.Run("a rehearsal is in a namespace of its own", func(t *testing.T) {
		out, err := namespace.Rehearse(t.Context(), "/proc/self/exe", []string{"look"}, []byte("words"))
		require.NoError(t, err)
		assert.NotContains(t, string(out), fmt.Sprint(own))
		assert.NotContains(t, string(out), fmt.Sprint(pin.ID))
		assert.Contains(t, string(out), " words false /")
	})
	t.Run("a program that fails is heard and is an error", func(t *testing.T) {
		out, err := pin.Run(t.Context(), "/proc/self/exe", []string{"fail"}, nil)
		require.ErrorContains(t, err, "exit status 3")
		assert.Equal(t, "a word", string(out))
	})
}

func TestOpenRefuses(t *testing.T) {
	againtest.Root(t)
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink("/proc/self/ns/mnt", link))
	for name, path := range map[string]string{
		"a plain file":                    "/etc/passwd",
		"a file that is not there":        "/none",
		"nothing":                         "",
		"a symlink":                       link,
		"a network namespace":             "/proc/thread-self/ns/net",
		"the magic link of one's own":     "/proc/thread-self/ns/mnt",
		"a directory":                     "/",
		"a namespace that is not pinned":  "/proc/1/ns/mnt",
		"a device":                        "/dev/null",
		"a path that is too long to open": "/" + string(make([]byte, 5000)),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := namespace.Open(path)
			require.Error(t, err)
		})
	}
}
