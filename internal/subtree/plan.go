// Package subtree plans and makes the view of data that a job has: its tenant's subtree at the
// public path, temporary directories of its own, and no other data of the network.
//
// Backend bind: the site mounts the file system beneath a root-only directory,
// and the view stands in the node's own mount namespace for the time of the job, so that
// slurmstepd's output files, sbcast, ssh and the ranks all see the same. A mount is a view, not
// access control: assurance level L1. What the servers of the file system enforce (L2) is the
// site's work and not seen from here.
//
// The plan is pure; the acts come through interfaces. Down looks at what is mounted, not at what
// was planned, and so works after a kill at any point, and when nothing ran at all. Nothing here
// deletes a file, and no mount is detached lazily: that would hide a writer that goes on.
package subtree

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Kind is what a step puts on its target.
type Kind string

// The kinds of steps. Each begins with a tmpfs of ours on the target; a directory of the
// tenant's then stands on that tmpfs.
const (
	KindCover  Kind = "cover"  // empty and read-only, when the target exists
	KindTemp   Kind = "temp"   // empty, mode 1777, bound in size
	KindHome   Kind = "home"   // a directory of the tenant's, or nothing but the user's own one
	KindPublic Kind = "public" // the tenant's subtree, where nothing may be mounted otherwise
)

// Label begins the source of every tmpfs of ours. What has it, and what stands on it, is taken
// down; no other mount is ever touched.
const Label = "slurm-enclave:"

// Temp is a temporary directory of the job's own.
type Temp struct {
	Path string `json:"path"`
	Size uint64 `json:"size"` // bytes
}

// Config is what a node always does the same.
type Config struct {
	Root    string   // mount point of the file system; its parent is a root-only directory
	FSType  string   // as mountinfo spells it, "lustre"
	Magic   uint32   // f_type of statfs, 0x0BD00BD0
	Public  string   // where the job sees its subtree
	Temps   []Temp   // /tmp, /var/tmp, /dev/shm
	Covers  []string // /dev/infiniband
	Home    string   // where homes are; "" leaves them alone, which a site must want
	Visible []string // mount points of other network file systems that a job may see

	Backend string      // BackendBind when it is empty
	Source  string      // of Lustre: "MGSNID[:MGSNID...]:/FSNAME"; Root is empty then
	Options []string    // of its mounts, beside nosuid and nodev
	Canary  enclave.FID // see SubMount
	Least   string      // the least level of assurance; "" is L1
}

// Request is what differs from job to job.
type Request struct {
	Job      enclave.JobKey
	UID      uint32
	SubUIDs  []enclave.UIDRange // of /etc/subuid
	Subtree  string             // of the tenant, relative to Root
	Owners   []uint32           // who but root and the job's user may own the subtree's root
	HomeTree string             // "" or the tenant's directory for homes, relative to Subtree
	FID      enclave.FID        // of the subtree, as it is registered
	HomeKeep string             // "" or the user's own directory, relative to Config.Home
}

// Step is one mount.
type Step struct {
	Kind    Kind   `json:"kind"`
	Target  string `json:"target"`
	Size    uint64 `json:"size,omitempty"`
	Subtree string `json:"subtree,omitempty"` // the tenant's, relative to Root
	Inside  string `json:"inside,omitempty"`  // a directory of it, relative to Subtree
	Keep    string `json:"keep,omitempty"`    // of the user's own, relative to Target

	FID enclave.FID `json:"fid,omitzero"` // of the subtree, on Lustre
}

// Plan is the view of one job. Its JSON form goes into the journal.
type Plan struct {
	Label   string             `json:"label"`
	Root    string             `json:"root"`
	FSType  string             `json:"fstype"`
	Magic   uint32             `json:"magic"`
	UID     uint32             `json:"uid"` // 0: nobody's processes may be killed
	SubUIDs []enclave.UIDRange `json:"subuids,omitempty"`
	Owners  []uint32           `json:"owners,omitempty"`
	Visible []string           `json:"visible,omitempty"`
	Steps   []Step             `json:"steps"`

	Backend string      `json:"backend,omitempty"`
	Source  string      `json:"source,omitempty"`
	Options []string    `json:"options,omitempty"`
	Canary  enclave.FID `json:"canary,omitzero"`
	Least   string      `json:"least,omitempty"`

	whole *Mount // the file system's own mount as it was before Enter took it away
}

// NewPlan lays out the view of a job. The tenant's subtree comes last: whoever sees it sees the
// rest too.
func NewPlan(c Config, r Request) (Plan, error) {
	if err := canonical(r.Subtree); err != nil {
		return Plan{}, refuse(CodeConfig, enclave.FaultPolicy, "correct the tenant's subtree in tenants.yaml", "subtree %q: %v", r.Subtree, err)
	}
	if r.UID == 0 {
		return Plan{}, refuse(CodeConfig, enclave.FaultRequest, "submit as another user", "no view of data is made for uid 0")
	}
	p := c.Leftovers()
	p.Label, p.UID, p.SubUIDs = Label+r.Job.Directory(), r.UID, r.SubUIDs
	p.Owners = append([]uint32{0, r.UID}, r.Owners...)
	for i := range p.Steps {
		switch s := &p.Steps[i]; {
		case s.Kind == KindPublic:
			s.Subtree = r.Subtree
		case s.Kind == KindHome && r.HomeTree != "":
			s.Subtree, s.Inside = r.Subtree, r.HomeTree
		case s.Kind == KindHome:
			s.Keep = r.HomeKeep
		}
	}
	for _, rel := range []string{r.HomeTree, r.HomeKeep} {
		if err := canonical(rel); rel != "" && err != nil {
			return Plan{}, refuse(CodeConfig, enclave.FaultPolicy, "correct the home directory", "home %q: %v", rel, err)
		}
	}
	if c.Backend == BackendLustre {
		if err := p.lustre(c, r); err != nil {
			return Plan{}, err
		}
	}
	if err := p.check(); err != nil {
		return Plan{}, refuse(CodeConfig, enclave.FaultPolicy, "correct storage in enclave.yaml", "%v", err)
	}
	return p, nil
}

