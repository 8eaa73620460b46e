package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// Down ends the lab and leaves nothing of it on the machine. A lab that is down is fine.
func Down(ctx context.Context) error {
	s, err := Load()
	if err == nil {
		err = end(ctx, s)
	}
	if err != nil && !errors.Is(err, ErrDown) {
		return err
	}
	return sweep(ctx)
}

// end kills the first process of the lab's PID namespace: the kernel kills all others before
// that one is gone, and then their namespaces, mounts and links go.
func end(ctx context.Context, s State) error {
	p, err := os.FindProcess(s.Supervisor) // holds a pidfd: from here on the PID can't be another's
	if err != nil {
		return err
	}
	defer func() { _ = p.Release() }()
	if !s.alive() {
		return nil
	}
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end the lab's supervisor: %w", err)
	}
	if err := wait(ctx, "the lab's processes to end", func() (bool, error) { return !s.alive(), nil }); err != nil || s.Loop == "" {
		return err
	}
	return wait(ctx, "the lab's loop device to be free", func() (bool, error) {
		_, err := os.Stat("/sys/block/" + s.Loop + "/loop")
		return errors.Is(err, os.ErrNotExist), nil
	})
}

// sweep removes the files and cgroups that a lab leaves on the machine when it ends.
func sweep(ctx context.Context) error {
	if err := sweepCgroups(ctx); err != nil {
		return err
	}
	// One by one and never recursively: root was once a mount point.
	for _, name := range []string{"lab.json", "lab.json.new", "lab.log", "control.sock", "root", ""} {
		if err := os.Remove(filepath.Join(Directory(), name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func sweepCgroups(ctx context.Context) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	kind, where, err := machine.FindCgroups(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if kind != machine.CgroupFreezer {
		return nil
	}
	var last error
	err = wait(ctx, "the lab's cgroups to empty", func() (bool, error) {
		last = machine.RemoveCgroups(filepath.Join(where, called()))
		return last == nil, nil
	})
	return errors.Join(err, last)
}

// wait asks done every 20 ms for at most 20 s.
func wait(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
	}
}
