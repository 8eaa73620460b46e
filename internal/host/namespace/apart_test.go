package namespace_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// apart makes a mount namespace on a thread that is not used again, marks it, and pins it.
//
// The kernel pins no namespace that looks older than the one of who pins it, lest they hold each
// other. Since Linux 6.18 it tells age by a number of which each processor has its own range: of two
// namespaces only those made on the same processor are sure to be in order. So each is tried.
func apart(pin string) error {
	runtime.LockOSThread()
	for cpu := range runtime.NumCPU() {
		set := unix.CPUSet{}
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return err
		}
		if err := made(pin); !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return errors.New("the kernel takes the namespace of each processor for an older one")
}

func made(pin string) error {
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
