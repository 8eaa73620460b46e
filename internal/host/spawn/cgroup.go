package spawn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// parseCgroups finds in a mountinfo(5) the hierarchies by which processes are killed: cgroup
// v2, and of v1 the freezer (Slurm's proctrack) and the named ones (systemd).
func parseCgroups(r io.Reader) ([]string, error) {
	var out []string
	s := bufio.NewScanner(r)
	for s.Scan() {
		mount, super, ok := strings.Cut(s.Text(), " - ")
		left, right := strings.Fields(mount), strings.Fields(super)
		if !ok || len(left) < 5 || len(right) < 3 {
			return nil, fmt.Errorf("parse mountinfo: %q", s.Text())
		}
		options := strings.Split(right[2], ",")
		named := slices.ContainsFunc(options, func(o string) bool { return o == "freezer" || strings.HasPrefix(o, "name=") })
		if right[0] == "cgroup2" || right[0] == "cgroup" && named {
			out = append(out, left[4])
		}
	}
	return out, s.Err()
}

func cgroups() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	defer func() { _ = f.Close() }()
	return parseCgroups(f)
}

// enterCgroups moves this process into a cgroup of its own in each hierarchy that there is.
func enterCgroups(name string) error {
	roots, err := cgroups()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := filepath.Join(root, name)
		err := os.Mkdir(dir, 0o755)
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
		}
		if err != nil && !errors.Is(err, unix.EROFS) { // a container's, where nobody makes cgroups
			return fmt.Errorf("enter cgroup %s: %w", dir, err)
		}
	}
	return nil
}

// removeCgroups removes what enterCgroups made; the process is dead. The kernel takes a dead
// process out of its cgroup a moment after it has told everybody of the death.
func removeCgroups(ctx context.Context, name string) error {
	roots, err := cgroups()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := filepath.Join(root, name)
		err := unix.Rmdir(dir)
		for n := 0; errors.Is(err, unix.EBUSY) && n < 200 && pause(ctx, n) == nil; n++ {
			err = unix.Rmdir(dir)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
	}
	return nil
}

// pause is short at first: mostly it is a matter of a millisecond.
func pause(ctx context.Context, n int) error {
	timer := time.NewTimer(min(time.Millisecond<<min(n, 4), 10*time.Millisecond))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
