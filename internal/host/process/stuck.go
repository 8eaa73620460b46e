package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Stuck ends what keeps users' killed processes from ending.
//
// A process waits for an answer of a file system in user space without end, SIGKILL or not (fuse(4),
// request_wait_answer in the kernel). Whoever may open /dev/fuse makes himself a file system in a user namespace,
// answers nothing, and leaves a process that no signal ends, on a node that is then drained for it. Only the end
// of the connection ends that process.
type Stuck struct {
	whose func(uid uint32) bool
	dying []int // at the look before
}

// StuckOf looks after the processes and connections of the ranges.
func StuckOf(ranges []enclave.UIDRange) *Stuck {
	return &Stuck{whose: func(uid uint32) bool { return in(uid, ranges) }}
}

// StuckPeople looks after those of everybody from the id least on who is no daemon: a node of one job's.
func StuckPeople(least uint32) *Stuck {
	return &Stuck{whose: func(uid uint32) bool { return uid >= least && !in(uid, Daemons()) }}
}

// Look ends the users' connections that hold requests and says how many, if one of their processes could not
// end at this look and at the one before. While there is none such, it touches nothing.
func (s *Stuck) Look() (ended int, err error) {
	open, err := s.connections()
	if err != nil || len(open) == 0 {
		s.dying = nil
		return 0, err
	}
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	before := s.dying
	if s.dying, err = s.find(); err != nil {
		return 0, err
	}
	if !slices.ContainsFunc(s.dying, func(pid int) bool { return slices.Contains(before, pid) }) {
		return 0, nil
	}
	var errs []error
	for _, c := range open {
		if _, err := c.WriteString("1"); err != nil && !errors.Is(err, unix.ENOTCONN) {
			errs = append(errs, fmt.Errorf("end FUSE connection: %w", err))
			continue
		}
		ended++
	}
	return ended, errors.Join(errs...)
}

// connections opens what ends the users' connections, of those that hold requests. A kernel without FUSE has none.
func (s *Stuck) connections() (open []*os.File, err error) {
	root, err := control()
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list FUSE connections: %w", err)
	}
	defer func() { _ = root.Close() }()
	entries, err := root.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("list FUSE connections: %w", err)
	}
	dir := fmt.Sprintf("/proc/self/fd/%d", root.Fd())
	for _, e := range entries {
		at := filepath.Join(dir, e.Name())
		info, err := os.Stat(at)
		if err != nil {
			continue // it has ended meanwhile
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok || !s.whose(owner.Uid) {
			continue
		}
		waiting, err := os.ReadFile(filepath.Join(at, "waiting"))
		if err != nil || strings.TrimSpace(string(waiting)) == "0" {
			continue
		}
		f, err := os.OpenFile(filepath.Join(at, "abort"), os.O_WRONLY, 0)
		if err == nil {
			open = append(open, f)
		}
	}
	return open, nil
}

// control mounts the kernel's list of connections where nobody sees it: not every node has it in /sys.
func control() (*os.File, error) {
	fsfd, err := unix.Fsopen("fusectl", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer func() { _ = unix.Close(fsfd) }()
	if err = unix.FsconfigCreate(fsfd); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	defer func() { _ = unix.Close(fd) }()
	dir, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("openat", err)
	}
	return os.NewFile(uintptr(dir), "fusectl"), nil
}

// find lists the users' processes of which a thread was killed and sleeps on.
func (s *Stuck) find() ([]int, error) {
	list, err := List()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, p := range list {
		if !s.whose(p.UID) {
			continue
		}
		tasks, err := filepath.Glob(filepath.Join(proc, strconv.Itoa(p.PID), "task", "*", "status"))
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(tasks, dying) {
			pids = append(pids, p.PID)
		}
	}
	return pids, nil
}

// dying says of a thread's status file that it has SIGKILL before it and sleeps without hearing it (proc_pid_status(5)).
func dying(status string) bool {
	b, err := os.ReadFile(status)
	if err != nil {
		return false
	}
	var asleep, killed bool
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "State":
			asleep = strings.HasPrefix(value, "D")
		case "SigPnd", "ShdPnd":
			set, err := strconv.ParseUint(value, 16, 64)
			killed = killed || err == nil && set&(1<<(unix.SIGKILL-1)) != 0
		}
	}
	return asleep && killed
}
