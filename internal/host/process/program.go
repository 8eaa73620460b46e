package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const environLimit = 1 << 20

// Environment is what a process was started with, as NAME=VALUE; nil when it is gone or shows nothing.
// Its program may have written over it.
func Environment(pid int) []string {
	f, err := os.Open(filepath.Join(proc, strconv.Itoa(pid), "environ"))
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, environLimit))
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
}

// Began is when a process began, in clock ticks since the machine booted (the 22nd field of /proc/PID/stat,
// proc_pid_stat(5)): with the PID it names a process for as long as the machine runs. One that has ended is
// os.ErrProcessDone, waited for or not.
func Began(pid int) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil && errors.Is(gone(err), errGone) {
		err = os.ErrProcessDone
	}
	if err != nil {
		return 0, fmt.Errorf("read begin of pid %d: %w", pid, err)
	}
	state, began, err := ParseStat(string(b))
	if err == nil && state == 'Z' {
		err = os.ErrProcessDone
	}
	if err != nil {
		return 0, fmt.Errorf("read begin of pid %d: %w", pid, err)
	}
	return began, nil
}

// ParseStat reads state and begin of a process from the text of /proc/PID/stat. The program's name before
// them may hold anything, brackets and blanks as well: they come after its last bracket.
func ParseStat(text string) (state byte, began uint64, err error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 || len(fields[0]) != 1 {
		return 0, 0, fmt.Errorf("parse process stat: %d fields behind the name, no state and begin", len(fields))
	}
	began, err = strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("parse process stat: begin: %w", err)
	}
	return fields[0][0], began, nil
}

// KillPrograms ends the processes that match, and returns when none is left or ctx ends. Unlike Kill it is for
// daemons of one's own. A process is looked at again behind its descriptor, so that none that was given
// the number meanwhile is met. One that is only beginning is not known by its name yet, and is missed.
func KillPrograms(ctx context.Context, match func(Process) bool) error {
	for {
		list, err := List()
		if err != nil {
			return fmt.Errorf("kill programs: %w", err)
		}
		left := 0
		for _, p := range list {
			if !match(p) {
				continue
			}
			left++
			if err := kill(p, match); err != nil {
				return fmt.Errorf("kill programs: %w", err)
			}
		}
		if left == 0 {
			return nil
		}
		t := time.NewTimer(killPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("kill programs: %d left: %w", left, ctx.Err())
		}
	}
}
