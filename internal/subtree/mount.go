package subtree

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Mount is one line of /proc/PID/mountinfo.
type Mount struct {
	ID      int
	Parent  int
	Device  string // "MAJOR:MINOR"
	Root    string // what of the file system is here
	Point   string
	Options []string // of this mount
	Shared  bool     // it is in a peer group: mounts below it appear in other namespaces
	Follows bool     // it is the slave of a peer group: mounts of other namespaces appear below it
	FSType  string
	Source  string
	Super   []string // options of the file system
}

// Has says whether the mount has an option, such as nosuid or ro.
func (m Mount) Has(option string) bool { return slices.Contains(m.Options, option) }

// String is the mount for people: what is where.
func (m Mount) String() string {
	return fmt.Sprintf("%s %s of %s on %s", m.FSType, m.Root, m.Source, m.Point)
}

// ParseMounts reads the text of /proc/PID/mountinfo. Users can choose parts of it (a source, a
// directory's name), so a line that is not understood is an error, not a line less.
func ParseMounts(r io.Reader) ([]Mount, error) {
	var mounts []Mount
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		m, err := parseMount(s.Text())
		if err != nil {
			return nil, fmt.Errorf("parse mountinfo line %d: %w", len(mounts)+1, err)
		}
		mounts = append(mounts, m)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("parse mountinfo: %w", err)
	}
	return mounts, nil
}

// parseMount reads "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue".
// Between the options and the dash stand any number of optional fields.
func parseMount(line string) (Mount, error) {
	f := strings.Split(line, " ")
	dash := slices.Index(f, "-")
	if dash < 6 || len(f) < dash+3 {
		return Mount{}, fmt.Errorf("%d fields", len(f))
	}
	id, errID := strconv.Atoi(f[0])
	parent, errParent := strconv.Atoi(f[1])
	if errID != nil || errParent != nil {
		return Mount{}, fmt.Errorf("mount id %q, parent %q", f[0], f[1])
	}
	if f[4] == "" || f[4][0] != '/' {
		return Mount{}, fmt.Errorf("mount point %q", f[4])
	}
	return Mount{
		ID: id, Parent: parent, Device: f[2], Root: unescape(f[3]), Point: unescape(f[4]),
		Options: strings.Split(f[5], ","),
		Shared:  slices.ContainsFunc(f[6:dash], func(s string) bool { return strings.HasPrefix(s, "shared:") }),
		Follows: slices.ContainsFunc(f[6:dash], func(s string) bool { return strings.HasPrefix(s, "master:") }),
		FSType:  unescape(f[dash+1]), Source: unescape(f[dash+2]),
		Super: strings.Split(strings.Join(f[dash+3:], " "), ","),
	}, nil
}

// unescape undoes the kernel's \ooo for space, tab, newline, backslash and hash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// at lists the mounts on a path, the lowest first: each stands on the one before it.
func at(mounts []Mount, point string) []Mount {
	var here []Mount
	for _, m := range mounts {
		if m.Point == point {
			here = append(here, m)
		}
	}
	var stack []Mount
	for len(here) > 0 {
		i := slices.IndexFunc(here, func(m Mount) bool {
			return !slices.ContainsFunc(here, func(o Mount) bool { return o.ID == m.Parent && o.ID != m.ID })
		})
		if i < 0 { // not from a kernel: parents in a circle
			return append(stack, here...)
		}
		stack = append(stack, here[i])
		here = slices.Delete(here, i, i+1)
	}
	return stack
}

// below lists the mounts that stand on m or on what stands on m.
func below(mounts []Mount, m Mount) []Mount {
	var found []Mount
	parents := []int{m.ID}
	for len(parents) > 0 {
		var next []int
		for _, o := range mounts {
			fresh := !slices.ContainsFunc(found, func(f Mount) bool { return f.ID == o.ID })
			if slices.Contains(parents, o.Parent) && o.ID != m.ID && fresh {
				found = append(found, o)
				next = append(next, o.ID)
			}
		}
		parents = next
	}
	return found
}

// outermost finds the mount on m that can be unmounted first: nothing stands on it, and no other
// mount hides its path. Of two mounts on the same parent, the one with the shorter path hides
// the other if either does.
func outermost(mounts []Mount, m Mount) Mount {
	for range mounts {
		var next *Mount
		for i, o := range mounts {
			if o.Parent == m.ID && o.ID != m.ID && (next == nil || len(o.Point) < len(next.Point)) {
				next = &mounts[i]
			}
		}
		if next == nil {
			break
		}
		m = *next
	}
	return m
}

// networks are the types whose data other machines can hold. Anything from FUSE counts too, for
// its type says what its writer likes; autofs counts because it mounts such types on demand.
var networks = []string{
	"9p", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "gpfs", "lustre", "lustre_tgt",
	"mmfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "virtiofs", "wekafs",
}

func (m Mount) network() bool {
	if m.FSType == "autofs" && m.Point == "/proc/sys/fs/binfmt_misc" { // systemd's, holds no data
		return false
	}
	return slices.Contains(networks, m.FSType) || m.FUSE()
}

// kernels are the types that hold no files but the kernel's.
var kernels = []string{
	"binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "fusectl", "mqueue", "nsfs", "proc",
	"pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
}

// Local says whether a mount holds files of this node's own: neither the network's nor the
// kernel's.
func (m Mount) Local() bool { return !m.network() && !slices.Contains(kernels, m.FSType) }

// FUSE says whether a process serves the mount's files.
func (m Mount) FUSE() bool {
	return m.FSType == "fuse" || m.FSType == "fuseblk" || strings.HasPrefix(m.FSType, "fuse.")
}

// within says whether path is dir or lies beneath it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
