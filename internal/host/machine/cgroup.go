package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Cgroups says which cgroup hierarchy a machine offers for tracking processes.
type Cgroups string

// Slurm's proctrack/cgroup works on either of the first two.
const (
	CgroupFreezer Cgroups = "freezer" // version 1, the freezer hierarchy
	CgroupUnified Cgroups = "unified" // version 2 only
	CgroupNone    Cgroups = "none"
)

// FindCgroups reads a mountinfo (proc(5)) and says which hierarchy is there and where.
func FindCgroups(mountinfo io.Reader) (Cgroups, string, error) {
	found, where := CgroupNone, ""
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, fs := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(fs) < 3 {
			continue
		}
		switch {
		case fs[0] == "cgroup" && slices.Contains(strings.Split(fs[2], ","), "freezer"):
			return CgroupFreezer, fields[4], lines.Err()
		case fs[0] == "cgroup2" && fields[4] == "/sys/fs/cgroup":
			found, where = CgroupUnified, fields[4]
		}
	}
	return found, where, lines.Err()
}

// HideCgroups covers the computer's cgroup tree by an empty one that shows only the freezer
// sub-directory dir, so that several slurmd on one kernel do not meet.
func HideCgroups(dir string) error {
	if err := MountTmpfs("/sys/fs/cgroup", "1m", 0o755); err != nil {
		return err
	}
	const at = "/sys/fs/cgroup/.all"
	const freezer = "/sys/fs/cgroup/freezer"
	for _, d := range []string{at, freezer} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := pathError("mount freezer on", at, unix.Mount("cgroup", at, "cgroup", 0, "freezer")); err != nil {
		return err
	}
	sub := filepath.Join(at, dir)
	if err := os.MkdirAll(sub, 0o755); err != nil {
		return err
	}
	if err := BindMount(sub, freezer, false); err != nil {
		return err
	}
	if err := pathError("detach", at, unix.Unmount(at, unix.MNT_DETACH)); err != nil {
		return err
	}
	return os.Remove(at)
}

// RemoveCgroups removes a cgroup directory and those below it; one that is gone is fine. It
// fails when a process is still inside.
func RemoveCgroups(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := RemoveCgroups(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove cgroup %s: %w", dir, err)
	}
	return nil
}
