// Package file opens, creates and judges files for programs that run as root.
//
// A path is trusted when nobody but root could have chosen what it leads to. Nothing here follows
// a link that somebody else could have placed, and nothing is created where somebody else could
// have created it before.
package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const linkLimit = 40 // as the kernel's

// ErrInsecure is the error of a path that somebody else could have chosen.
var ErrInsecure = errors.New("not secure")

// Trust says who may own what is trusted. The zero Trust trusts root alone.
type Trust struct {
	Owner uint32 // a second owner beside root, for tests
	Top   string // where walking begins, for tests; "" is "/"
}

// Secure walks an absolute path from the root directory: each directory on the way, each
// symlink's target and the path itself must be owned by root and writable by its owner alone.
// It is not a defence against root, and needs none against others: once true, they cannot change
// it. The error wraps ErrInsecure, or fs.ErrNotExist.
func (t Trust) Secure(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s: %w: not an absolute path", path, ErrInsecure)
	}
	if err := t.judge("/"); err != nil {
		return err
	}
	at, rest, links := "/", parts(path), 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, part)
		info, err := os.Lstat(next)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			if err = t.judge(next); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			at = next
			continue
		}
		// The link itself stands in a directory that was judged. Its mode means nothing.
		if links++; links > linkLimit {
			return fmt.Errorf("%s: %w: too many symlinks", path, ErrInsecure)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(parts(target), rest...)
	}
	return nil
}

func parts(path string) []string {
	return strings.FieldsFunc(path, func(c rune) bool { return c == '/' })
}

func (t Trust) judge(path string) error {
	if t.Top != "" && (path == "/" || !strings.HasPrefix(path, t.Top+"/")) {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return t.own(path, &st)
}

func (t Trust) own(path string, st *unix.Stat_t) error {
	if st.Uid != 0 && (t.Owner == 0 || st.Uid != t.Owner) {
		return fmt.Errorf("%s: %w: owned by uid %d", path, ErrInsecure, st.Uid)
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("%s: %w: mode %04o lets others write", path, ErrInsecure, st.Mode&0o7777)
	}
	return nil
}

// Read reads a regular file of at most limit bytes whose path is secure.
func (t Trust) Read(path string, limit int64) ([]byte, error) {
	if err := t.Secure(path); err != nil {
		return nil, fmt.Errorf("read %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("read %s: %w: not a regular file", path, ErrInsecure)
	}
	if err := t.own(path, &st); err != nil {
		return nil, fmt.Errorf("read %w", err)
	}
	return readAll(f, path, limit)
}