// Leftovers is the plan that only serves to take down: it knows the targets and no job. The
// epilog uses it when there is no journal, and the host unit at boot.
func (c Config) Leftovers() Plan {
	p := Plan{Label: Label, Root: c.Root, FSType: c.FSType, Magic: c.Magic, Visible: c.Visible, Backend: c.Backend, Source: c.Source, Least: c.Least}
	if c.Backend == BackendLustre {
		p.Root, p.FSType, p.Magic = "", LustreType, LustreMagic
	}
	for _, target := range c.Covers {
		p.Steps = append(p.Steps, Step{Kind: KindCover, Target: target})
	}
	for _, t := range c.Temps {
		p.Steps = append(p.Steps, Step{Kind: KindTemp, Target: t.Path, Size: t.Size})
	}
	if c.Home != "" {
		p.Steps = append(p.Steps, Step{Kind: KindHome, Target: c.Home})
	}
	p.Steps = append(p.Steps, Step{Kind: KindPublic, Target: c.Public})
	return p
}

// Inverse lists the targets in the order in which they are taken down.
func (p Plan) Inverse() []Step {
	steps := slices.Clone(p.Steps)
	slices.Reverse(steps)
	return steps
}

// String is one line per step, for people and golden tests.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%-6s %s", s.Kind, s.Target)
		switch {
		case s.Subtree != "":
			fmt.Fprintf(&b, " <- %s%s/%s", p.Source, p.Root, s.tree())
		case s.Keep != "":
			fmt.Fprintf(&b, " keeping %s", s.Keep)
		case s.Size != 0:
			fmt.Fprintf(&b, " %d bytes", s.Size)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// tree is the directory of the file system that a step shows.
func (s Step) tree() string { return path.Join(s.Subtree, s.Inside) }

// Detail is the plan as the journal keeps it.
func (p Plan) Detail() string {
	b, err := json.Marshal(p)
	if err != nil { // no field of a plan can fail to encode
		return ""
	}
	return string(b)
}

// ParseDetail reads what Detail wrote, from a journal that only root could write.
func ParseDetail(s string) (Plan, error) {
	var p Plan
	d := json.NewDecoder(strings.NewReader(s))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return Plan{}, fmt.Errorf("parse subtree plan: %w", err)
	}
	if err := p.check(); err != nil {
		return Plan{}, fmt.Errorf("parse subtree plan: %w", err)
	}
	return p, nil
}

// check refuses targets that would cover each other or the system itself.
func (p Plan) check() error {
	if err := absolute(p.Root); err != nil && p.Backend != BackendLustre {
		return err
	}
	if p.Backend == BackendLustre && (p.Root != "" || !strings.Contains(p.Source, ":/")) {
		return fmt.Errorf("the source of Lustre %q is not MGSNID:/FSNAME", p.Source)
	}
	if p.FSType == "" || p.Magic == 0 {
		return fmt.Errorf("the type and magic number that the file system must have are not given")
	}
	for i, s := range p.Steps {
		if err := absolute(s.Target); err != nil {
			return err
		}
		if p.Root != "" && (within(p.Root, s.Target) || within(s.Target, path.Dir(p.Root))) {
			return fmt.Errorf("%s and the file system's own directory %s lie in each other", s.Target, p.Root)
		}
		for _, o := range p.Steps[:i] {
			if within(s.Target, o.Target) || within(o.Target, s.Target) {
				return fmt.Errorf("%s and %s lie in each other", o.Target, s.Target)
			}
		}
		if s.Kind == KindTemp && s.Size < 1<<20 {
			return fmt.Errorf("%s: less than 1 MiB", s.Target)
		}
	}
	return nil
}

func absolute(p string) error {
	if !strings.HasPrefix(p, "/") || p == "/" || path.Clean(p) != p {
		return fmt.Errorf("path %q is not absolute and canonical", p)
	}
	return nil
}

// canonical refuses what has a second spelling. The kernel's RESOLVE_BENEATH alone is not
// enough: it lets "tenant-a/../tenant-b" through.
func canonical(p string) error {
	switch {
	case p == "":
		return fmt.Errorf("it is empty")
	case strings.HasPrefix(p, "/"):
		return fmt.Errorf("it begins with a slash")
	case strings.ContainsAny(p, "\x00\n"):
		return fmt.Errorf("it holds a NUL or a newline")
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("it holds %q", part)
		}
	}
	return nil
}
