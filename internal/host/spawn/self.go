package spawn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/tunnel"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
)

// Self is the keeper's own process. It implements keeper.Host.
type Self struct{}

var _ keeper.Host = Self{}

// Settle implements keeper.Host.
func (Self) Settle(c keeper.Config) error { return Settle(c) }

// Open implements keeper.Host. From then on this process has as many processors as the tunnel needs.
func (Self) Open(device string, mtu int) (keeper.Tunnel, error) {
	d, err := tunnel.Open(device, mtu)
	if err != nil {
		return nil, err
	}
	go tunnel.Pace(d.Done(), keeper.Processors(runtime.NumCPU()))
	return d, nil
}

// Now implements keeper.Host. A kernel without that clock runs no SEV-SNP guest.
func (Self) Now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// Wait implements keeper.Host. The timer runs on while the node sleeps, as the gate's clock does.
func (s Self) Wait(ctx context.Context, until time.Duration) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return s.doze(ctx, until)
	}
	if err != nil {
		return fmt.Errorf("make timer: %w", err)
	}
	f := os.NewFile(uintptr(fd), "timerfd")
	defer func() { _ = f.Close() }()
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(max(1, until.Nanoseconds()))} // 0 would disarm it
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

// dozing is how long a keeper without a timer sleeps before it looks at the clock again.
const dozing = 200 * time.Millisecond

// doze is Wait where no descriptor is left for a timer: a want that may pass is no end of a job. Go's
// own timers stand still while the node sleeps, so the clock is looked at again and again.
func (s Self) doze(ctx context.Context, until time.Duration) error {
	for left := until - s.Now(); left > 0; left = until - s.Now() {
		t := time.NewTimer(min(left, dozing))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// Passed is what Keeper handed to this process.
type Passed struct {
	Config keeper.Config
	// Ready says "ready" or "error: why", once, and fails when nobody listens any more.
	Ready func(error) error
	// Granted waits for Handle.Grant. It fails when the prolog ended without it.
	Granted func(ctx context.Context) (keeper.Grant, error)
}

// Inherited reads what Keeper passed.
func Inherited() (Passed, error) {
	seals, err := unix.FcntlInt(configFD, unix.F_GET_SEALS, 0)
	if err != nil || seals&allSeals != allSeals {
		return Passed{}, errors.New("descriptor 3 is no sealed config: enclave-keeper is started by enclave-prolog only")
	}
	for _, fd := range []int{configFD, readyFD, grantFD} {
		unix.CloseOnExec(fd)
	}
	f := os.NewFile(configFD, "config")
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, keeper.MaxSize+1))
	if err != nil {
		return Passed{}, fmt.Errorf("read config: %w", err)
	}
	c, err := keeper.Decode(b)
	if err != nil {
		return Passed{}, err
	}
	if err = unix.SetNonblock(grantFD, true); err != nil { // so that a read can be called off
		return Passed{}, fmt.Errorf("open grant pipe: %w", err)
	}
	return Passed{Config: c, Ready: say(os.NewFile(readyFD, "ready")), Granted: hear(os.NewFile(grantFD, "grant"))}, nil
}

const grantLimit = keeper.MaxSize // it names every node of the job

func hear(r *os.File) func(context.Context) (keeper.Grant, error) {
	return func(ctx context.Context) (keeper.Grant, error) {
		defer func() { _ = r.Close() }()
		stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Now()) })
		defer stop()
		var g keeper.Grant
		b, err := io.ReadAll(io.LimitReader(r, grantLimit))
		if err == nil {
			err = json.Unmarshal(b, &g)
		}
		if err != nil {
			return keeper.Grant{}, fmt.Errorf("hear of GO: %w", err)
		}
		return g, nil
	}
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
