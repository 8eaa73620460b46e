package leftover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Owner is whose files are looked for.
type Owner struct {
	UIDs []enclave.UIDRange
	Name string // of the user; "" when it is not known
}

const (
	openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW
	beside  = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

	// A user's tree may be deeper than there are descriptors: what lies deeper than this is moved
	// up to the place itself, and comes next. Trees of others are not followed deeper than farthest.
	deepest  = 64
	farthest = 512
	movedUp  = ".slurm-enclave-"
)

// List names what the owner has in the places: a path and its owner per line.
func List(ctx context.Context, places []string, o Owner) ([]string, error) {
	w := walk{owner: o, found: []string{}}
	err := w.places(ctx, places)
	return w.found, err
}

// Remove deletes what the owner has in the places, but for the lines of keep as List gives them.
// Files of others stay, and so does a directory of the owner's that holds one. All places are
// tried.
func Remove(ctx context.Context, places []string, o Owner, keep []string) error {
	w := walk{owner: o, remove: true, keep: keep}
	return w.places(ctx, places)
}

type walk struct {
	owner  Owner
	remove bool
	keep   []string
	found  []string
	moved  int
}

func (w *walk) places(ctx context.Context, places []string) error {
	var errs []error
	for _, place := range places {
		fd, err := unix.Openat2(unix.AT_FDCWD, place, &unix.OpenHow{Flags: openDir, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err == nil {
			err = w.place(ctx, fd, place)
			_ = unix.Close(fd)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("look through %s: %w", place, err))
		}
	}
	return errors.Join(errs...)
}

// place goes through one place again as long as something was moved up in it.
func (w *walk) place(ctx context.Context, fd int, name string) error {
	for {
		before := w.moved
		if err := w.directory(ctx, fd, fd, name, 0); err != nil || w.moved == before {
			return err
		}
	}
}

func (w *walk) directory(ctx context.Context, top, fd int, name string, depth int) error {
	names, err := entries(fd)
	if err != nil {
		return gone(err) // a directory that was deleted since it was opened holds nothing
	}
	var errs []error
	for _, n := range names {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		errs = append(errs, w.entry(ctx, top, fd, n, path.Join(name, n), depth))
	}
	return errors.Join(errs...)
}

func (w *walk) entry(ctx context.Context, top, fd int, n, full string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, n, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return gone(err)
	}
	own := w.owns(st.Uid, full)
	line := full + " of uid " + strconv.FormatUint(uint64(st.Uid), 10)
	if own {
		w.found = append(w.found, line)
	}
	drop := own && w.remove && !slices.Contains(w.keep, line)
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return w.folder(ctx, top, fd, n, full, depth, drop)
	case drop:
		return gone(unix.Unlinkat(fd, n, 0))
	}
	return nil
}

// folder goes through a directory, and deletes it when it is to be dropped and is empty then.
func (w *walk) folder(ctx context.Context, top, fd int, n, full string, depth int, drop bool) error {
	if drop && depth >= deepest {
		w.moved++
		return unix.Renameat(fd, n, top, fmt.Sprintf("%s%d-%d", movedUp, os.Getpid(), w.moved))
	}
	if depth >= farthest {
		return nil
	}
	sub, err := unix.Openat2(fd, n, &unix.OpenHow{Flags: openDir, Resolve: beside})
	if errors.Is(err, unix.EXDEV) {
		return nil // a mount: not the place's, and none of ours to empty
	}
	if err != nil {
		return gone(err)
	}
	defer func() { _ = unix.Close(sub) }()
	if err := w.directory(ctx, top, sub, full, depth+1); err != nil || !drop {
		return err
	}
	if err := unix.Unlinkat(fd, n, unix.AT_REMOVEDIR); !errors.Is(err, unix.ENOTEMPTY) {
		return gone(err)
	}
	return nil
}

// owns says whether a file is the owner's: by its id, or by its name where names say so.
func (w *walk) owns(uid uint32, full string) bool {
	if w.owner.Name != "" && full == path.Join(lingers, w.owner.Name) {
		return true
	}
	return slices.ContainsFunc(w.owner.UIDs, func(r enclave.UIDRange) bool { return uid >= r.Start && uid-r.Start < r.Count })
}

func entries(fd int) ([]string, error) {
	again, err := unix.Openat(fd, ".", openDir, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), "directory")
	defer func() { _ = f.Close() }()
	return f.Readdirnames(-1)
}

func gone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
