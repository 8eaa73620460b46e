// Package subtreetest is a node that exists only in memory, for tests of the subtree room and of
// those who use it. It keeps a mount table and prints it as text; it knows no kernel.
package subtreetest

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

// ErrKilled is what every call gives after the node was told to die.
var ErrKilled = errors.New("killed")

// Host is the node. The zero Host has nothing mounted.
type Host struct {
	Table   []subtree.Mount
	Missing []string                    // directories that don't exist
	Busy    map[string][]subtree.Holder // mount point -> who holds it
	Stray   []subtree.Holder            // who has the view in a namespace of its own
	Killed  []subtree.Holder
	Synced  []string
	Fail    map[string]error // "bind /lustre", "tmpfs /tmp", "unmount /tmp", "sync /lustre" -> error
	DieAt   int              // the n-th change of the table kills, before it is made; 0: never
	changes int
	next    int
}

// New is a node on which the site has mounted its file system.
func New(root, fstype string) *Host {
	h := &Host{}
	h.Mount(subtree.Mount{Device: "7:0", Root: "/", Point: root, FSType: fstype, Source: "site"})
	return h
}

// Mount adds a line to the table, on top of what is at its point.
func (h *Host) Mount(m subtree.Mount) {
	h.next++
	m.ID = h.next
	m.Parent = h.parent(m.Point)
	h.Table = append(h.Table, m)
}

// parent finds the mount that a path is on, the topmost where there are several.
func (h *Host) parent(point string) int {
	id, length := 0, -1
	for _, m := range h.Table {
		if (m.Point == point || strings.HasPrefix(point, strings.TrimSuffix(m.Point, "/")+"/")) && len(m.Point) >= length {
			id, length = m.ID, len(m.Point)
		}
	}
	return id
}

func (h *Host) change(what string) error {
	h.changes++
	if h.DieAt != 0 && h.changes >= h.DieAt {
		return ErrKilled
	}
	return h.Fail[what]
}

// Bind puts a directory of the file system on its target.
func (h *Host) Bind(_ context.Context, b subtree.Bind) error {
	if err := h.change("bind " + b.Target); err != nil {
		return err
	}
	i := slices.IndexFunc(h.Table, func(m subtree.Mount) bool { return m.Point == b.Root })
	if i < 0 {
		return subtree.ErrType
	}
	h.Mount(subtree.Mount{
		Device: h.Table[i].Device, Root: path.Join(h.Table[i].Root, b.Subtree, b.Inside), Point: b.Target,
		Options: []string{"rw", "nosuid", "nodev"}, FSType: b.FSType, Source: h.Table[i].Source,
	})
	return nil
}

// Tmpfs puts an empty tmpfs on its target, and what it keeps on that.
func (h *Host) Tmpfs(_ context.Context, t subtree.Tmpfs) error {
	if err := h.change("tmpfs " + t.Target); err != nil {
		return err
	}
	if slices.Contains(h.Missing, t.Target) {
		return fmt.Errorf("%s: %w", t.Target, subtree.ErrTarget)
	}
	mode := "rw"
	if t.ReadOnly {
		mode = "ro"
	}
	options := []string{mode, "nosuid", "nodev"}
	h.Mount(subtree.Mount{
		Device: fmt.Sprintf("0:%d", 100+h.next), Root: "/", Point: t.Target, Options: options, FSType: "tmpfs", Source: t.Label,
	})
	if t.Keep != "" {
		h.Mount(subtree.Mount{
			Device: "8:1", Root: path.Join(t.Target, t.Keep), Point: path.Join(t.Target, t.Keep),
			Options: []string{"rw", "nosuid", "nodev"}, FSType: "ext4", Source: "/dev/sda1",
		})
	}
	return nil
}

// Unmount takes the topmost mount off a path. It is busy while something stands on it.
func (h *Host) Unmount(_ context.Context, point string) error {
	if err := h.change("unmount " + point); err != nil {
		return err
	}
	id := h.parent(point)
	i := slices.IndexFunc(h.Table, func(m subtree.Mount) bool { return m.ID == id && m.Point == point })
	if i < 0 {
		return fmt.Errorf("unmount %s: not mounted", point)
	}
	child := slices.ContainsFunc(h.Table, func(m subtree.Mount) bool { return m.Parent == id })
	if child || len(h.Busy[point]) > 0 {
		return fmt.Errorf("unmount %s: %w", point, subtree.ErrBusy)
	}
	h.Table = slices.Delete(h.Table, i, i+1)
	return nil
}

// Private cuts every mount off from those of other namespaces.
func (h *Host) Private(context.Context) error {
	if err := h.change("private"); err != nil {
		return err
	}
	for i := range h.Table {
		h.Table[i].Shared, h.Table[i].Follows = false, false
	}
	return nil
}

// Detach takes a mount away with all that is below it.
func (h *Host) Detach(_ context.Context, point string) error {
	if err := h.change("detach " + point); err != nil {
		return err
	}
	h.Table = slices.DeleteFunc(h.Table, func(m subtree.Mount) bool {
		return m.Point == point || strings.HasPrefix(m.Point, point+"/")
	})
	return nil
}

// Mounts gives the table.
func (h *Host) Mounts(context.Context) ([]subtree.Mount, error) { return slices.Clone(h.Table), nil }

// Exists says that every directory is there but the missing ones.
func (h *Host) Exists(_ context.Context, dir string) (bool, error) {
	return !slices.Contains(h.Missing, dir), nil
}

// Sync notes that a mount was synced.
func (h *Host) Sync(_ context.Context, point string) error {
	h.Synced = append(h.Synced, point)
	return h.Fail["sync "+point]
}

// Holders gives who holds a mount.
func (h *Host) Holders(_ context.Context, m subtree.Mount) ([]subtree.Holder, error) {
	return slices.Clone(h.Busy[m.Point]), nil
}

// Elsewhere gives who has the view in a namespace of its own.
func (h *Host) Elsewhere(context.Context, func(subtree.Mount) bool) ([]subtree.Holder, error) {
	return slices.Clone(h.Stray), nil
}

// Kill takes the processes out of every list.
func (h *Host) Kill(_ context.Context, victims []subtree.Holder) error {
	h.Killed = append(h.Killed, victims...)
	dead := func(p subtree.Holder) bool { return slices.Contains(victims, p) }
	for point := range h.Busy {
		h.Busy[point] = slices.DeleteFunc(h.Busy[point], dead)
	}
	h.Stray = slices.DeleteFunc(h.Stray, dead)
	return nil
}

// String is the table, one line per mount.
func (h *Host) String() string {
	var b strings.Builder
	for _, m := range h.Table {
		fmt.Fprintf(&b, "%s %s %s %s %s\n", m.Point, m.FSType, m.Root, m.Source, strings.Join(m.Options, ","))
	}
	return b.String()
}
