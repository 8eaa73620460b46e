package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/hashicorp/go-multierror"
)

// Tunnel is userspace WireGuard. Its device is gone when it is closed or its process dead.
type Tunnel interface {
	// Done is closed when somebody else ended the tunnel.
	Done() <-chan struct{}
	Close() error
}

// Host is what the keeper needs of the node.
type Host interface {
	// Settle makes the process a daemon of its own: out of slurmd's and the job's reach, its
	// memory out of swap and core files, its identity recorded in the job's directory.
	Settle(c Config) error
	// Open makes the device and the control socket by which mesh.Up configures it.
	Open(device string, mtu int) (Tunnel, error)
	// Wait returns nil at that second of CLOCK_BOOTTIME, or the context's error before it.
	Wait(ctx context.Context, second uint64) error
}

// Run keeps until the lifetime is over, the tunnel ends or ctx is cancelled, and then closes
// the gate before it closes the tunnel. It calls ready once, with nil when all is in place; an
// error of ready means that nobody waits for this keeper any more, and ends it.
func Run(ctx context.Context, h Host, c Config, ready func(error) error) error {
	tunnel, err := begin(h, c)
	if err != nil {
		return errors.Join(err, ready(err))
	}
	if err := ready(nil); err != nil {
		return errors.Join(fmt.Errorf("say ready: %w", err), end(c, tunnel))
	}
	why := wait(ctx, h, c, tunnel)
	return errors.Join(why, end(c, tunnel))
}

func begin(h Host, c Config) (Tunnel, error) {
	if err := h.Settle(c); err != nil {
		return nil, fmt.Errorf("settle: %w", err)
	}
	if !c.Userspace {
		return nil, nil //nolint:nilnil // the kernel holds the tunnel
	}
	t, err := h.Open(c.Device, c.MTU)
	if err != nil {
		return nil, fmt.Errorf("open tunnel %s: %w", c.Device, err)
	}
	return t, nil
}

// wait says why it ended: nil for the end of the lifetime and for the epilog's signal.
func wait(ctx context.Context, h Host, c Config, t Tunnel) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ended <-chan struct{}
	if t != nil {
		ended = t.Done()
	}
	over := make(chan error, 1)
	go func() { over <- h.Wait(ctx, c.Expires) }()
	select {
	case err := <-over:
		if ctx.Err() != nil { // the epilog's signal
			return nil
		}
		return err
	case <-ended:
		return fmt.Errorf("tunnel %s ended", c.Device)
	}
}

func end(c Config, t Tunnel) error {
	defer c.PrivateKey.Wipe()
	var errs *multierror.Error
	if err := os.Remove(c.GoFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = multierror.Append(errs, fmt.Errorf("remove %s: %w", c.GoFile, err))
	}
	if t != nil {
		if err := t.Close(); err != nil {
			errs = multierror.Append(errs, fmt.Errorf("close tunnel %s: %w", c.Device, err))
		}
	}
	return errs.ErrorOrNil()
}
