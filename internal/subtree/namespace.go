package subtree

import (
	"context"
	"fmt"
	"path"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Space is the mount namespace in which this process is, where that is a job's own. Private cuts it
// off: no mount of another namespace comes in, none goes out. Detach takes a mount away with all that
// is below it, at once; it is for a namespace in which nobody works yet.
type Space interface {
	Private(ctx context.Context) error
	Detach(ctx context.Context, point string) error
}

// Codes of isolation namespace.
const (
	CodeMake    enclave.Code = "E326"
	CodeWhole   enclave.Code = "E327"
	CodeVisible enclave.Code = "E328"
	CodePinned  enclave.Code = "E329"
)

// Ready looks in the node's own namespace whether a view can be made in a job's: the file system is
// where it belongs, no data can be seen around it, and no view stands here.
func (r Room) Ready(ctx context.Context, p Plan) error {
	if err := r.ground(ctx, p); err != nil {
		return err
	}
	return r.Outside(ctx, p)
}

// Outside demands that nothing of a view is seen in this namespace, which is the node's own.
func (r Room) Outside(ctx context.Context, p Plan) error {
	mounts, err := r.Observer.Mounts(ctx)
	if err != nil {
		return fmt.Errorf("subtree: %w", err)
	}
	root := at(mounts, p.Root)
	for _, m := range mounts {
		public := m.Point == p.public() && len(root) > 0 && m.Device == root[0].Device
		if m.labelled() || public {
			return refuse(CodeVisible, enclave.FaultNode, "unmount it: enclave host close",
				"%s is in the node's own namespace, where no view may be seen", m)
		}
	}
	return nil
}

func (p Plan) public() string {
	for _, s := range p.Steps {
		if s.Kind == KindPublic {
			return s.Target
		}
	}
	return ""
}

// Enter makes the view in a job's own namespace, in which this process is and nobody works yet, and
// takes the whole file system out of it: a cover above it would leave it one unmount away. It ends by
// reading back, and says which level of assurance the view has. On an error the namespace must not be
// used.
func (r Room) Enter(ctx context.Context, p Plan) (string, error) {
	if p.Backend == BackendLustre {
		return "", refuse(CodeConfig, enclave.FaultPolicy, "correct storage in enclave.yaml", "isolation namespace is for backend bind")
	}
	if err := r.Space.Private(ctx); err != nil {
		return "", refusalOf(err, "/")
	}
	if err := r.Up(ctx, p); err != nil {
		return "", err
	}
	mounts, err := r.Observer.Mounts(ctx)
	if err != nil {
		return "", fmt.Errorf("subtree: %w", err)
	}
	whole := at(mounts, p.Root)
	if len(whole) != 1 {
		return "", refuse(CodeType, enclave.FaultNode, "mount the file system there once", "%s should be one mount and is %v", p.Root, whole)
	}
	p.whole = &whole[0]
	if err = r.Space.Detach(ctx, p.Root); err != nil {
		return "", refusalOf(err, p.Root)
	}
	hidden := path.Dir(p.Root)
	if err = r.Mounter.Tmpfs(ctx, Tmpfs{Target: hidden, Label: p.Label, ReadOnly: true}); err != nil {
		return "", refusalOf(err, hidden)
	}
	if err = r.inside(ctx, p); err != nil {
		return "", err
	}
	return r.Assurance(ctx, p)
}

// inside reads the view of a job's namespace back: each target as planned, and of the file system, and
// of the network, nothing else.
func (r Room) inside(ctx context.Context, p Plan) error {
	mounts, err := r.Observer.Mounts(ctx)
	if err != nil {
		return fmt.Errorf("subtree: %w", err)
	}
	for _, s := range p.Steps {
		absent, absentErr := r.absent(ctx, s)
		if absentErr != nil {
			return absentErr
		}
		if wrong := s.fits(p, mounts); !absent && wrong != "" {
			return refuse(CodeReadBack, enclave.FaultNode, "see the kernel's log", "read back %s: %s", s.Target, wrong)
		}
	}
	hidden := path.Dir(p.Root)
	cover := at(mounts, hidden)
	if len(cover) != 1 || cover[0].Source != p.Label || !cover[0].Has("ro") {
		return refuse(CodeWhole, enclave.FaultNode, "see the kernel's log", "%s should be one empty cover and is %v", hidden, cover)
	}
	for _, m := range mounts {
		switch {
		case m.Shared || m.Follows:
			return refuse(CodeWhole, enclave.FaultNode, "see the kernel's log", "%s takes part in the mounts of other namespaces", m)
		case m.ID == cover[0].ID:
		case within(m.Point, hidden):
			return refuse(CodeWhole, enclave.FaultNode, "see the kernel's log", "%s is still in the job's namespace", m)
		}
	}
	return p.around(mounts, *p.whole)
}

// Flush makes what a job wrote durable once its namespace is gone, and gives the error that the kernel
// kept for it. The file system is the same one that the node has mounted.
func (r Room) Flush(ctx context.Context, p Plan) error {
	mounts, err := r.Observer.Mounts(ctx)
	if err != nil {
		return fmt.Errorf("subtree: %w", err)
	}
	if len(at(mounts, p.Root)) == 0 {
		return nil // not mounted any more, or never
	}
	if refusal := r.sync(ctx, p.Root); refusal != nil {
		return refusal
	}
	return nil
}
