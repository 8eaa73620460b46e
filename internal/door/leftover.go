package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// places reads what findPlaces found.
func places() ([]string, error) {
	b, err := survey.Record{Path: placesFile}.Read()
	if err != nil {
		return nil, err
	}
	var list []string
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("parse %s: %w", placesFile, err)
	}
	return list, nil
}

// filesDown deletes what the job's ids have left on the node's own disks. What was there when the
// node was closed stays.
func (n *node) filesDown(ctx context.Context) error {
	if len(n.uids()) == 0 {
		return nil
	}
	list, err := places()
	if err != nil {
		return nodeError("E315", "run enclave host close, or reboot", "%s", err)
	}
	if err = n.unmountOwn(ctx, list); err != nil {
		return err
	}
	if err = leftover.Remove(ctx, list, leftover.Owner{UIDs: n.uids(), Name: n.job.User}, kept()); err != nil {
		return nodeError("E316", "delete them by hand, or reboot", "delete files that the job left: %s", err)
	}
	return nil
}

// kept are the files of people that belong to the closed state.
func kept() []string {
	b, err := survey.Record{Path: closedFile}.Read()
	if err != nil {
		return nil
	}
	s, err := closed.Parse(b)
	if err != nil {
		return nil // told by the comparison
	}
	return s.Files
}

// unmountOwn takes off what a user can mount outside of the view: by fusermount in a directory of
// his own, and the runtime directory that logind makes for a login.
func (n *node) unmountOwn(ctx context.Context, places []string) error {
	mounts, err := mount.Host{}.Mounts(ctx)
	if err != nil {
		return err
	}
	runtime := "/run/user/" + strconv.FormatUint(uint64(n.job.UID), 10)
	var errs []error
	for _, m := range slices.Backward(mounts) {
		own := m.Point == runtime || strings.HasPrefix(m.Point, runtime+"/")
		fuse := m.FUSE() && slices.ContainsFunc(places, func(p string) bool { return strings.HasPrefix(m.Point, p+"/") })
		if own || fuse {
			errs = append(errs, mount.Host{}.Unmount(ctx, m.Point))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nodeError("E316", "unmount it by hand, or reboot", "unmount what the job left: %s", err)
	}
	return nil
}

// ipcUp guards the user's keyrings; a node where that fails is none the worse for it.
func (n *node) ipcUp(context.Context) error {
	if err := keyring.Guard(n.job.UID); err != nil {
		n.log.WithError(err).Warn("keyrings of the user not guarded")
	}
	return nil
}

func (n *node) ipcDown(ctx context.Context) error {
	if len(n.uids()) == 0 {
		return nil
	}
	err := ipc.Remove(n.uids())
	if ringErr := keyring.Clear(ctx, n.uids()); ringErr != nil {
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
