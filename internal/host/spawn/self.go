package spawn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/tunnel"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
)

// Self is the keeper's own process. It implements keeper.Host.
type Self struct{}

var _ keeper.Host = Self{}

// Settle implements keeper.Host.
func (Self) Settle(c keeper.Config) error { return Settle(c) }

// Open implements keeper.Host.
func (Self) Open(device string, mtu int) (keeper.Tunnel, error) { return tunnel.Open(device, mtu) }

// Wait implements keeper.Host. The timer runs on while the node sleeps, as the gate's clock does.
func (Self) Wait(ctx context.Context, second uint64) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make timer: %w", err)
	}
	f := os.NewFile(uintptr(fd), "timerfd")
	defer func() { _ = f.Close() }()
	at := unix.ItimerSpec{Value: unix.Timespec{Sec: int64(min(second, 1<<40))}}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME, &at, nil); err != nil {
		return fmt.Errorf("set timer: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stop()
	if _, err := f.Read(make([]byte, 8)); err != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("wait for timer: %w", err))
	}
	return nil
}

// Inherited reads what Keeper passed to this process: the config, and a function that says
// "ready" or "error: why", once, and fails when nobody listens any more.
func Inherited() (keeper.Config, func(error) error, error) {
	seals, err := unix.FcntlInt(configFD, unix.F_GET_SEALS, 0)
	if err != nil || seals&allSeals != allSeals {
		return keeper.Config{}, nil, errors.New("descriptor 3 is no sealed config: enclave-keeper is started by enclave-prolog only")
	}
	unix.CloseOnExec(configFD)
	unix.CloseOnExec(readyFD)
	f := os.NewFile(configFD, "config")
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, 1<<17))
	if err != nil {
		return keeper.Config{}, nil, fmt.Errorf("read config: %w", err)
	}
	c, err := keeper.Decode(b)
	if err != nil {
		return keeper.Config{}, nil, err
	}
	return c, say(os.NewFile(readyFD, "ready")), nil
}

func say(w *os.File) func(error) error {
	return func(err error) error {
		line := readyLine
		if err != nil {
			line = "error: " + strings.ReplaceAll(err.Error(), "\n", "; ") + "\n"
		}
		_, werr := w.WriteString(line)
		return errors.Join(werr, w.Close())
	}
}

// forget removes the record of a keeper that is no more.
func forget(directory string) error {
	if err := os.Remove(filepath.Join(directory, recordName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record of keeper: %w", err)
	}
	return nil
}
