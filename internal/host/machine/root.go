package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is a computer's file system: an overlay of Upper on Lower.
type Root struct {
	Lower  []string // topmost first; the last is usually "/"
	Upper  string   // an empty directory on a file system that can hold an overlay (tmpfs can)
	Work   string   // an empty directory beside Upper
	Target string   // where the overlay is mounted before it becomes "/"
	Binds  []Bind   // directories of the old root that the new one shares
}

// Bind shares From (in the old root) at To (in the new one).
type Bind struct {
	From string
	To   string
}

// PrivateMounts makes all mounts of the calling process's mount namespace private, so that
// nothing done there shows outside.
func PrivateMounts() error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if errors.Is(err, unix.EINVAL) {
		return privateOneByOne() // the caller lives in a chroot, whose root is no mount
	}
	return pathError("make mounts private", "/", err)
}

func privateOneByOne() error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		// A mount that is covered by another can't be named, and nothing can be mounted below it either.
		if err := unix.Mount("", point, "", unix.MS_PRIVATE, ""); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return pathError("make mounts private", point, err)
		}
	}
	return nil
}

// MountTmpfs mounts a tmpfs of at most size (as in "50%" or "64m") with the given mode at dir,
// which it makes.
func MountTmpfs(dir, size string, mode os.FileMode) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	perm := uint32(mode.Perm())
	if mode&os.ModeSticky != 0 {
		perm |= unix.S_ISVTX
	}
	options := fmt.Sprintf("size=%s,mode=%o", size, perm)
	return pathError("mount tmpfs on", dir, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID, options))
}

// MountProc mounts a fresh procfs of the calling process's PID namespace at dir.
func MountProc(dir string) error {
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	return pathError("mount proc on", dir, unix.Mount("proc", dir, "proc", flags, ""))
}

// BindMount shares from at to, with everything mounted below it when recursive.
func BindMount(from, to string, recursive bool) error {
	flags := uintptr(unix.MS_BIND)
	if recursive {
		flags |= unix.MS_REC
	}
	return pathError("bind "+from+" on", to, unix.Mount(from, to, "", flags, ""))
}

// Enter builds the root and makes it the calling process's "/". The caller is the only
// thread that cares about the old root, and is alone in its mount namespace.
func (r Root) Enter() error {
	for _, dir := range []string{r.Upper, r.Work, r.Target} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(r.Lower, ":"), r.Upper, r.Work)
	if err := unix.Mount("overlay", r.Target, "overlay", 0, options); err != nil {
		return pathError("mount overlay on", r.Target, err)
	}
	if err := r.furnish(); err != nil {
		return err
	}
	return pivot(r.Target)
}

func (r Root) furnish() error {
	at := func(p string) string { return filepath.Join(r.Target, p) }
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "var/tmp"} {
		if err := os.MkdirAll(at(dir), 0o755); err != nil {
			return err
		}
	}
	if err := MountProc(at("proc")); err != nil {
		return err
	}
	if err := pathError("mount sysfs on", at("sys"), unix.Mount("sysfs", at("sys"), "sysfs", 0, "")); err != nil {
		return err
	}
	if err := BindMount("/dev", at("dev"), true); err != nil {
		return err
	}
	for dir, mode := range map[string]os.FileMode{
		"run": 0o755, "tmp": 0o777 | os.ModeSticky, "var/tmp": 0o777 | os.ModeSticky, "dev/shm": 0o777 | os.ModeSticky,
	} {
		if err := MountTmpfs(at(dir), "25%", mode); err != nil {
			return err
		}
	}
	// A new IPC namespace has its own queues, but the bind of /dev would show the old mount.
	if err := unix.Mount("mqueue", at("dev/mqueue"), "mqueue", 0, ""); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return pathError("mount mqueue on", at("dev/mqueue"), err)
	}
	for _, b := range r.Binds {
		if err := os.MkdirAll(at(b.To), 0o755); err != nil {
			return err
		}
		if err := BindMount(b.From, at(b.To), false); err != nil {
			return err
		}
	}
	return nil
}

func pivot(target string) error {
	old := filepath.Join(target, ".old-root")
	if err := os.MkdirAll(old, 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(target, old); errors.Is(err, unix.EINVAL) {
		return change(target) // the caller lives in a chroot, whose root is no mount
	} else if err != nil {
		return pathError("pivot root to", target, err)
	}
	if err := unix.Chdir("/"); err != nil {
		return pathError("change directory to", "/", err)
	}
	// Detached, not unmounted: the overlay's layers stay in use below the new root.
	if err := unix.Unmount("/.old-root", unix.MNT_DETACH); err != nil {
		return pathError("detach old root", "/.old-root", err)
	}
	return os.Remove("/.old-root")
}

func change(target string) error {
	if err := os.Remove(filepath.Join(target, ".old-root")); err != nil {
		return err
	}
	if err := unix.Chroot(target); err != nil {
		return pathError("change root to", target, err)
	}
	return pathError("change directory to", "/", unix.Chdir("/"))
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}
