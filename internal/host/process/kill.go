package process

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

const (
	killPause   = 20 * time.Millisecond
	stuckPause  = 500 * time.Millisecond
	sweepLimit  = 2 * time.Second
	killProgram = "/bin/kill"
)

// Kill ends all processes of the ranges and looks until none is left or ctx ends; what is left
// then is in the error. It refuses ranges that hold an id below least: no mistake of a caller may
// end a daemon.
//
// To look is not enough: a chain in which each process forks and ends is seldom where the look
// falls, and a list can come out empty while the chain lives. So each single id is swept first,
// which no fork slips through, and which reaches into the user namespaces of that id as well. What hears no
// signal is ended as Stuck does it.
func Kill(ctx context.Context, ranges []enclave.UIDRange, least uint32) error {
	var users []uint32
	for _, r := range ranges {
		if err := r.Check(); err != nil {
			return fmt.Errorf("kill processes: %w", err)
		}
		if least == 0 || r.Start < least {
			return fmt.Errorf("kill processes: uid range %s is below the least user id %d", r, least)
		}
		if r.Count == 1 {
			users = append(users, r.Start)
		}
	}
	find := func() ([]Process, error) {
		list, err := List()
		return Users(list, ranges), err
	}
	stuck, looked := StuckOf(ranges), time.Now()
	var blind error // what is stuck can't be seen: processes may end by themselves all the same
	for {
		whole, err := sweep(ctx, users)
		if err != nil {
			return fmt.Errorf("kill processes: %w", err)
		}
		left, err := round(ctx, find)
		if err != nil {
			return fmt.Errorf("kill processes: %w", errors.Join(err, blind))
		}
		if len(left) == 0 && whole {
			return nil
		}
		if time.Since(looked) > stuckPause {
			_, blind = stuck.Look()
			looked = time.Now()
		}
		for _, p := range left {
			if !slices.Contains(users, p.UID) {
				users = append(users, p.UID)
			}
		}
	}
}

// KillThese ends the given processes, if they still are who they were.
func KillThese(ctx context.Context, victims []Process) error {
	find := func() ([]Process, error) {
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
	}
	for {
		left, err := round(ctx, find)
		if err != nil {
			return fmt.Errorf("kill processes: %w", err)
		}
		if len(left) == 0 {
			return nil
		}
	}
}

// round kills what find finds, and waits a moment when that was something.
func round(ctx context.Context, find func() ([]Process, error)) ([]Process, error) {
	left, err := find()
	if err != nil || len(left) == 0 && ctx.Err() == nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s left: %w", describe(left), err)
	}
	for _, p := range left {
		if err := kill(p, func(now Process) bool { return now.UID == p.UID }); err != nil {
			return nil, err
		}
	}
	t := time.NewTimer(killPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return left, nil
}

// kill signals one process through a descriptor, after having looked again whether it is the one: the
// number may have been given to another process since it was listed.
func kill(p Process, same func(Process) bool) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", p, err)
	}
	defer func() { _ = unix.Close(fd) }()
	now, err := read(p.PID)
	if errors.Is(err, errGone) || err == nil && !same(now) {
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

// sweep signals all processes of each user at once, and says whether nothing disturbed it. It runs
// as that user, so the kernel itself keeps it from anybody else's processes; for the same reason
// the user's processes may stop or kill it first.
func sweep(ctx context.Context, users []uint32) (whole bool, err error) {
	whole = true
	for _, uid := range users {
		limited, cancel := context.WithTimeout(ctx, sweepLimit)
		cmd := exec.CommandContext(limited, killProgram, "-KILL", "--", "-1")
		cmd.Dir = "/"
		cmd.Env = []string{}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Setsid: true, Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{}},
		}
		err := cmd.Run()
		cancel()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
			return false, fmt.Errorf("sweep uid %d: %w", uid, err)
		}
		// Its status tells "nobody was there" as well; only a signal means that it may not have run.
		whole = whole && cmd.ProcessState != nil && cmd.ProcessState.Exited()
	}
	return whole, nil
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
