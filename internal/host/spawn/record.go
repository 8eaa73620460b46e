package spawn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// identity tells one process from every other of this boot, a later one of its pid included.
type identity struct {
	pid      int
	start    string // field 22 of /proc/PID/stat
	dev, ino uint64 // the program
}

const recordName = "keeper"

func (i identity) String() string {
	return fmt.Sprintf("pid %d start %s exe %d:%d\n", i.pid, i.start, i.dev, i.ino)
}

func parseIdentity(s string) (identity, error) {
	var i identity
	if _, err := fmt.Sscanf(s, "pid %d start %s exe %d:%d\n", &i.pid, &i.start, &i.dev, &i.ino); err != nil {
		return identity{}, fmt.Errorf("parse record of keeper %q: %w", s, err)
	}
	if i.pid <= 1 || i.String() != s {
		return identity{}, fmt.Errorf("parse record of keeper %q: not one", s)
	}
	return i, nil
}

// identify looks at a process. A zombie has no program any more and is an error.
func identify(pid int) (identity, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return identity{}, err
	}
	// The name, in brackets, may hold anything; the fields after the last one are numbers.
	_, after, ok := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(after)
	if !ok || len(fields) < 20 {
		return identity{}, fmt.Errorf("parse /proc/%d/stat", pid)
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/exe", pid), &st); err != nil {
		return identity{}, fmt.Errorf("find program of process %d: %w", pid, err)
	}
	return identity{pid: pid, start: fields[19], dev: st.Dev, ino: st.Ino}, nil
}

// record writes this process's identity into the job's directory. There must be none.
func record(directory string) (identity, error) {
	i, err := identify(os.Getpid())
	if err != nil {
		return identity{}, fmt.Errorf("identify keeper: %w", err)
	}
	path := filepath.Join(directory, recordName)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return identity{}, fmt.Errorf("record keeper: %w", err)
	}
	if _, err := f.WriteString(i.String()); err != nil { // /run is full
		return identity{}, errors.Join(fmt.Errorf("record keeper: %w", err), f.Close(), os.Remove(path))
	}
	return i, f.Close()
}

// recorded reads the identity; false when no keeper was recorded. A keeper whose record was not written to
// its end did nothing else and is dead: what there is of it is removed.
func recorded(directory string) (identity, bool, error) {
	b, err := os.ReadFile(filepath.Join(directory, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return identity{}, false, nil
	}
	if err != nil {
		return identity{}, false, fmt.Errorf("read record of keeper: %w", err)
	}
	if !strings.HasSuffix(string(b), "\n") {
		return identity{}, false, forget(directory)
	}
	i, err := parseIdentity(string(b))
	return i, err == nil, err
}
