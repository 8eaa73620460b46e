package leftover

import (
	"context"
	"errors"
	"fmt"
	"io"
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

	batch      = 1024 // names
	mostErrors = 8    // of a directory
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
	w := walk{owner: o, remove: true, keep: map[string]bool{}}
	for _, line := range keep {
		w.keep[line] = true
	}
	return w.places(ctx, places)
}

type walk struct {
	owner  Owner
	remove bool
	keep   map[string]bool
	found  []string
	moved  int
	gone   int // files and directories that were deleted
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

// directory goes through one directory, some names at a time: a user can make more than there is memory
// for. What a file system shows of names while others are deleted is its own affair, so it is read again
// until nothing more was deleted in a whole reading.
func (w *walk) directory(ctx context.Context, top, fd int, name string, depth int) error {
	again, err := unix.Openat(fd, ".", openDir, 0)
	if err != nil {
		return gone(err) // a directory that was deleted since it was opened holds nothing
	}
	f := os.NewFile(uintptr(again), name)
	defer func() { _ = f.Close() }()
	for {
		before := w.gone
		all, err := w.reading(ctx, f, top, fd, name, depth)
		if err != nil || all || w.gone == before {
			return err
		}
		if _, err = f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

// reading reads a directory once, and says whether all names were read before anything was deleted. It goes on
// behind errors, and returns the first of them.
func (w *walk) reading(ctx context.Context, f *os.File, top, fd int, name string, depth int) (all bool, err error) {
	var errs []error
	for n := 0; ; n++ {
		names, readErr := f.Readdirnames(batch)
		if readErr != nil && !errors.Is(readErr, io.EOF) {
			return false, errors.Join(append(errs, gone(readErr))...)
		}
		if len(names) == 0 {
			return n <= 1, errors.Join(errs...)
		}
		for _, one := range names {
			if ctx.Err() != nil {
				return false, errors.Join(append(errs, ctx.Err())...)
			}
			if err := w.entry(ctx, top, fd, one, name+"/"+one, depth); err != nil && len(errs) < mostErrors {
				errs = append(errs, err)
			}
		}
	}
}

func (w *walk) entry(ctx context.Context, top, fd int, n, full string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, n, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return gone(err)
	}
	own := w.owns(st.Uid, full)
	drop := own && w.remove
	if own && (!w.remove || len(w.keep) > 0) {
		line := full + " of uid " + strconv.FormatUint(uint64(st.Uid), 10)
		if !w.remove {
			w.found = append(w.found, line)
		}
		drop = drop && !w.keep[line]
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return w.folder(ctx, top, fd, n, full, depth, drop)
	case drop:
		w.gone++
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
		w.gone++
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

func gone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
