package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/closed"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/ipc"
	"github.com/slurm-enclave/slurm-enclave/internal/host/keyring"
	"github.com/slurm-enclave/slurm-enclave/internal/host/leftover"
	"github.com/slurm-enclave/slurm-enclave/internal/host/mount"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/host/survey"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

// placesFile lists the directories of this node in which users can leave files; found at boot.
const placesFile = StateDir + "/places.json"

// findPlaces looks for them, for the closed state and for all epilogs of this boot.
func findPlaces(ctx context.Context, c config.Config) error {
	mounts, err := mount.Host{}.Mounts(ctx)
	if err != nil {
		return err
	}
	skip := []string{"/dev/mqueue"}
	if c.Storage.Source != "" {
		skip = append(skip, path.Dir(c.Storage.Source))
	}
	places, err := leftover.Search(ctx, mounts, skip...)
	if err != nil {
		return fmt.Errorf("find places where users can leave files: %w", err)
	}
	b, err := json.Marshal(places)
	if err != nil {
		return err
	}
	return survey.Record{Path: placesFile}.Write(append(b, '\n'))
}

// places reads what findPlaces found, and adds slurmd's own directory: slurmstepd makes directories of the user's
// there (PMIx, the batch script), and looks through them once when it takes them away.
func places(c config.Config) ([]string, error) {
	b, err := survey.Record{Path: placesFile}.Read()
	if err != nil {
		return nil, err
	}
	var list []string
	if err = json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("parse %s: %w", placesFile, err)
	}
	spool, err := (survey.Configuration{}).Spool(os.Getenv("SLURM_CONF"), c.Slurm.Plugstack, os.Getenv("SLURMD_NODENAME"))
	if err != nil {
		return nil, err
	}
	return leftover.With(list, spool), nil
}

// filesDown deletes what the job's ids and those of other people have left on the node's own disks: the
// node was the job's alone. What was there when the node was closed stays.
func (n *node) filesDown(ctx context.Context) error {
	whose, was := n.whose()
	if len(whose) == 0 {
		return nil
	}
	list, err := places(n.config)
	if err != nil {
		return nodeError("E315", "run enclave host close, or reboot", "%s", err)
	}
	if err = n.unmountOwn(ctx, list, whose, was); err != nil {
		return err
	}
	if err = leftover.Remove(ctx, list, leftover.Owner{UIDs: whose, Name: n.job.User}, was.Files); err != nil {
		return nodeError("E316", "delete them by hand, or reboot", "delete files that the job left: %s", err)
	}
	return nil
}

// whose are the ids whose things end with the job: all people's, for a job can act as others than its
// user (a password, sub-ids that only the name service knows), but for what was there when the node was closed.
// Without a record of that nobody can tell the site's things from leftovers: then it is the job's ids alone.
func (n *node) whose() ([]enclave.UIDRange, closed.Snapshot) {
	if len(n.uids()) == 0 {
		return nil, closed.Snapshot{}
	}
	b, err := survey.Record{Path: closedFile}.Read()
	if err != nil {
		return n.uids(), closed.Snapshot{}
	}
	s, err := closed.Parse(b)
	if boot, bootErr := process.BootID(); err != nil || bootErr != nil || s.Boot != boot {
		return n.uids(), closed.Snapshot{} // told by the comparison; of another boot when the node is being closed
	}
	return survey.People(uidMin), s
}

// unmountOwn takes off what a user can mount outside of the view: by fusermount in a directory of
// his own, wherever that is, and the runtime directory that logind makes for a login.
func (n *node) unmountOwn(ctx context.Context, places []string, whose []enclave.UIDRange, was closed.Snapshot) error {
	mounts, err := mount.Host{}.Mounts(ctx)
	if err != nil {
		return err
	}
	view := viewConfig(n.config)
	var errs []error
	for _, m := range slices.Backward(mounts) {
		fuse := m.FUSE() && unrecorded(m, view, places, was)
		if fuse || ofLogin(m.Point, whose, was.Files) {
			errs = append(errs, mount.Host{}.Unmount(ctx, m.Point))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nodeError("E316", "unmount it by hand, or reboot", "unmount what the job left: %s", err)
	}
	return nil
}

// unrecorded says whether a mount is not of the closed state; without a record those in places are not.
func unrecorded(m subtree.Mount, view subtree.Config, places []string, was closed.Snapshot) bool {
	if was.Version == "" {
		return slices.ContainsFunc(places, func(p string) bool { return strings.HasPrefix(m.Point, p+"/") })
	}
	return slices.ContainsFunc(subtree.Watched(view, []subtree.Mount{m}), func(line string) bool { return !slices.Contains(was.Mounts, line) })
}

// runtimes is where logind mounts a directory for each user who logs in.
const runtimes = "/run/user/"

// ofLogin says whether a mount is the runtime directory of one of these ids, or lies within.
func ofLogin(point string, whose []enclave.UIDRange, was []string) bool {
	rest, ok := strings.CutPrefix(point, runtimes)
	name, _, _ := strings.Cut(rest, "/")
	id, err := strconv.ParseUint(name, 10, 32)
	if !ok || err != nil || slices.Contains(was, runtimes+name+" of uid "+name) {
		return false
	}
	return slices.ContainsFunc(whose, func(r enclave.UIDRange) bool { return uint32(id) >= r.Start && uint32(id)-r.Start < r.Count })
}

// ipcUp guards the user's keyrings; a node where that fails is none the worse for it.
func (n *node) ipcUp(context.Context) error {
	if err := keyring.Guard(n.job.UID); err != nil {
		n.log.WithError(err).Warn("keyrings of the user not guarded")
	}
	return nil
}

func (n *node) ipcDown(ctx context.Context) error {
	whose, was := n.whose()
	if len(whose) == 0 {
		return nil
	}
	err := ipc.Remove(whose, was.IPC)
	if ringErr := keyring.Clear(ctx, whose); ringErr != nil {
		err = errors.Join(err, nodeError("E317", "reboot", "%s", ringErr))
	}
	return err
}

// processesDown ends the job's processes and, since the node was the job's alone, those of other
// people: a job whose user knows another's password must not drain the node by a process of his.
func (n *node) processesDown(ctx context.Context) error {
	ids := n.uids()
	if len(ids) == 0 {
		return nil
	}
	if err := process.Kill(ctx, ids, uidMin); err != nil {
		return err
	}
	others, err := survey.Foreign(uidMin, nil)
	if err != nil || len(others) == 0 {
		return err
	}
	var rest []enclave.UIDRange
	for _, p := range others {
		if one := (enclave.UIDRange{Start: p.UID, Count: 1}); !slices.Contains(rest, one) {
			rest = append(rest, one)
		}
	}
	return process.Kill(ctx, rest, uidMin)
}
