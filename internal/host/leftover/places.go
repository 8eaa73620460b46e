// Package leftover finds and removes the files that a job's processes left on a node's own disks,
// outside of everything that goes with the job's mounts: in directories where everybody may
// create files, and in those where setuid programs create them for users (cron, at, mail).
//
// Who calls it: the host's closing finds the places once per boot, the epilog removes there what
// belongs to the job's ids, and the closed state lists what is left. What was there when the node
// was closed stays. Directories are opened beneath each other by descriptor: no symlink is
// followed and no mount is entered, whatever a user has prepared.
package leftover

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

// known are places that exist on machines whose image has the program, writable to users through
// a setuid or setgid program only, or made after boot.
var known = []string{
	"/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/run/screen", "/run/user", "/var/crash", "/var/mail", "/var/spool/mail",
	"/var/spool/cron", "/var/spool/at", "/var/spool/atjobs", lingers, "/var/lib/systemd/coredump",
}

// lingers is where logind notes whose services start without a login: files of root's, with the
// users' names.
const lingers = "/var/lib/systemd/linger"

// systemGroups end here: a directory that only such a group can enter is no user's.
const systemGroups = 100

// Search lists the directories of this node's own file systems in which everybody can create
// files, the outermost only, and the known ones, which need not exist yet. It looks at each directory that users
// can enter, so it takes seconds: once per boot. Skipped are what is mounted read-only, network
// file systems, the kernel's own, and what lies beneath skip.
func Search(ctx context.Context, mounts []subtree.Mount, skip ...string) ([]string, error) {
	places := slices.Clone(known)
	for _, m := range mounts {
		if !m.Local() || m.Has("ro") || beneath(m.Point, skip) || beneath(m.Point, places) {
			continue
		}
		found, err := search(ctx, m.Point, append(slices.Clone(skip), places...))
		if err != nil {
			return nil, err
		}
		places = append(places, found...)
	}
	slices.Sort(places)
	return slices.Compact(places), nil
}

// With adds a place to a list, and leaves out what lies beneath another: each is looked through once.
func With(places []string, one string) []string {
	if beneath(one, places) {
		return places
	}
	rest := slices.DeleteFunc(slices.Clone(places), func(p string) bool { return beneath(p, []string{one}) })
	return append(rest, one)
}

// search walks one mount, and leaves out what it can't look at: it may be gone.
func search(ctx context.Context, root string, skip []string) ([]string, error) {
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		return nil, nil //nolint:nilerr // covered by another mount, or not there any more
	}
	var found []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // gone meanwhile
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil || st.Dev != top.Dev || slices.Contains(skip, name) {
			return fs.SkipDir
		}
		if st.Mode&0o002 != 0 {
			found = append(found, name)
			return fs.SkipDir
		}
		if st.Mode&0o001 == 0 && (st.Mode&0o010 == 0 || st.Gid < systemGroups) {
			return fs.SkipDir // no user comes here
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.SkipDir) {
		return nil, err
	}
	return found, nil
}

func beneath(name string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return name == d || strings.HasPrefix(name, path.Clean(d)+"/") })
}
