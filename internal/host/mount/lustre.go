package mount

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

// Lustre mounts sub-directories of a Lustre file system and proves mounts. The zero Lustre works on
// this machine; tests put their own helper, table of mounts and kernel in its place, since no
// Lustre runs where they do.
type Lustre struct {
	Helper string // /sbin/mount.lustre: it turns names into what the kernel wants
	Table  string // /proc/self/mountinfo
	Kernel LustreKernel
}

// LustreKernel asks the kernel about a mount. Type is f_type of statfs(2), FID the identity of a
// directory's inode. Reach opens a FID through a mount as root and gives the kernel's errno.
type LustreKernel interface {
	Type(dir string) (int64, error)
	FID(dir string, uid uint32) (enclave.FID, error)
	Reach(dir string, f enclave.FID) error
}

const lustreHelper = "/sbin/mount.lustre"

// SubMount runs the helper with a fixed argument list and no environment.
func (l Lustre) SubMount(ctx context.Context, m subtree.SubMount) error {
	helper := l.Helper
	if helper == "" {
		helper = lustreHelper
	}
	options := strings.Join(append([]string{"nosuid", "nodev"}, m.Options...), ",")
	source := m.Source + "/" + m.Subtree
	cmd := exec.CommandContext(ctx, helper, "-o", options, source, m.Target)
	cmd.Dir, cmd.Env = "/", []string{}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w: %w: %s", source, m.Target, subtree.ErrHelper, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Prove looks at the mount as the kernel and the servers show it, not at what was asked for: its
// type by name and by magic number, its flags, the FID of its root, and that there is no way out.
func (l Lustre) Prove(_ context.Context, m subtree.SubMount) (string, error) {
	kernel := l.kernel()
	kind, err := kernel.Type(m.Target)
	if err != nil {
		return "", fmt.Errorf("look at %s: %w: %w", m.Target, subtree.ErrType, err)
	}
	if kind != subtree.LustreMagic {
		return "", fmt.Errorf("%s: %w: its magic number is %#x, not %#x", m.Target, subtree.ErrType, kind, subtree.LustreMagic)
	}
	if err = l.line(m); err != nil {
		return "", err
	}
	got, err := kernel.FID(m.Target, m.UID)
	if err != nil {
		return "", fmt.Errorf("read the FID of %s: %w: %w", m.Target, subtree.ErrFID, err)
	}
	want := m.FID
	if m.Same != "" {
		if want, err = kernel.FID(m.Same, m.UID); err != nil {
			return "", fmt.Errorf("read the FID of %s: %w: %w", m.Same, subtree.ErrFID, err)
		}
	}
	if got == enclave.RootFID() {
		return "", fmt.Errorf("%s: %w: it is the whole file system", m.Target, subtree.ErrOpen)
	}
	if got != want || want == (enclave.FID{}) {
		return "", fmt.Errorf("%s: %w: its root is %s, not %s", m.Target, subtree.ErrFID, got, want)
	}
	if _, err := os.Lstat(path.Join(m.Target, ".lustre")); !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		return "", fmt.Errorf("%s: %w: .lustre is there, by which every file has a name", m.Target, subtree.ErrOpen)
	}
	return level(kernel, m), nil
}

// level tries the canary as root, who passes every check of this machine: only the servers can
// have refused it. Any other answer than their no is none.
func level(kernel LustreKernel, m subtree.SubMount) string {
	if m.Canary == (enclave.FID{}) {
		return subtree.L1
	}
	if err := kernel.Reach(m.Target, m.Canary); errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return subtree.L2
	}
	return subtree.L1
}

// line holds the topmost line of the target in mountinfo against what is due.
func (l Lustre) line(m subtree.SubMount) error {
	table := l.Table
	if table == "" {
		table = "/proc/self/mountinfo"
	}
	f, err := os.Open(table)
	if err != nil {
		return fmt.Errorf("read mount table: %w", err)
	}
	defer func() { _ = f.Close() }()
	mounts, err := subtree.ParseMounts(f)
	if err != nil {
		return err
	}
	i := -1
	for n, line := range mounts {
		if line.Point == m.Target {
			i = n // a later line stands on an earlier one
		}
	}
	switch {
	case i < 0 || mounts[i].FSType != subtree.LustreType:
		return fmt.Errorf("%s: %w: mountinfo does not say lustre", m.Target, subtree.ErrType)
	case !mounts[i].Has("nosuid") || !mounts[i].Has("nodev"):
		return fmt.Errorf("%s: %w: not nosuid,nodev", m.Target, subtree.ErrOpen)
	case slices.Contains(mounts[i].Super, "user_fid2path"):
		return fmt.Errorf("%s: %w: mounted with user_fid2path", m.Target, subtree.ErrOpen)
	}
	return nil
}

