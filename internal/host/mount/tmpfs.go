package mount

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

const (
	inodeSize = 4096 // one inode per so many bytes: inodes are kernel memory, too
	coverSize = 64 << 10
)

// Tmpfs puts a new tmpfs on a target, nosuid and nodev. What it keeps is opened before it is
// covered and mounted again on top.
func (Host) Tmpfs(_ context.Context, t subtree.Tmpfs) error {
	target, err := openTarget(t.Target)
	if err != nil {
		return err
	}
	defer closeFD(target)
	fs, err := newTmpfs(t)
	if err != nil {
		return fmt.Errorf("make tmpfs for %s: %w", t.Target, err)
	}
	defer closeFD(fs)
	if t.Keep == "" {
		if t.ReadOnly {
			err = readOnly(fs)
		}
		if err == nil {
			err = attach(fs, target, t.Target)
		}
		return err
	}
	return keep(t, fs, target)
}

func newTmpfs(t subtree.Tmpfs) (int, error) {
	ctx, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer closeFD(ctx)
	size, mode := t.Size, "1777"
	if t.ReadOnly {
		size, mode = coverSize, "0755"
	}
	inodes := strconv.FormatUint(max(size/inodeSize, 64), 10)
	for _, option := range [][2]string{
		{"source", t.Label}, {"size", strconv.FormatUint(size, 10)}, {"nr_inodes", inodes}, {"mode", mode},
	} {
		if err := unix.FsconfigSetString(ctx, option[0], option[1]); err != nil {
			return -1, fmt.Errorf("%s=%s: %w", option[0], option[1], err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, err
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
}

// keep attaches a cover and, on it, the one directory of the covered that stays. A kill between
// the two leaves a cover with too little, never with too much.
func keep(t subtree.Tmpfs, fs, target int) error {
	name := path.Join(t.Target, t.Keep)
	source, err := unix.Openat2(target, t.Keep, &unix.OpenHow{Flags: openDir, Resolve: unix.RESOLVE_BENEATH | noLinks})
	if err != nil {
		return tenantError(name, err)
	}
	defer closeFD(source)
	if err = owned(source, name, []uint32{t.Owner}, true); err != nil {
		return err
	}
	tree, err := clone(source)
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	defer closeFD(tree)
	place, err := mkdirs(fs, t.Keep)
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	defer closeFD(place)
	if err = attach(fs, target, t.Target); err != nil {
		return err
	}
	if err = attach(tree, place, name); err != nil {
		return err
	}
	return readOnly(fs)
}

// mkdirs makes the directories of a relative path below fd and opens the last.
func mkdirs(fd int, rel string) (int, error) {
	at, err := unix.Openat(fd, ".", openDir, 0)
	if err != nil {
		return -1, err
	}
	for step := range strings.SplitSeq(rel, "/") {
		err := unix.Mkdirat(at, step, 0o755)
		next := -1
		if err == nil {
			next, err = unix.Openat(at, step, openDir, 0)
		}
		closeFD(at)
		if err != nil {
			return -1, err
		}
		at = next
	}
	return at, nil
}

func readOnly(fd int) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("set mount options: %w", err)
	}
	return nil
}

// Unmount takes the topmost mount off a path. It never detaches lazily, which would hide who goes
// on writing, and never forces, which would throw data away.
func (Host) Unmount(_ context.Context, point string) error {
	err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW)
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("unmount %s: %w", point, subtree.ErrBusy)
	case err != nil:
		return fmt.Errorf("unmount %s: %w", point, err)
	}
	return nil
}
