package mount

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// Private cuts the caller's mount namespace off from all others.
func (Host) Private(context.Context) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// Detach takes a mount, and what is mounted below it, out of the caller's namespace at once. In
// other namespaces it stays.
func (Host) Detach(_ context.Context, point string) error {
	if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("detach %s: %w", point, err)
	}
	return nil
}
