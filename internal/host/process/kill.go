package process

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

const (
	killPause   = 20 * time.Millisecond
	sweepAfter  = 3 // rounds of killing one by one before the kernel is asked to kill all at once
	killProgram = "/bin/kill"
)

// Kill ends all processes of the ranges and looks until none is left or ctx ends; what is left
// then is in the error. It refuses ranges that hold an id below least: no mistake of a caller may
// end a daemon.
func Kill(ctx context.Context, ranges []enclave.UIDRange, least uint32) error {
	for _, r := range ranges {
		if err := r.Check(); err != nil {
			return fmt.Errorf("kill processes: %w", err)
		}
		if least == 0 || r.Start < least {
			return fmt.Errorf("kill processes: uid range %s is below the least user id %d", r, least)
		}
	}
	return until(ctx, func() ([]Process, error) {
		list, err := List()
		return Users(list, ranges), err
	})
}

// KillThese ends the given processes, if they still are who they were.
func KillThese(ctx context.Context, victims []Process) error {
	return until(ctx, func() ([]Process, error) {
		var left []Process
		for _, v := range victims {
			p, err := read(v.PID)
			if errors.Is(err, errGone) || err == nil && p.UID != v.UID {
				continue
			}
			if err != nil {
				return nil, err
			}
			left = append(left, p)
		}
		victims = left
		return left, nil
	})
}

// until kills what find finds, again and again. A chain of processes in which each forks and ends
// is never caught one by one; the sweep catches it, for the kernel lets no fork slip through it.
func until(ctx context.Context, find func() ([]Process, error)) error {
	for round := 0; ; round++ {
		left, err := find()
		if err != nil {
			return fmt.Errorf("kill processes: %w", err)
		}
		if len(left) == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("kill processes: %s left: %w", describe(left), err)
		}
		for _, p := range left {
			if err := kill(p); err != nil {
				return fmt.Errorf("kill processes: %w", err)
			}
		}
		if round >= sweepAfter {
			if err := sweep(ctx, left); err != nil && ctx.Err() == nil {
				return fmt.Errorf("kill processes: %w", err)
			}
		}
		select {
		case <-time.After(killPause):
		case <-ctx.Done():
		}
	}
}

// kill signals one process through a descriptor, after having looked again whose it is: the
// number may have been given to another process since it was listed.
func kill(p Process) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", p, err)
	}
	defer func() { _ = unix.Close(fd) }()
	now, err := read(p.PID)
	if errors.Is(err, errGone) || err == nil && now.UID != p.UID {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", p, err)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %s: %w", p, err)
	}
	return nil
}

// sweep signals all processes of each user at once. It runs as that user, so the kernel itself
// keeps it from anybody else's processes.
func sweep(ctx context.Context, left []Process) error {
	swept := map[uint32]bool{}
	for _, p := range left {
		if p.UID == 0 || swept[p.UID] {
			continue
		}
		swept[p.UID] = true
		cmd := exec.CommandContext(ctx, killProgram, "-KILL", "--", "-1")
		cmd.Dir = "/"
		cmd.Env = []string{}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Setsid: true, Credential: &syscall.Credential{Uid: p.UID, Gid: p.UID, Groups: []uint32{}},
		}
		// The exit status says nothing: the user's processes may kill the sweep, or be gone.
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			return fmt.Errorf("sweep uid %d: %w", p.UID, err)
		}
	}
	return nil
}

func describe(left []Process) string {
	const most = 5
	var s []string
	for _, p := range left[:min(len(left), most)] {
		s = append(s, p.String())
	}
	if len(left) > most {
		s = append(s, fmt.Sprintf("and %d more", len(left)-most))
	}
	return strings.Join(s, ", ")
}
