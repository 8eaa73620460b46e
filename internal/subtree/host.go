package subtree

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Bind asks for a directory of the file system at a target. The directory is found by descriptor
// from the file system's root: beneath it, through no symlink, no magic link and no mount. The way
// to the tenant's subtree must be root's alone, for who may write the way may choose the
// destination; the subtree and what is inside it must be of one of the Owners.
type Bind struct {
	Root    string
	FSType  string
	Magic   uint32
	Subtree string
	Inside  string // "" or a directory of the subtree
	Owners  []uint32
	Target  string
}

// Tmpfs asks for a new tmpfs at a target.
type Tmpfs struct {
	Target   string
	Label    string // its source in mountinfo
	Size     uint64 // bytes; 0 for one that holds nothing
	ReadOnly bool
	Keep     string // a directory beneath Target that stays to be seen, at the same path
	Owner    uint32 // who must own Keep
}

// Mounter changes the mounts of this namespace. Unmount takes the topmost mount off a path; it
// never follows a symlink, never detaches lazily and never forces.
type Mounter interface {
	Bind(ctx context.Context, b Bind) error
	Tmpfs(ctx context.Context, t Tmpfs) error
	Unmount(ctx context.Context, point string) error
}

// Observer looks at mounts. Sync makes the data of a mount durable and gives the error that the
// kernel kept for it. Exists says whether a directory is there.
type Observer interface {
	Mounts(ctx context.Context) ([]Mount, error)
	Exists(ctx context.Context, dir string) (bool, error)
	Sync(ctx context.Context, point string) error
}

// Holder is a process that keeps a mount busy.
type Holder struct {
	PID  int
	UID  uint32
	Name string
}

func (h Holder) String() string { return fmt.Sprintf("pid %d %s uid %d", h.PID, h.Name, h.UID) }

// Holders finds who keeps a mount of this namespace busy, and who has a matching mount in a
// mount namespace of its own. Kill ends exactly these processes.
type Holders interface {
	Holders(ctx context.Context, m Mount) ([]Holder, error)
	Elsewhere(ctx context.Context, match func(Mount) bool) ([]Holder, error)
	Kill(ctx context.Context, h []Holder) error
}

// Errors by which a host says why, so that the room knows whose fault it is.
var (
	ErrBusy    = errors.New("busy")
	ErrExposed = errors.New("the directory of the file system is not root's alone")
	ErrType    = errors.New("not the file system that is expected")
	ErrTenant  = errors.New("no such directory, or a symlink or mount on the way to it")
	ErrOwner   = errors.New("not owned as it must be")
	ErrTarget  = errors.New("no such directory to mount on")
)

// Codes of this room's refusals.
const (
	CodeConfig   enclave.Code = "E300"
	CodeExposed  enclave.Code = "E301"
	CodeType     enclave.Code = "E302"
	CodeTenant   enclave.Code = "E303"
	CodeTarget   enclave.Code = "E304"
	CodeUnlisted enclave.Code = "E305"
	CodeSecond   enclave.Code = "E306"
	CodeOwner    enclave.Code = "E307"
	CodeReadBack enclave.Code = "E308"
	CodeAct      enclave.Code = "E309"
	CodeSync     enclave.Code = "E310"
	CodeBusy     enclave.Code = "E311"
	CodeStuck    enclave.Code = "E312"
	CodeStray    enclave.Code = "E313"
	CodeAgain    enclave.Code = "E314"
)

func refuse(code enclave.Code, fault enclave.Fault, fix, format string, args ...any) *enclave.Refusal {
	r := enclave.Refuse(code, fault, format, args...)
	r.Check, r.Fix = "subtree", fix
	return r
}

// refusalOf decides whose fault a failed act is. A tenant whose directory is not as it must be
// is not a node's fault, or every node that the job meets would be drained for it.
func refusalOf(err error, target string) *enclave.Refusal {
	text := strings.TrimSpace(err.Error())
	switch {
	case errors.Is(err, ErrExposed):
		return refuse(CodeExposed, enclave.FaultNode, "make the directory that holds the mount root:root 0700", "%s", text)
	case errors.Is(err, ErrType):
		return refuse(CodeType, enclave.FaultNode, "mount the file system", "%s", text)
	case errors.Is(err, ErrTenant):
		return refuse(CodeTenant, enclave.FaultRequest, "ask an admin to create the tenant's directory", "%s", text)
	case errors.Is(err, ErrOwner):
		return refuse(CodeOwner, enclave.FaultRequest, "ask an admin to correct owner and mode of the tenant's directory", "%s", text)
	case errors.Is(err, ErrTarget):
		return refuse(CodeTarget, enclave.FaultNode, "create the empty directory "+target, "%s", text)
	}
	return refuse(CodeAct, enclave.FaultNode, "see the kernel's log", "%s", text)
}
