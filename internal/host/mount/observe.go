package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

// Mounts reads the mount table of this namespace.
func (Host) Mounts(context.Context) ([]subtree.Mount, error) { return mountsOf("self") }

func mountsOf(pid string) ([]subtree.Mount, error) {
	f, err := os.Open("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	defer func() { _ = f.Close() }()
	return subtree.ParseMounts(f)
}

// Exists says whether a directory is there; a symlink is none.
func (Host) Exists(_ context.Context, dir string) (bool, error) {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	return info.IsDir(), nil
}

// Sync waits until the data of a mount's file system are durable. The wait is in the kernel and
// cannot be broken off: when ctx ends first, the call returns and its thread stays behind until
// the storage answers or the program ends.
func (Host) Sync(ctx context.Context, point string) error {
	done := make(chan error, 1)
	go func() {
		fd, err := unix.Open(point, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Syncfs(fd), unix.Close(fd))
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("sync %s: %w", point, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sync %s: %w", point, ctx.Err())
	}
}

// Holders finds the processes that have an open file, a directory, a program or a mapping on a
// mount. In other mount namespaces the mount has another number there, so the device decides.
func (Host) Holders(_ context.Context, m subtree.Mount) ([]subtree.Holder, error) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("find holders: %w", err)
	}
	return filter(func(dir string) bool {
		ns, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
		return err == nil && holds(dir, m, ns == own)
	})
}

// Elsewhere finds the processes whose mount namespace is not this one and holds a mount that
// matches. A namespace that no process is in is not seen.
func (Host) Elsewhere(_ context.Context, match func(subtree.Mount) bool) ([]subtree.Holder, error) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("find namespaces: %w", err)
	}
	known := map[string]bool{own: false}
	return filter(func(dir string) bool {
		ns, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
		if err != nil {
			return false
		}
		found, seen := known[ns]
		if !seen {
			mounts, err := mountsOf(filepath.Base(dir))
			if err != nil {
				return false // it ended meanwhile; another process of the namespace tells
			}
			found = slices.ContainsFunc(mounts, match)
			known[ns] = found
		}
		return found
	})
}

// Kill ends exactly these processes.
func (Host) Kill(ctx context.Context, holders []subtree.Holder) error {
	victims := make([]process.Process, 0, len(holders))
	for _, h := range holders {
		victims = append(victims, process.Process{PID: h.PID, UID: h.UID, Name: h.Name})
	}
	return process.KillThese(ctx, victims)
}

func filter(keep func(dir string) bool) ([]subtree.Holder, error) {
	list, err := process.List()
	if err != nil {
		return nil, err
	}
	var holders []subtree.Holder
	for _, p := range list {
		if keep("/proc/" + strconv.Itoa(p.PID)) {
			holders = append(holders, subtree.Holder{PID: p.PID, UID: p.UID, Name: strconv.Quote(p.Name)})
		}
	}
	return holders, nil
}

func holds(dir string, m subtree.Mount, here bool) bool {
	for _, name := range []string{"cwd", "root", "exe"} {
		if on(filepath.Join(dir, name), m, here) {
			return true
		}
	}
	for _, sub := range []string{"fd", "map_files"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			continue // it ended meanwhile
		}
		for _, e := range entries {
			if on(filepath.Join(dir, sub, e.Name()), m, here) {
				return true
			}
		}
	}
	return false
}

func on(link string, m subtree.Mount, here bool) bool {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil {
		return false
	}
	if here {
		return st.Mnt_id == uint64(m.ID)
	}
	return fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor) == m.Device
}
