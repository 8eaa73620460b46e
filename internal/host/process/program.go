package process

import (
	"context"
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
