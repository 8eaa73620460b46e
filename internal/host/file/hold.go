package file

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld is the error of a directory that another process holds.
var ErrHeld = errors.New("held by another process")

const holdPause = 50 * time.Millisecond

// Hold takes a directory for this process alone, until it lets go or ends; programs that it starts do
// not hold it. It waits until ctx ends, and tries once at least. Nothing is written.
func Hold(ctx context.Context, dir string) (release func(), err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("hold %s: %w", dir, err)
	}
	for {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = unix.Close(fd) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
		t := time.NewTimer(holdPause)
		select {
		case <-t.C:
			continue
		case <-ctx.Done():
			t.Stop()
			err = ErrHeld
		}
		break
	}
	_ = unix.Close(fd)
	return nil, fmt.Errorf("hold %s: %w", dir, err)
}
