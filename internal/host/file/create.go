package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Read reads a regular file of at most limit bytes, whoever it belongs to.
func Read(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file", path)
	}
	return readAll(f, path, limit)
}

func readAll(r io.Reader, path string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: more than %d bytes", path, limit)
	}
	return b, nil
}

// Directory makes a directory with mode 0700 in a secure parent, or accepts one that is already
// there as it would have made it. A symlink, another owner or another mode is an error: nothing
// is repaired, for what lies in such a directory may be somebody else's.
func (t Trust) Directory(path string) error {
	if err := t.Secure(filepath.Dir(path)); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("make directory %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o7777 != 0o700 {
		return fmt.Errorf("make directory %s: %w: it is there and not a directory with mode 0700", path, ErrInsecure)
	}
	if err := t.own(path, &st); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return nil
}

// Volatile makes a directory as Directory does and demands that it does not outlive a boot: what
// is written there is on a tmpfs.
func (t Trust) Volatile(path string) error {
	if err := t.Directory(path); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC {
		return fmt.Errorf("%s: %w: not on a tmpfs", path, ErrInsecure)
	}
	return nil
}

// Replace writes a file whole or not at all, with mode 0600, into a secure directory.
func (t Trust) Replace(path string, b []byte) error {
	if err := t.Secure(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	half := path + "+"
	if err := os.Remove(half); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write: %w", err)
	}
	f, err := os.OpenFile(half, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(half, path)
	}
	if err != nil {
		return fmt.Errorf("write: %w", errors.Join(err, os.Remove(half)))
	}
	return syncDirectory(filepath.Dir(path))
}

// syncDirectory makes a rename durable.
func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	return nil
}

// Tree lists what is in a directory, by paths relative to it, sorted; directories end in "/".
// It follows no link and crosses into no other file system. A missing directory is empty.
func Tree(dir string) ([]string, error) {
	var top unix.Stat_t
	if err := unix.Lstat(dir, &top); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || path == dir {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if !d.IsDir() {
			names = append(names, name)
			return nil
		}
		names = append(names, name+"/")
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err == nil && st.Dev != top.Dev {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	slices.Sort(names)
	return names, nil
}
