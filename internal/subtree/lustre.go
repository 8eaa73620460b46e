package subtree

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// The backends. With Bind the site mounts the whole file system beneath a root-only directory and
// the view is a part of that mount. With Lustre there is no whole mount on the node: each job has a
// sub-directory mount of its own, a superblock in which nothing else is.
const (
	BackendBind   = "bind"
	BackendLustre = "lustre"
)

// The levels of assurance. L1 is a view of the client: a mount is not access control. L2 is held by
// the file system's servers: not even the node's root opened the canary through the view.
const (
	L1 = "L1"
	L2 = "L2"
)

// LustreType and LustreMagic are what the kernel says of a mount of Lustre's client. FUSE can
// choose the type "fuse.lustre" and no magic number but its own; a server's target has 0x0BD00BD1.
const (
	LustreType  = "lustre"
	LustreMagic = 0x0BD00BD0
)

// SubMount is a sub-directory mount of Lustre: mount -t lustre SOURCE/SUBTREE TARGET.
type SubMount struct {
	Source  string // "MGSNID[:MGSNID...]:/FSNAME"
	Subtree string
	Options []string
	Target  string
	UID     uint32 // whom the servers let open the subtree, where they squash root

	// What proves it: the root of the mount has this FID, or the FID of the directory Same, which lies
	// in a mount that was proved before.
	FID  enclave.FID
	Same string

	Canary enclave.FID // a file outside of every subtree; the zero FID when the site has none
}

// Client mounts sub-directories and proves mounts. Prove says which level of assurance the mount
// has; its error wraps ErrType, ErrFID or ErrOpen when it is not what was asked for.
type Client interface {
	SubMount(ctx context.Context, m SubMount) error
	Prove(ctx context.Context, m SubMount) (level string, err error)
}

// Errors of a Client.
var (
	ErrHelper = errors.New("the mount helper failed")
	ErrFID    = errors.New("not the directory that is registered")
	ErrOpen   = errors.New("a way out of the subtree is open")
)

// Codes of this backend's refusals.
const (
	CodeUnregistered enclave.Code = "E318"
	CodeFID          enclave.Code = "E319"
	CodeHelper       enclave.Code = "E320"
	CodeOpen         enclave.Code = "E321"
	CodeAssurance    enclave.Code = "E322"
)

// lustre completes a plan of this backend: every step with a subtree gets its own mount, and the
// tenant's homes come after the subtree, in which their FID is looked up.
func (p *Plan) lustre(c Config, r Request) error {
	if r.FID == (enclave.FID{}) {
		return refuse(CodeUnregistered, enclave.FaultRequest, "ask an admin to run enclave storage register",
			"the tenant's directory %s is not registered", r.Subtree)
	}
	if r.FID == enclave.RootFID() {
		return refuse(CodeFID, enclave.FaultRequest, "ask an admin to run enclave storage register",
			"the tenant's directory %s is registered as the whole file system", r.Subtree)
	}
	p.Source, p.Options, p.Canary = c.Source, c.Options, c.Canary
	for i := range p.Steps {
		if s := &p.Steps[i]; s.Kind == KindPublic {
			s.FID = r.FID
		}
	}
	slices.SortStableFunc(p.Steps, func(a, b Step) int {
		after := func(s Step) int {
			if s.Kind == KindHome && s.Subtree != "" {
				return 1
			}
			return 0
		}
		return after(a) - after(b)
	})
	return nil
}

// subMount is the mount of one step.
func (p Plan) subMount(s Step) SubMount {
	m := SubMount{
		Source: p.Source, Subtree: s.tree(), Options: p.Options, Target: s.Target, UID: p.UID, FID: s.FID, Canary: p.Canary,
	}
	if s.Inside != "" {
		public := slices.IndexFunc(p.Steps, func(o Step) bool { return o.Kind == KindPublic })
		m.Same = path.Join(p.Steps[public].Target, s.Inside)
	}
	return m
}

// fitsLustre holds a line of mountinfo against the mount that is due. The FID is Prove's to look at.
func (s Step) fitsLustre(p Plan, m Mount) string {
	switch {
	case m.Point != s.Target:
		return m.String() + " is not the subtree"
	case m.FSType != LustreType:
		return m.String() + " is not of type lustre"
	case m.Root != "/":
		return fmt.Sprintf("directory %s of a mount where a mount of its own is due", m.Root)
	case m.Source != p.Source+"/"+s.tree():
		return fmt.Sprintf("source %q where %q is due", m.Source, p.Source+"/"+s.tree())
	}
	return ""
}

// Assurance proves all mounts of the view and gives the lowest level among them. A view that is not
// Lustre's own is L1.
func (r Room) Assurance(ctx context.Context, p Plan) (string, error) {
	if p.Backend != BackendLustre {
		return L1, nil
	}
	level := L2
	for _, s := range p.Steps {
		if s.Subtree == "" {
			continue
		}
		one, err := r.Client.Prove(ctx, p.subMount(s))
		if err != nil {
			return "", lustreRefusal(err, s.Target)
		}
		level = min(level, one)
	}
	if level < p.Least {
		return "", refuse(CodeAssurance, enclave.FaultPolicy, "have the servers hold the tenant's nodemap (enclave storage nodemap), or lower storage.assurance",
			"the view has assurance %s, and storage.assurance wants %s", level, p.Least)
	}
	return level, nil
}

func lustreRefusal(err error, target string) *enclave.Refusal {
	text := strings.TrimSpace(err.Error())
	switch {
	case errors.Is(err, ErrHelper):
		return refuse(CodeHelper, enclave.FaultNode, "try it by hand: mount -t lustre", "%s", text)
	case errors.Is(err, ErrFID):
		return refuse(CodeFID, enclave.FaultRequest, "ask an admin to run enclave storage register", "%s", text)
	case errors.Is(err, ErrOpen):
		return refuse(CodeOpen, enclave.FaultNode, "correct storage.lustre.options", "%s", text)
	}
	return refusalOf(err, target)
}
