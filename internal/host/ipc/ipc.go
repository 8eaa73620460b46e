// Package ipc finds and removes what processes leave in the kernel when they end: System V shared
// memory, semaphores and message queues, and POSIX message queues. (POSIX shared memory is files
// in /dev/shm, which is the subtree room's.)
package ipc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Kind is a kind of object.
type Kind string

// The four kinds.
const (
	KindMemory     Kind = "shm"
	KindSemaphores Kind = "sem"
	KindMessages   Kind = "msg"
	KindQueue      Kind = "mqueue"
)

// Object is one thing that outlives its processes.
type Object struct {
	Kind    Kind
	ID      int    // of System V objects
	Name    string // of POSIX queues: chosen by a user
	Owner   uint32
	Creator uint32 // may remove it, too
}

// String is the object for a list: what and whose.
func (o Object) String() string {
	if o.Kind == KindQueue {
		return fmt.Sprintf("%s %q uid %d", o.Kind, o.Name, o.Owner)
	}
	return fmt.Sprintf("%s %d uid %d", o.Kind, o.ID, o.Owner)
}

// List lists the objects whose owner or creator is in one of the ranges.
func List(ranges []enclave.UIDRange) ([]Object, error) {
	var found []Object
	for _, kind := range []Kind{KindMemory, KindSemaphores, KindMessages} {
		objects, err := listSystemV(kind)
		if err != nil {
			return nil, fmt.Errorf("list ipc: %w", err)
		}
		found = append(found, objects...)
	}
	err := queues(func(_ int, o Object) error { found = append(found, o); return nil })
	if err != nil {
		return nil, fmt.Errorf("list ipc: %w", err)
	}
	return slices.DeleteFunc(found, func(o Object) bool { return !in(o.Owner, ranges) && !in(o.Creator, ranges) }), nil
}

// Remove removes the objects of the ranges, but for those of keep as String gives them, and reads back
// that none is left. The processes must be gone already, or they make new ones.
func Remove(ranges []enclave.UIDRange, keep []string) error {
	for _, r := range ranges {
		if err := r.Check(); err != nil {
			return fmt.Errorf("remove ipc: %w", err)
		}
	}
	objects, err := List(ranges)
	if err != nil {
		return err
	}
	var errs *multierror.Error
	for _, o := range objects {
		if o.Kind == KindQueue || slices.Contains(keep, o.String()) {
			continue
		}
		if err = removeSystemV(o); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EIDRM) {
			errs = multierror.Append(errs, fmt.Errorf("remove %s: %w", o, err))
		}
	}
	err = queues(func(dir int, o Object) error {
		if !in(o.Owner, ranges) || slices.Contains(keep, o.String()) {
			return nil
		}
		return unix.Unlinkat(dir, o.Name, 0)
	})
	if err != nil {
		errs = multierror.Append(errs, err)
	}
	left, err := List(ranges)
	if err != nil {
		errs = multierror.Append(errs, err)
	}
	left = slices.DeleteFunc(left, func(o Object) bool { return slices.Contains(keep, o.String()) })
	if len(left) > 0 {
		errs = multierror.Append(errs, fmt.Errorf("remove ipc: %d objects are left, the first is %s", len(left), left[0]))
	}
	return errs.ErrorOrNil()
}

func listSystemV(kind Kind) ([]Object, error) {
	f, err := os.Open("/proc/sysvipc/" + string(kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without System V IPC
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return ParseTable(kind, f)
}

// ParseTable reads the text of /proc/sysvipc/shm, sem or msg. Its columns differ from kind to kind
// and grow with the kernel, so they are found by the names in the first line.
func ParseTable(kind Kind, r io.Reader) ([]Object, error) {
	s := bufio.NewScanner(r)
	if !s.Scan() {
		return nil, errors.Join(fmt.Errorf("parse %s table: empty", kind), s.Err())
	}
	head := strings.Fields(s.Text())
	var column [3]int
	id := string(kind) + "id"
	if kind == KindMessages {
		id = "msqid"
	}
	for i, name := range []string{id, "uid", "cuid"} {
		if column[i] = slices.Index(head, name); column[i] < 0 {
			return nil, fmt.Errorf("parse %s table: no column %s", kind, name)
		}
	}
	var objects []Object
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) != len(head) {
			return nil, fmt.Errorf("parse %s table: %d columns, want %d", kind, len(f), len(head))
		}
		id, errID := strconv.ParseInt(f[column[0]], 10, 32)
		uid, errUID := strconv.ParseUint(f[column[1]], 10, 32)
		cuid, errCUID := strconv.ParseUint(f[column[2]], 10, 32)
		if err := errors.Join(errID, errUID, errCUID); err != nil {
			return nil, fmt.Errorf("parse %s table: %w", kind, err)
		}
		objects = append(objects, Object{Kind: kind, ID: int(id), Owner: uint32(uid), Creator: uint32(cuid)})
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("parse %s table: %w", kind, err)
	}
	return objects, nil
}

func removeSystemV(o Object) error {
	var errno unix.Errno
	id := uintptr(o.ID)
	switch o.Kind {
	case KindMemory:
		_, err := unix.SysvShmCtl(o.ID, unix.IPC_RMID, nil)
		return err
	case KindSemaphores:
		_, _, errno = unix.Syscall6(unix.SYS_SEMCTL, id, 0, unix.IPC_RMID, 0, 0, 0)
	case KindMessages:
		_, _, errno = unix.Syscall(unix.SYS_MSGCTL, id, unix.IPC_RMID, 0)
	case KindQueue:
		return fmt.Errorf("%s is no System V object", o)
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// queues visits the POSIX queues of this IPC namespace. Their file system is mounted for nobody
// to see: it is on no path, and gone when its descriptor is closed.
func queues(visit func(dir int, o Object) error) error {
	ctx, err := unix.Fsopen("mqueue", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil // a kernel without POSIX queues
	}
	if err != nil {
		return fmt.Errorf("list message queues: %w", err)
	}
	defer func() { _ = unix.Close(ctx) }()
	if err = unix.FsconfigCreate(ctx); err != nil {
		return fmt.Errorf("list message queues: %w", err)
	}
	mount, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("list message queues: %w", err)
	}
	defer func() { _ = unix.Close(mount) }()
	fd, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("list message queues: %w", err)
	}
	dir := os.NewFile(uintptr(fd), "mqueue")
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list message queues: %w", err)
	}
	for _, name := range names {
		var st unix.Stat_t
		err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			err = visit(fd, Object{Kind: KindQueue, Name: name, Owner: st.Uid, Creator: st.Uid})
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("message queue %q: %w", name, err)
		}
	}
	return nil
}

func in(uid uint32, ranges []enclave.UIDRange) bool {
	return slices.ContainsFunc(ranges, func(r enclave.UIDRange) bool { return uid >= r.Start && uid-r.Start < r.Count })
}
