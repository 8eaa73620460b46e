// Package spawn starts enclave-keeper and ends it: the one process of ours that outlives the
// prolog. It also holds the part of the keeper itself that talks to the kernel.
package spawn

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
)

// Descriptors of a keeper at its start.
const (
	configFD = 3
	readyFD  = 4
	grantFD  = 5
)

const grantTime = 10 * time.Second

const readyLine = "ready\n"

// Handle is a keeper that was started, as the prolog holds it.
type Handle struct {
	PID   int
	grant *os.File
}

// Grant tells the keeper that GO is stored, once. A prolog that ends without it leaves a keeper
// that renews nothing.
func (h *Handle) Grant(g keeper.Grant) error {
	b, err := json.Marshal(g)
	if err == nil {
		// It is more than a pipe holds where the job is large, and a keeper may have been stopped.
		_ = h.grant.SetWriteDeadline(time.Now().Add(grantTime))
		_, err = h.grant.Write(b)
	}
	if err = errors.Join(err, h.grant.Close()); err != nil {
		return enclave.Refuse(keeper.CodeStart, enclave.FaultNode, "tell keeper %d of GO: %s", h.PID, err)
	}
	return nil
}

// Leave lets go of the keeper without a grant, as the end of the prolog does.
func (h *Handle) Leave() error { return h.grant.Close() }

// Keeper starts the program at path as the keeper of a job and waits until it is ready. A
// keeper of an earlier prolog of the same job is ended first. When it returns an error there
// is no keeper.
//
// The keeper is in a session of its own with /dev/null for its standard streams: slurmd reads
// the prolog's output to its end and kills the prolog's process group. It becomes init's child
// when the prolog ends; a second fork would add nothing to that.
func Keeper(ctx context.Context, path string, cfg keeper.Config) (handle *Handle, err error) {
	if err = StopKeeper(ctx, cfg.Directory); err != nil {
		return nil, err
	}
	config, err := sealed(cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = config.Close() }()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make readiness pipe: %w", err)
	}
	defer func() { _ = r.Close() }()
	granted, grant, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make grant pipe: %w", err), w.Close())
	}
	defer func() {
		if handle == nil {
			_ = grant.Close()
		}
	}()
	if err = keepDescriptors(); err != nil {
		return nil, errors.Join(err, w.Close(), granted.Close())
	}
	cmd := &exec.Cmd{
		Path: path, Args: []string{path, cfg.Key.Directory()}, Dir: "/",
		Env:         []string{},                     // nothing of slurmd's or the job's
		ExtraFiles:  []*os.File{config, w, granted}, // 3, 4 and 5
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = cmd.Start()
	_, _ = w.Close(), granted.Close()
	if err != nil {
		return nil, enclave.Refuse(keeper.CodeStart, enclave.FaultNode, "start %s: %s", path, err)
	}
	pid := cmd.Process.Pid
	if err := awaitReady(ctx, r); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, errors.Join(
			enclave.Refuse(keeper.CodeStart, enclave.FaultNode, "%s did not become ready: %s", path, err),
			StopKeeper(context.WithoutCancel(ctx), cfg.Directory))
	}
	if err := cmd.Process.Release(); err != nil {
		return nil, fmt.Errorf("let go of keeper: %w", err)
	}
	return &Handle{PID: pid, grant: grant}, nil
}

// keepDescriptors marks what slurmd left open in this process: a pipe of slurmd's that the
// keeper held would keep slurmd waiting for its end.
func keepDescriptors() error {
	const first = 3
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	for _, e := range open {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// sealed puts the config into memory that nobody can change any more.
func sealed(cfg keeper.Config) (*os.File, error) {
	b, err := cfg.Encode()
	if err != nil {
		return nil, err
	}
	defer clear(b)
	fd, err := unix.MemfdCreate("enclave-keeper", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:enclave-keeper")
	if _, err := f.WriteAt(b, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("fill memfd: %w", err), f.Close())
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, allSeals); err != nil {
		return nil, errors.Join(fmt.Errorf("seal memfd: %w", err), f.Close())
	}
	return f, nil
}

const allSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// awaitReady reads the keeper's one line: "ready", or "error: why".
func awaitReady(ctx context.Context, r *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Now()) })
	defer stop()
	line, err := bufio.NewReader(r).ReadString('\n')
	switch {
	case line == readyLine:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("it ended without a word: %w", err)
	default:
		return errors.New(strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "error: "))
	}
}

// grace is how long a keeper may take to close its device before it is killed.
const grace = 2 * time.Second

// StopKeeper ends the keeper that is recorded in the job's directory, and nobody else: a
// process that took its pid has another start time or program. It succeeds when there is none.
func StopKeeper(ctx context.Context, directory string) error {
	who, ok, err := recorded(directory)
	if err != nil {
		return err
	}
	if !ok {
		return nil
	}
	if err := end(ctx, who); err != nil {
		return enclave.Refuse(keeper.CodeStop, enclave.FaultNode, "end keeper %d: %s", who.pid, err)
	}
	if err := removeCgroups(ctx, cgroupName(directory, who)); err != nil {
		return err
	}
	return forget(directory)
}

func end(ctx context.Context, who identity) error {
	fd, err := unix.PidfdOpen(who.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pidfd: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	// The descriptor holds on to the process; only now is it safe to look who it is.
	now, err := identify(who.pid)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || err == nil && now != who {
		reap(who.pid)
		return nil // it is dead, or its pid is somebody else's
	}
	if err != nil {
		return err
	}
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("send %s: %w", s, err)
		}
		dead, err := gone(ctx, fd, grace)
		if dead {
			reap(who.pid)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return errors.New("it survived SIGKILL")
}

// gone waits for the end of the process behind a pidfd.
func gone(ctx context.Context, fd int, atMost time.Duration) (bool, error) {
	const step = 20 * time.Millisecond
	for until := time.Now().Add(atMost); time.Now().Before(until); {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, int(step.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("wait for the end: %w", err)
		}
		if n > 0 {
			return true, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
	}
	return false, nil
}

// reap takes the exit status where the keeper is still our own child; init has it elsewhere.
func reap(pid int) {
	var s unix.WaitStatus
	_, _ = unix.Wait4(pid, &s, unix.WNOHANG, nil)
}
