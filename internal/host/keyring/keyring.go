// Package keyring empties the kernel's keyrings of a user, which outlive the user's processes.
//
// A key that a job puts into its user's keyring stays until the machine is switched off, and one
// whose permissions say so is read by every other user who knows its number. Keyrings of sessions,
// processes and threads end with them and need nobody, but for one: slurmd's, which systemd gives it and
// which all that it starts inherit, us among them.
package keyring

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
)

const (
	processKeyring     = -2
	sessionKeyring     = -3
	userKeyring        = -4
	userSessionKeyring = -5

	keyctlInvalidate    = 21
	keyctlGetPersistent = 22
)

// Clear empties the user, user session and persistent keyrings of all ids of the ranges that have
// keys, and takes their keys out of the session keyring of the caller. It acts under each id in turn, on a thread that is not used again; it must be called when
// the processes of these ids have ended, for they could signal it.
func Clear(ctx context.Context, ranges []enclave.UIDRange) error {
	f, err := os.Open("/proc/key-users")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without keyrings
	}
	if err != nil {
		return fmt.Errorf("list users of keys: %w", err)
	}
	defer func() { _ = f.Close() }()
	users, err := ParseUsers(f)
	if err != nil {
		return err
	}
	errs := []error{leaveSession(ranges)}
	for _, uid := range users {
		if within(uid, ranges) {
			errs = append(errs, clearOf(ctx, uid))
		}
	}
	return errors.Join(errs...)
}

func within(uid uint32, ranges []enclave.UIDRange) bool {
	return uid != 0 && slices.ContainsFunc(ranges, func(r enclave.UIDRange) bool { return uid >= r.Start && uid-r.Start < r.Count })
}

// leaveSession takes the keys of these ids out of the session keyring of the thread that calls.
func leaveSession(ranges []enclave.UIDRange) error {
	ring := make([]byte, 1<<16) // more than one session's quota
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, sessionKeyring, ring, 0)
	if errors.Is(err, unix.ENOKEY) || errors.Is(err, unix.EKEYREVOKED) || errors.Is(err, unix.EKEYEXPIRED) {
		return nil // nobody can find a key in it; who has it can revoke it, and a job is not to fail an epilog
	}
	if err != nil {
		return fmt.Errorf("read session keyring: %w", err)
	}
	var errs []error
	for b := ring[:min(n, len(ring))]; len(b) >= 4; b = b[4:] {
		key := int(int32(binary.NativeEndian.Uint32(b)))
		if !ofThese(key, ranges) {
			continue
		}
		if _, err = unix.KeyctlInt(unix.KEYCTL_UNLINK, key, sessionKeyring, 0, 0); err != nil {
			errs = append(errs, fmt.Errorf("unlink key %d from session keyring: %w", key, err))
		}
	}
	return errors.Join(errs...)
}

// ofThese says whether a key is one of these ids'. One whose permissions hide it from root is none of root's.
func ofThese(key int, ranges []enclave.UIDRange) bool {
	text, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, key)
	if err != nil {
		return errors.Is(err, unix.EACCES)
	}
	fields := strings.SplitN(text, ";", 3) // type, uid, more
	uid, err := strconv.ParseUint(fields[min(1, len(fields)-1)], 10, 32)
	return err == nil && within(uint32(uid), ranges)
}

// ParseUsers reads the ids of /proc/key-users: lines of "  uid: usage ...".
func ParseUsers(r io.Reader) ([]uint32, error) {
	var users []uint32
	s := bufio.NewScanner(r)
	for s.Scan() {
		id, _, _ := strings.Cut(strings.TrimSpace(s.Text()), ":")
		uid, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("parse users of keys: %q", s.Text())
		}
		users = append(users, uint32(uid))
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("parse users of keys: %w", err)
	}
	return users, nil
}

// clearOf works on a thread of its own that ends with it: its ids are the user's.
func clearOf(ctx context.Context, uid uint32) error {
	locked := false
	err := process.Aside(func() (err error) { locked, err = clearHere(uid); return err })
	if err == nil && locked {
		err = unlocked(ctx, uid)
	}
	if err != nil {
		return fmt.Errorf("empty keyrings of uid %d: %w", uid, err)
	}
	return nil
}

// clearHere says whether there is a ring that can't be got at: one of the two is enough to hide both.
func clearHere(uid uint32) (locked bool, err error) {
	persistent, err := unix.KeyctlInt(keyctlGetPersistent, int(uid), processKeyring, 0, 0)
	if err == nil {
		_, err = unix.KeyctlInt(unix.KEYCTL_CLEAR, persistent, 0, 0, 0)
	} else if errors.Is(err, unix.EOPNOTSUPP) {
		err = nil // built without them
	}
	if becomeErr := become(uid); becomeErr != nil {
		return false, errors.Join(err, becomeErr)
	}
	for _, ring := range []int{userSessionKeyring, userKeyring} {
		_, clearErr := unix.KeyctlInt(unix.KEYCTL_CLEAR, ring, 0, 0, 0)
		locked = locked || clearErr != nil && unreachable(clearErr) == nil
		err = errors.Join(err, unreachable(clearErr))
	}
	// As the kernel makes it: the session's keyring leads to the user's.
	_, linkErr := unix.KeyctlInt(unix.KEYCTL_LINK, userKeyring, userSessionKeyring, 0, 0)
	return locked, errors.Join(err, unreachable(linkErr))
}

// become changes the ids of this thread alone; Go's own call would change all.
func become(uid uint32) error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), 0); e != 0 {
		return e
	}
	return nil
}

// unreachable is the error that a ring gives, but for those of one that the user has revoked,
// invalidated (both empty it), let expire or locked: a user must not fail an epilog by that. Which error
// it is depends on the kernel; 6.18 says ENOKEY for all.
func unreachable(err error) error {
	for _, e := range []error{unix.EKEYREVOKED, unix.ENOKEY, unix.EKEYEXPIRED, unix.EACCES} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}
