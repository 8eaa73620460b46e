package subtree

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Room makes and removes views on one node.
type Room struct {
	Mounter  Mounter
	Observer Observer
	Holders  Holders
	Client   Client        // of backend lustre
	Space    Space         // of isolation namespace
	Pause    time.Duration // between tries to unmount; 0 is 200 ms
}

// Up makes the view, or completes it: what stands as planned stays, what stands otherwise from
// an earlier start is taken down first. It ends by reading back; on an error the caller takes
// the view down.
func (r Room) Up(ctx context.Context, p Plan) error {
	if err := r.ground(ctx, p); err != nil {
		return err
	}
	for _, s := range p.Steps {
		if err := r.step(ctx, p, s); err != nil {
			return err
		}
	}
	return r.Check(ctx, p)
}

// ground refuses a node on which data could be seen around the view.
func (r Room) ground(ctx context.Context, p Plan) error {
	mounts, err := r.Observer.Mounts(ctx)
	if err != nil {
		return fmt.Errorf("subtree: %w", err)
	}
	if p.Backend == BackendLustre {
		return p.around(mounts, Mount{Device: "none"})
	}
	stack := at(mounts, p.Root)
	if len(stack) != 1 || stack[0].FSType != p.FSType {
		return refuse(CodeType, enclave.FaultNode, "mount the file system there once",
			"%s should be one mount of type %s and is %v", p.Root, p.FSType, stack)
	}
	return p.around(mounts, stack[0])
}

// around looks for ways to data that do not go through the view.
func (p Plan) around(mounts []Mount, root Mount) error {
	hidden := path.Dir(p.Root)
	for _, m := range mounts {
		if p.Root != "" && within(m.Point, hidden) || p.covers(m) || p.ours(mounts, m) {
			continue
		}
		if m.Device == root.Device {
			return refuse(CodeSecond, enclave.FaultNode, "unmount "+m.Point,
				"%s stands outside %s: whoever opens it sees all tenants", m, hidden)
		}
		if m.network() && !slices.Contains(p.Visible, m.Point) {
			return refuse(CodeUnlisted, enclave.FaultNode, "unmount it, or add it to storage.visible",
				"%s is a network mount that jobs may not see", m)
		}
	}
	return nil
}

// covers says whether a mount lies under what the view puts over it. The public path covers
// nothing: between jobs the file system would be open there.
func (p Plan) covers(m Mount) bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Kind != KindPublic && within(m.Point, s.Target) })
}

// ours says whether a mount is part of a view, of this job or of another.
func (p Plan) ours(mounts []Mount, m Mount) bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool {
		return slices.ContainsFunc(s.stack(mounts), func(o Mount) bool { return o.ID == m.ID })
	})
}

// stack lists what is ours on a target: the lowest tmpfs with our label, and all that stands on
// it, the lowest first.
func (s Step) stack(mounts []Mount) []Mount {
	for _, m := range at(mounts, s.Target) {
		if m.labelled() {
			return append([]Mount{m}, below(mounts, m)...)
		}
	}
	return nil
}

func (m Mount) labelled() bool { return m.FSType == "tmpfs" && strings.HasPrefix(m.Source, Label) }

// fits says what is wrong with what stands on a target, or nothing when it is as planned.
func (s Step) fits(p Plan, mounts []Mount) string {
	stack, ours := at(mounts, s.Target), s.stack(mounts)
	due := 1
	if s.Subtree != "" || s.Keep != "" {
		due = 2
	}
	switch {
	case s.Kind == KindPublic && len(stack) > 0 && !stack[0].labelled():
		return stack[0].String() + " is mounted there"
	case len(ours) != due:
		return fmt.Sprintf("%d mounts where %d are due", len(ours), due)
	case ours[0].Source != p.Label:
		return "mounts of " + ours[0].Source
	case s.Kind != KindTemp && !ours[0].Has("ro"):
		return "not read-only"
	}
	for _, m := range ours {
		if !m.Has("nosuid") || !m.Has("nodev") {
			return "not nosuid,nodev"
		}
	}
	if s.Keep != "" && ours[1].Point != path.Join(s.Target, s.Keep) {
		return ours[1].String() + " is not the user's own directory"
	}
	if s.Subtree != "" && p.Backend == BackendLustre {
		return s.fitsLustre(p, ours[1])
	}
	if s.Subtree != "" {
		return s.fitsSubtree(p, mounts, ours[1])
	}
	return ""
}

