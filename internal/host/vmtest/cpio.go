package vmtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
)

// archive writes a cpio archive of the "new ASCII" format, which is what the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	w    io.Writer
	n    int64 // bytes written
	ino  int
	made map[string]bool
	err  error
}

const (
	modeDirectory = 0o040000
	modeFile      = 0o100000
	modeLink      = 0o120000

	modified = 1 // second of 1970. slurmctld has a file of second 0 for one that it has read already
)

func newArchive(w io.Writer) *archive { return &archive{w: w, made: map[string]bool{"/": true}} }

func (a *archive) write(b []byte) {
	if a.err != nil {
		return
	}
	var n int
	n, a.err = a.w.Write(b)
	a.n += int64(n)
}

func (a *archive) pad() { a.write(make([]byte, (4-a.n%4)%4)) }

func (a *archive) entry(name string, mode int, content []byte) {
	a.ino++
	name = path.Clean(name)[1:]
	a.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.ino, mode, 0, 0, 1, modified, len(content), 0, 0, 0, 0, len(name)+1, 0))
	a.write(append([]byte(name), 0))
	a.pad()
	a.write(content)
	a.pad()
}

// directory makes a directory and those above it, once.
func (a *archive) directory(name string) {
	name = path.Clean(name)
	if a.made[name] {
		return
	}
	a.directory(path.Dir(name))
	a.made[name] = true
	a.entry(name, modeDirectory|0o755, nil)
}

func (a *archive) file(name string, mode os.FileMode, content []byte) {
	if a.made[path.Clean(name)] {
		return
	}
	a.directory(path.Dir(name))
	a.made[path.Clean(name)] = true
	a.entry(name, modeFile|int(mode.Perm()), content)
}

func (a *archive) link(name, target string) {
	a.directory(path.Dir(name))
	a.entry(name, modeLink|0o777, []byte(target))
}

// copy puts a file of this machine's in.
func (a *archive) copy(name, from string) {
	b, err := os.ReadFile(from)
	if err != nil {
		a.err = errors.Join(a.err, err)
		return
	}
	a.file(name, 0o755, b)
}

func (a *archive) close() error {
	a.ino++
	a.entry("/TRAILER!!!", 0, nil)
	return a.err
}
