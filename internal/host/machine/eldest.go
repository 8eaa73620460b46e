package machine

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const mountsNumber = 0x8008b705 // NS_GET_MNTNS_ID of ioctl_nsfs(2): uint64, since Linux 6.10

// unshareMounts gives the calling thread, which must not be used again, a copy of its mounts for
// itself, as old as can be.
//
// Slurm's job_container/tmpfs pins each job's mount namespace to a file. The kernel refuses that with
// EINVAL where the job's looks older than slurmd's own, and Linux 6.18 tells age by a number of
// which each processor has its own range. A host's namespace is therefore made on the processor whose
// numbers are lowest: what any processor makes later is younger.
func unshareMounts() error {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	for eldest := false; !eldest; {
		var err error
		if eldest, err = unshareEldest(all); err != nil {
			return err
		}
	}
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(0, &all))
}

// unshareEldest gives the thread a copy of its mounts on each processor, at last on that with the lowest
// numbers, and says whether that one is the eldest: in between the processor's range may have ended, and
// the next one is above all others.
func unshareEldest(processors unix.CPUSet) (bool, error) {
	lowest, second, where := ^uint64(0), ^uint64(0), 0
	for cpu := range len(processors) * 64 {
		if !processors.IsSet(cpu) {
			continue
		}
		number, err := unshareOn(cpu)
		if errors.Is(err, unix.ENOTTY) {
			return true, nil // a kernel with one range
		}
		if err != nil {
			return false, err
		}
		if number < lowest {
			lowest, second, where = number, lowest, cpu
		} else {
			second = min(second, number)
		}
	}
	number, err := unshareOn(where)
	return number < second, err
}

// unshareOn gives the thread a copy of its mounts, made on one processor, and says its number.
func unshareOn(cpu int) (uint64, error) {
	var one unix.CPUSet
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return 0, os.NewSyscallError("sched_setaffinity", err)
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return 0, os.NewSyscallError("unshare", err)
	}
	f, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	number, err := unix.IoctlGetInt(int(f.Fd()), mountsNumber)
	if err != nil {
		return 0, os.NewSyscallError("ioctl", err)
	}
	return uint64(number), nil
}
