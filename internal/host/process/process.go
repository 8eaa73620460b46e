// Package process sees and ends the processes of users, and reads the few facts about the running
// kernel that the rooms take as values: boot id, boot clock, subordinate user ids.
//
// Processes are told apart by their real user id: a program that a user started stays the user's
// when it is setuid, and slurmstepd, which takes a user's effective id for a while, stays root's.
package process

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Process is one running process.
type Process struct {
	PID   int
	UID   uint32 // the real one
	Name  string // as the kernel has it: chosen by the program, at most 15 bytes
	State byte   // R, S, D, T, t, I, Z
}

// String is the process for a reason or a log; the name is quoted, for a user chose it.
func (p Process) String() string {
	return fmt.Sprintf("pid %d %q uid %d state %c", p.PID, p.Name, p.UID, p.State)
}

const proc = "/proc"

// List lists all processes that live. A process whose first thread has ended lives as long as
// another of its threads does, although the kernel calls it a zombie.
func List() ([]Process, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var list []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid <= 0 {
			continue
		}
		p, err := read(pid)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list processes: %w", err)
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Process) int { return cmp.Compare(a.PID, b.PID) })
	return list, nil
}

var errGone = errors.New("the process is gone")

func read(pid int) (Process, error) {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	f, err := os.Open(filepath.Join(dir, "status"))
	if err != nil {
		return Process{}, gone(err)
	}
	defer func() { _ = f.Close() }()
	p, err := ParseStatus(f)
	if err != nil {
		return Process{}, gone(err)
	}
	p.PID = pid
	if p.State == 'X' || p.State == 'Z' && !threads(dir) {
		return Process{}, errGone
	}
	return p, nil
}

// threads says whether a thread lives whose leader has ended.
func threads(dir string) bool {
	tasks, err := os.ReadDir(filepath.Join(dir, "task"))
	return err == nil && len(tasks) > 1
}

func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return errGone
	}
	return err
}

// ParseStatus reads name, state and real user id from the text of /proc/PID/status.
func ParseStatus(r io.Reader) (Process, error) {
	var p Process
	var haveUID bool
	s := bufio.NewScanner(r)
	for s.Scan() {
		key, value, _ := strings.Cut(s.Text(), ":")
		value = strings.TrimSpace(value)
		switch {
		case key == "Name" && p.Name == "":
			p.Name = value
		case key == "State" && value != "" && p.State == 0:
			p.State = value[0]
		case key == "Uid" && !haveUID:
			own, _, _ := strings.Cut(value, "\t")
			uid, err := strconv.ParseUint(own, 10, 32)
			if err != nil {
				return Process{}, fmt.Errorf("parse process status: uid %q", value)
			}
			p.UID, haveUID = uint32(uid), true
		}
	}
	if err := s.Err(); err != nil {
		return Process{}, fmt.Errorf("parse process status: %w", err)
	}
	if !haveUID || p.State == 0 {
		return Process{}, errors.New("parse process status: no uid or state")
	}
	return p, nil
}

// Users keeps the processes whose id lies in one of the ranges.
func Users(list []Process, ranges []enclave.UIDRange) []Process {
	return slices.DeleteFunc(slices.Clone(list), func(p Process) bool { return !in(p.UID, ranges) })
}

// Foreign keeps the processes of people who have no business on a node between jobs: ids from
// least on that are in none of the allowed ranges.
func Foreign(list []Process, least uint32, allow []enclave.UIDRange) []Process {
	return slices.DeleteFunc(slices.Clone(list), func(p Process) bool { return p.UID < least || in(p.UID, allow) })
}

// Daemons are ids above the least user's that belong to no person: systemd's dynamic users and
// nobody. Nobody can become one of them without root.
func Daemons() []enclave.UIDRange {
	return []enclave.UIDRange{{Start: 61184, Count: 65519 - 61184 + 1}, {Start: 65534, Count: 1}}
}

func in(uid uint32, ranges []enclave.UIDRange) bool {
	return slices.ContainsFunc(ranges, func(r enclave.UIDRange) bool { return uid >= r.Start && uid-r.Start < r.Count })
}

// Title is the command line of a process as it shows itself, on one line; "" when it is gone or
// has none. Its program chose it.
func Title(pid int) string {
	f, err := os.Open(filepath.Join(proc, strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, string(b)))
}
