//go:build e2e

package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Where everybody may open the kernel's makers of network devices and file systems, as udev has it; the
// lab's own are root's, and /dev is that of all labs on a machine.
const (
	tunDevice  = "/run/tun-of-everybody"
	fuseDevice = "/run/fuse-of-everybody"
	devices    = "for d in tun:200 fuse:229; do test -e /run/${d%:*}-of-everybody || mknod -m 666 /run/${d%:*}-of-everybody c 10 ${d#*:}; done"
)

// count has the kernel count what each process that it is told does.
func count(pids []string) error {
	var errs []error
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Bits: unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv}
		fd, err := unix.PerfEventOpen(&attr, pid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			errs = append(errs, fmt.Errorf("perf_event_open %d: %w", pid, err))
			continue
		}
		errs = append(errs, unix.Close(fd))
		fmt.Println(loot, "is what", pid, "does")
	}
	return errors.Join(errs...)
}

// makeTUN makes a device in the node's network, through which one's own packets would come in.
func makeTUN([]string) error {
	f, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	r, err := unix.NewIfreq("loot0")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err = unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, r); err != nil {
		return fmt.Errorf("make a TUN device: %w", err)
	}
	fmt.Println(loot, "is a device")
	return nil
}

// rawXDP opens a socket that takes frames before the fence sees them.
func rawXDP([]string) error {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0)
	if err != nil {
		return fmt.Errorf("open AF_XDP: %w", err)
	}
	fmt.Println(loot, "is a socket beneath the fence")
	return unix.Close(fd)
}