// fitsSubtree holds the mount against the file system and the directory that were meant: what a
// symlink or a rename would have exchanged shows in the root field.
func (s Step) fitsSubtree(p Plan, mounts []Mount, m Mount) string {
	root := at(mounts, p.Root)
	if p.whole != nil {
		root = []Mount{*p.whole}
	}
	switch {
	case len(root) != 1:
		return "the file system's own mount is gone"
	case m.Point != s.Target:
		return m.String() + " is not the subtree"
	case m.Device != root[0].Device:
		return m.String() + " is of another file system"
	case m.Root != path.Join(root[0].Root, s.tree()):
		return fmt.Sprintf("directory %s where %s is due", m.Root, path.Join(root[0].Root, s.tree()))
	}
	return ""
}

// step puts its mounts on one target.
func (r Room) step(ctx context.Context, p Plan, s Step) error {
	mounts, err := r.Observer.Mounts(ctx)
	if err != nil {
		return fmt.Errorf("subtree: %w", err)
	}
	absent, err := r.absent(ctx, s)
	if absent || err != nil {
		return err
	}
	if s.fits(p, mounts) == "" {
		return nil
	}
	if err = r.clear(ctx, p, s); err != nil {
		return err
	}
	if stack := at(mounts, s.Target); s.Kind == KindPublic && len(stack) > 0 && !stack[0].labelled() {
		return refuse(CodeTarget, enclave.FaultNode, "unmount it", "%s where the subtree is due", stack[0])
	}
	err = r.Mounter.Tmpfs(ctx, Tmpfs{
		Target: s.Target, Label: p.Label, Size: s.Size, ReadOnly: s.Kind != KindTemp, Keep: s.Keep, Owner: p.UID,
	})
	if err == nil && s.Subtree != "" && p.Backend == BackendLustre {
		if err = r.Client.SubMount(ctx, p.subMount(s)); err != nil {
			return lustreRefusal(err, s.Target)
		}
		_, err = r.Client.Prove(ctx, p.subMount(s))
		if err != nil {
			return lustreRefusal(err, s.Target)
		}
		return nil
	}
	if err == nil && s.Subtree != "" {
		err = r.Mounter.Bind(ctx, Bind{
			Root: p.Root, FSType: p.FSType, Magic: p.Magic, Subtree: s.Subtree, Inside: s.Inside,
			Owners: p.Owners, Target: s.Target,
		})
	}
	if err != nil {
		return refusalOf(err, s.Target)
	}
	return nil
}

// absent says whether there is nothing to cover.
func (r Room) absent(ctx context.Context, s Step) (bool, error) {
	if s.Kind != KindCover {
		return false, nil
	}
	there, err := r.Observer.Exists(ctx, s.Target)
	if err != nil {
		return false, refusalOf(err, s.Target)
	}
	return !there, nil
}

// Check reads the view back from the kernel: each target holds what was planned and nothing
// else, and there is no other way to data.
func (r Room) Check(ctx context.Context, p Plan) error {
	mounts, err := r.Observer.Mounts(ctx)
	if err != nil {
		return fmt.Errorf("subtree: %w", err)
	}
	for _, s := range p.Steps {
		absent, absentErr := r.absent(ctx, s)
		if absentErr != nil {
			return absentErr
		}
		if absent {
			continue
		}
		if wrong := s.fits(p, mounts); wrong != "" {
			return refuse(CodeReadBack, enclave.FaultNode, "see the kernel's log", "read back %s: %s", s.Target, wrong)
		}
	}
	if err = r.ground(ctx, p); err != nil {
		return err
	}
	_, err = r.Assurance(ctx, p)
	return err
}
