package subtreetest

import (
	"context"
	"slices"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

// Lustre is a simulated client of a Lustre file system on a Host: it mounts lines into the host's table.
type Lustre struct {
	Host  *Host
	FIDs  map[string]enclave.FID // of the directories, by their paths in the file system
	Level string                 // what every proof comes to
	Fail  error                  // of the mount helper
}

// SubMount mounts a directory of the file system.
func (l *Lustre) SubMount(_ context.Context, m subtree.SubMount) error {
	if err := l.Host.change("mount " + m.Target); err != nil {
		return err
	}
	if l.Fail != nil {
		return l.Fail
	}
	l.Host.Mount(subtree.Mount{
		Device: "0:99", Root: "/", Point: m.Target, FSType: subtree.LustreType, Source: m.Source + "/" + m.Subtree,
		Options: append([]string{"rw", "nosuid", "nodev"}, m.Options...),
	})
	return nil
}

// Prove compares the FID of what is mounted with the registered one.
func (l *Lustre) Prove(_ context.Context, m subtree.SubMount) (string, error) {
	i := slices.IndexFunc(l.Host.Table, func(o subtree.Mount) bool { return o.Point == m.Target && o.FSType == subtree.LustreType })
	if i < 0 {
		return "", subtree.ErrType
	}
	got := l.FIDs[m.Subtree]
	if m.Same == "" && got != m.FID {
		return "", subtree.ErrFID
	}
	return l.Level, nil
}
