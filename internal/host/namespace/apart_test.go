package namespace_test

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// apart makes a mount namespace on a thread that is not used again, marks it, and pins it.
func apart(pin string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/mnt", "tmpfs", 0, ""); err != nil {
		return err
	}
	if err := os.WriteFile("/mnt/inside", nil, 0o600); err != nil {
		return err
	}
	inside := fmt.Sprintf("/proc/self/task/%d/ns/mnt", unix.Gettid())
	done := make(chan error)
	go func() { done <- unix.Mount(inside, pin, "", unix.MS_BIND, "") }() // on a thread that stayed outside
	return <-done
}
