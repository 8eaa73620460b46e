package keyring

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
)

// Permissions of keys: the possessor's, and the owner's.
const (
	possessorAll = 0x3f << 24
	ownerAll     = 0x3f << 16
	setAttribute = 0x20
)

// ErrLocked says that a user has closed a keyring to everybody, root included, while keys were in it.
var ErrLocked = errors.New("closed to everybody by the user, with keys in it")

// Guard keeps a user from changing the permissions of the user and user session keyring, which the kernel
// lets their owner do: one whose permissions are 0 can't be looked into or emptied any more, not
// by root, until the machine is switched off. It does not hold who means it: an invalidated ring is
// made anew by the kernel, with all permissions.
func Guard(uid uint32) error {
	if uid == 0 {
		return nil
	}
	err := process.Aside(func() error {
		if err := become(uid); err != nil {
			return err
		}
		const perm = possessorAll&^(setAttribute<<24) | ownerAll&^(setAttribute<<16)
		var errs []error
		for _, ring := range []int{userSessionKeyring, userKeyring} {
			id, err := unix.KeyctlGetKeyringID(ring, true)
			if err == nil {
				err = unix.KeyctlSetperm(id, perm)
			}
			errs = append(errs, unreachable(err)) // EACCES: it is so since an earlier job
		}
		return errors.Join(errs...)
	})
	if err != nil && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("guard keyrings of uid %d: %w", uid, err)
	}
	return nil
}

// The kernel forgets unlinked keys a moment later, and a revoked ring, in whose place it then makes a new one.
const (
	patience = 2 * time.Second
	settling = 500 * time.Millisecond
	pause    = 20 * time.Millisecond
)

// gcDelay is for how many seconds the kernel keeps expired keys.
const gcDelay = "/proc/sys/kernel/keys/gc_delay"

// unlocked is nil where the locked rings of a user hold no key of the user's: what can be got at by its
// number is taken away, and the quota tells whether that was all.
func unlocked(ctx context.Context, uid uint32) error {
	if err := process.Aside(func() error { return sweep(uid) }); err != nil {
		return err
	}
	defer hurry()()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	again := time.NewTicker(pause)
	defer again.Stop()
	for settled := time.Now().Add(settling); ; {
		q, err := quotaOf(uid)
		if err != nil {
			return err
		}
		if q.empty(uid) && (time.Now().After(settled) || reached(uid)) {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("%w (%d keys in all, %d bytes)", ErrLocked, q.keys, q.bytes)
		}
	}
}

// reached says whether the user has a ring again.
func reached(uid uint32) bool {
	return process.Aside(func() error {
		if err := become(uid); err != nil {
			return err
		}
		_, err := unix.KeyctlGetKeyringID(userKeyring, true)
		return err
	}) == nil
}

// hurry has the kernel collect expired keys at once, and gives what ends that. Where the setting
// can't be written, they stay for their time, and are told.
func hurry() (back func()) {
	old, err := os.ReadFile(gcDelay)
	if err != nil || os.WriteFile(gcDelay, []byte("0"), 0) != nil {
		return func() {}
	}
	// An invalidated key makes the collector look at all.
	if key, err := unix.AddKey("keyring", "enclave-collect", nil, processKeyring); err == nil {
		_, _ = unix.KeyctlInt(keyctlInvalidate, key, 0, 0, 0)
	}
	return func() { _ = os.WriteFile(gcDelay, old, 0) }
}

// sweep invalidates by number what a user's rings hold of keys that the user may see and change.
func sweep(uid uint32) error {
	if err := become(uid); err != nil {
		return err
	}
	f, err := os.Open("/proc/keys")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	keys, err := ParseKeys(f)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.UID != uid {
			continue
		}
		_, _ = unix.KeyctlInt(unix.KEYCTL_CLEAR, k.ID, 0, 0, 0) // a ring
		_ = unix.KeyctlSetperm(k.ID, possessorAll|ownerAll)
		if _, err := unix.KeyctlInt(keyctlInvalidate, k.ID, 0, 0, 0); err != nil {
			_, _ = unix.KeyctlInt(unix.KEYCTL_REVOKE, k.ID, 0, 0, 0)
		}
	}
	return nil
}

// Key is a line of /proc/keys: its number and its owner.
type Key struct {
	ID  int
	UID uint32
}

// ParseKeys reads /proc/keys: number, flags, usage, expiry, permissions, uid, more. What stands
// behind may hold anything, lines excepted: a user chooses it.
func ParseKeys(r io.Reader) ([]Key, error) {
	var keys []Key
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 6 {
			return nil, fmt.Errorf("parse keys: %q", s.Text())
		}
		id, idErr := strconv.ParseInt(f[0], 16, 32)
		uid, uidErr := strconv.ParseUint(f[5], 10, 32)
		if err := errors.Join(idErr, uidErr); err != nil {
			return nil, fmt.Errorf("parse keys: %w", err)
		}
		keys = append(keys, Key{ID: int(id), UID: uint32(uid)})
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("parse keys: %w", err)
	}
	return keys, nil
}

// quota is what the kernel counts of a user's keys: how many, and their names and data.
type quota struct {
	keys, bytes uint64
}

// empty says whether the user's two rings can be all there is: a ring costs its name, and the link
// from one to the other four bytes. A key of that very size, up to ten bytes, can pass for the second ring.
func (q quota) empty(uid uint32) bool {
	number := strconv.FormatUint(uint64(uid), 10)
	user, session := uint64(len("_uid."+number)+1), uint64(len("_uid_ses."+number)+1)
	return slices.Contains([]quota{{}, {1, user}, {1, session}, {1, session + 4}, {2, user + session}, {2, user + session + 4}}, q)
}

// quotaOf reads a user's line of /proc/key-users: "uid: usage keys/instantiated keys/most bytes/most".
func quotaOf(uid uint32) (quota, error) {
	b, err := os.ReadFile("/proc/key-users")
	if err != nil {
		return quota{}, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 5 || f[0] != strconv.FormatUint(uint64(uid), 10)+":" {
			continue
		}
		keys, _, _ := strings.Cut(f[3], "/")
		size, _, _ := strings.Cut(f[4], "/")
		q := quota{}
		var keysErr, sizeErr error
		q.keys, keysErr = strconv.ParseUint(keys, 10, 64)
		q.bytes, sizeErr = strconv.ParseUint(size, 10, 64)
		return q, errors.Join(keysErr, sizeErr)
	}
	return quota{}, nil
}
