package file

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Private reads a regular file that is root's or this process's own, and that nobody else may read or
// write: mode 0400 or 0600. The last part of the path is no link.
func Private(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o077 != 0 || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("read %s: %w: want a regular file of this user's with mode 0400, found mode %04o of uid %d", path, ErrInsecure, st.Mode&0o7777, st.Uid)
	}
	return readAll(f, path, limit)
}