func (l Lustre) kernel() LustreKernel {
	if l.Kernel == nil {
		return lustreKernel{}
	}
	return l.Kernel
}

// lustreKernel is the running one.
type lustreKernel struct{}

func (lustreKernel) Type(dir string) (int64, error) {
	fd, err := openPath(dir)
	if err != nil {
		return 0, err
	}
	defer closeFD(fd)
	var fs unix.Statfs_t
	err = unix.Fstatfs(fd, &fs)
	return fs.Type, err
}

const (
	pathToFID    = 0x800866ad // LL_IOC_PATH2FID, _IOR('f', 173, long)
	handleLustre = 0x97       // FILEID_LUSTRE: the FID, and the parent's
	fidSize      = 16
)

// FID asks as root, and as the user where the servers do not let root in.
func (lustreKernel) FID(dir string, uid uint32) (f enclave.FID, err error) {
	ask := func() error {
		fd, openErr := unix.Openat2(unix.AT_FDCWD, dir, &unix.OpenHow{
			Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: noLinks,
		})
		if openErr != nil {
			return openErr
		}
		defer closeFD(fd)
		var raw [fidSize]byte
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pathToFID, uintptr(unsafe.Pointer(&raw))); e != 0 { //nolint:gosec // the kernel writes into it while this call lasts
			return e
		}
		f = enclave.FID{
			Sequence: binary.NativeEndian.Uint64(raw[:]), Object: binary.NativeEndian.Uint32(raw[8:]), Version: binary.NativeEndian.Uint32(raw[12:]),
		}
		return nil
	}
	if err = ask(); errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		err = asUser(uid, ask)
	}
	return f, err
}

// Reach opens a file by a handle made of its FID.
func (lustreKernel) Reach(dir string, f enclave.FID) error {
	fd, err := openPath(dir)
	if err != nil {
		return errors.Join(unix.EINVAL, err)
	}
	defer closeFD(fd)
	handle := make([]byte, 2*fidSize) // no parent
	binary.NativeEndian.PutUint64(handle, f.Sequence)
	binary.NativeEndian.PutUint32(handle[8:], f.Object)
	binary.NativeEndian.PutUint32(handle[12:], f.Version)
	file, err := unix.OpenByHandleAt(fd, unix.NewFileHandle(handleLustre, handle), unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	closeFD(file)
	return nil
}

// Lookup is the FID of a directory beneath the mount of a whole file system. The way to it holds no
// symlink and no other mount.
func (l Lustre) Lookup(root, rel string) (enclave.FID, error) {
	for step := range strings.SplitSeq(rel, "/") {
		if step == "" || step == "." || step == ".." {
			return enclave.FID{}, fmt.Errorf("%s: %w", rel, subtree.ErrTenant)
		}
	}
	kernel := l.kernel()
	if kind, err := kernel.Type(root); err != nil || kind != subtree.LustreMagic {
		return enclave.FID{}, errors.Join(fmt.Errorf("%s: %w: no mount of Lustre", root, subtree.ErrType), err)
	}
	fd, err := openPath(root)
	if err != nil {
		return enclave.FID{}, fmt.Errorf("open %s: %w", root, err)
	}
	defer closeFD(fd)
	dir, err := unix.Openat2(fd, rel, &unix.OpenHow{Flags: openDir, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | noLinks})
	if err != nil {
		return enclave.FID{}, tenantError(path.Join(root, rel), err)
	}
	defer closeFD(dir)
	return kernel.FID(path.Join(root, rel), 0)
}

// asUser does something under another file system id.
func asUser(uid uint32, do func() error) error {
	return process.Aside(func() error {
		if _, _, e := unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0); e != 0 {
			return e
		}
		return do()
	})
}
