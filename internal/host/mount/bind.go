// Package mount makes, removes and observes mounts for the subtree room.
//
// Every path is resolved once, to a descriptor, and mounts are made between descriptors: there is
// no moment at which a name could be exchanged. It works in the mount namespace of its caller and
// needs Linux 5.12 (mount_setattr); nothing falls back to a weaker way.
package mount

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

// Host is this machine. The zero Host is ready to use.
type Host struct{}

const (
	openDir = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW
	noLinks = unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
)

// Bind puts a directory of the file system on a target, nosuid and nodev.
func (Host) Bind(_ context.Context, b subtree.Bind) error {
	source, err := openSubtree(b)
	if err != nil {
		return err
	}
	defer closeFD(source)
	tree, err := clone(source)
	if err != nil {
		return fmt.Errorf("bind %s/%s: %w", b.Root, b.Subtree, err)
	}
	defer closeFD(tree)
	target, err := openTarget(b.Target)
	if err != nil {
		return err
	}
	defer closeFD(target)
	return attach(tree, target, b.Target)
}

// openSubtree finds the tenant's directory from the file system's root, step by step.
func openSubtree(b subtree.Bind) (int, error) {
	way, inside := strings.Split(b.Subtree, "/"), []string{}
	if b.Inside != "" {
		inside = strings.Split(b.Inside, "/")
	}
	steps := append(slices.Clone(way), inside...)
	for _, step := range steps {
		if step == "" || step == "." || step == ".." {
			return -1, fmt.Errorf("%s/%s: %w", b.Root, path.Join(b.Subtree, b.Inside), subtree.ErrTenant)
		}
	}
	fd, err := openRoot(b)
	if err != nil {
		return -1, err
	}
	at := b.Root
	for i, step := range steps {
		at = path.Join(at, step)
		next, err := unix.Openat2(fd, step, &unix.OpenHow{
			Flags: openDir, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | noLinks,
		})
		closeFD(fd)
		if err != nil {
			return -1, tenantError(at, err)
		}
		fd = next
		owners, tenants := []uint32{0}, i >= len(way)-1
		if tenants {
			owners = b.Owners
		}
		if err := owned(fd, at, owners, tenants); err != nil {
			closeFD(fd)
			return -1, err
		}
	}
	return fd, nil
}

// openRoot opens the file system's root and demands that it is that: a mount's root, of the type
// and magic number expected, in a directory that root alone can enter.
func openRoot(b subtree.Bind) (int, error) {
	dir, name := path.Split(b.Root)
	parent, err := openPath(path.Clean(dir))
	if err != nil {
		return -1, fmt.Errorf("open %s: %w: %w", dir, subtree.ErrExposed, err)
	}
	defer closeFD(parent)
	var st unix.Stat_t
	if err = unix.Fstat(parent, &st); err != nil {
		return -1, fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Uid != 0 || st.Gid != 0 || st.Mode&0o7777 != 0o700 {
		return -1, fmt.Errorf("%s: %w: uid %d, gid %d, mode %04o", dir, subtree.ErrExposed, st.Uid, st.Gid, st.Mode&0o7777)
	}
	fd, err := unix.Openat2(parent, name, &unix.OpenHow{Flags: openDir, Resolve: unix.RESOLVE_BENEATH | noLinks})
	if err != nil {
		return -1, fmt.Errorf("open %s: %w: %w", b.Root, subtree.ErrType, err)
	}
	err = isRoot(fd, b)
	if err == nil {
		err = owned(fd, b.Root, []uint32{0}, false)
	}
	if err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

func isRoot(fd int, b subtree.Bind) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fmt.Errorf("look at %s: %w", b.Root, err)
	}
	if magic := uint32(fs.Type); magic != b.Magic {
		return fmt.Errorf("%s: %w: its magic number is %#x, not %#x", b.Root, subtree.ErrType, magic, b.Magic)
	}
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return fmt.Errorf("look at %s: %w", b.Root, err)
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return fmt.Errorf("%s: %w: nothing is mounted there", b.Root, subtree.ErrType)
	}
	mounts, err := mountsOf("self")
	if err != nil {
		return err
	}
	i := slices.IndexFunc(mounts, func(m subtree.Mount) bool { return uint64(m.ID) == st.Mnt_id })
	if i < 0 || mounts[i].FSType != b.FSType {
		return fmt.Errorf("%s: %w: it is not of type %s", b.Root, subtree.ErrType, b.FSType)
	}
	return nil
}

// owned refuses a directory of another owner, and on the way to the tenant's also one in which
// others may write: they could exchange what comes next.
func owned(fd int, name string, owners []uint32, tenants bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at %s: %w", name, err)
	}
	if !slices.Contains(owners, st.Uid) {
		return fmt.Errorf("%s: %w: owned by uid %d", name, subtree.ErrOwner, st.Uid)
	}
	if !tenants && st.Mode&0o022 != 0 {
		return fmt.Errorf("%s: %w: mode %04o lets others write", name, subtree.ErrOwner, st.Mode&0o7777)
	}
	return nil
}

func tenantError(name string, err error) error {
	for _, e := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV} {
		if errors.Is(err, e) {
			return fmt.Errorf("%s: %w: %w", name, subtree.ErrTenant, err)
		}
	}
	return fmt.Errorf("open %s: %w", name, err)
}

// openPath opens a directory by an absolute path that holds no symlink.
func openPath(name string) (int, error) {
	return unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: openDir, Resolve: noLinks})
}

func openTarget(name string) (int, error) {
	fd, err := openPath(name)
	if err != nil {
		return -1, fmt.Errorf("mount on %s: %w: %w", name, subtree.ErrTarget, err)
	}
	return fd, nil
}

// clone copies the mount of a directory, without what is mounted below it, to no place yet. The
// copy is private: what is mounted below the original later does not appear in it.
func clone(fd int) (int, error) {
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("copy mount: %w", err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		closeFD(tree)
		return -1, fmt.Errorf("set mount options: %w", err)
	}
	return tree, nil
}

// attach moves a mount to its place. Where the place is on a shared mount, as / is on machines
// with systemd, the mount appears in other namespaces as well, and goes from there with it.
func attach(tree, target int, name string) error {
	err := unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("mount on %s: %w", name, err)
	}
	return nil
}

func closeFD(fd int) { _ = unix.Close(fd) }
