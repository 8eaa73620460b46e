package keeper

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/sirupsen/logrus"

	"github.com/slurm-enclave/slurm-enclave/internal/attest"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
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
	// Now is CLOCK_BOOTTIME: it runs on while the node sleeps, and nobody sets it.
	Now() time.Duration
	// Wait returns nil at that moment of CLOCK_BOOTTIME, or the context's error before it.
	Wait(ctx context.Context, until time.Duration) error
}

// Verifier is what the keeper asks, as the node that it runs on.
type Verifier interface {
	Nonce(ctx context.Context, r api.NonceRequest) (api.NonceAnswer, error)
	Renew(ctx context.Context, a api.Announcement) (api.RenewAnswer, error)
	Watch(ctx context.Context, r api.WatchRequest) (api.WatchAnswer, error)
	Lost(ctx context.Context, r api.BrokenRequest) (api.BrokenAnswer, error)
	Key() ed25519.PublicKey // the pinned key, nil before the first call
}

// Parts is what a keeper works with.
type Parts struct {
	Host     Host
	Verifier Verifier
	Attester Attester
	Mesh     mesh.Kernel
	Fence    fence.Kernel
	Stuck    Stuck
	// Changes says when fence or mesh may have changed, until ctx ends. It is closed when nobody
	// can say so any more.
	Changes func(ctx context.Context) (<-chan struct{}, error)
	Log     *logrus.Entry
	// Granted waits for the prolog's word. An error means that it will never come.
	Granted func(ctx context.Context) (Grant, error)
}

// keeper is one run. The lock holds GO: once shut, nobody writes it again.
type keeper struct {
	Parts
	c      Config
	keys   attest.Keys
	tunnel Tunnel // nil where the kernel holds it

	changes <-chan struct{}
	walls   *Walls // nil before GO

	mu    sync.Mutex
	shut  bool
	epoch uint32
}

// Run keeps until the job's own end, the tunnel's, a refusal of the verifier's, or ctx, and then
// closes the gate before it closes the tunnel. It calls ready once, with nil when all is in
// place; an error of ready means that nobody waits for this keeper any more, and ends it.
func Run(ctx context.Context, p Parts, c Config, ready func(error) error) error {
	k := &keeper{Parts: p, c: c, epoch: c.Epoch}
	defer c.Keys.Wipe()
	listening, deafen := context.WithCancel(ctx)
	defer deafen()
	if err := k.begin(listening); err != nil {
		return errors.Join(err, ready(err))
	}
	defer k.keys.Wipe()
	if err := ready(nil); err != nil {
		return errors.Join(fmt.Errorf("say ready: %w", err), k.end(false))
	}
	why := k.wait(ctx)
	if r, ok := enclave.AsRefusal(why); ok && k.walls != nil && ctx.Err() == nil && ours(r.Code) {
		return errors.Join(why, k.lose(ctx, r))
	}
	return errors.Join(why, k.end(ctx.Err() != nil))
}

// ours says of a refusal that this keeper is the first to know of it.
func ours(c enclave.Code) bool {
	return slices.Contains([]enclave.Code{fence.CodeChanged, mesh.CodeRouting, mesh.CodeInterface, mesh.CodeTunnel, mesh.CodePath, CodeBlind}, c)
}

// lose ends this node's part because somebody changed fence or mesh: the gate first, then a fence
// in which nothing leaves, and only behind that the tunnel's end. A tunnel that has no fence around
// it is held until the epilog is here: as long as it stands, packets to the peers are encrypted.
func (k *keeper) lose(ctx context.Context, r *enclave.Refusal) error {
	errs := errors.Join(k.close(), k.c.Gate.WriteDeny(gate.DenyOf(k.c.Key.Job, r)))
	if err := k.shield(ctx); err != nil {
		errs = errors.Join(errs, fmt.Errorf("close fence: %w", err), k.report(ctx, r))
		_ = k.Host.Wait(ctx, k.last())
		return errors.Join(errs, k.end(ctx.Err() != nil))
	}
	errs = errors.Join(errs, k.end(false))
	return errors.Join(errs, k.report(ctx, r))
}

func (k *keeper) begin(ctx context.Context) (err error) {
	if err = k.Host.Settle(k.c); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	if k.keys, err = attest.ParseKeys(k.c.Keys); err != nil {
		return err
	}
	if k.changes, err = k.Changes(ctx); err != nil {
		return err
	}
	if !k.c.Userspace {
		return nil
	}
	if k.tunnel, err = k.Host.Open(k.c.Device, k.c.MTU); err != nil {
		return fmt.Errorf("open tunnel %s: %w", k.c.Device, err)
	}
	return nil
}

// wait says why it ended: nil for the end of the lifetime and for the epilog's signal.
func (k *keeper) wait(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	over := make(chan error, 5) // one of each task
	tasks.Go(func() { over <- k.Host.Wait(ctx, k.last()) })
	tasks.Go(func() {
		g, err := k.Granted(ctx)
		if err != nil {
			return // the prolog ended without GO: hold what is there until the epilog
		}
		k.Log.WithField("renew_seconds", g.Renew).Info("keeping")
		k.walls = &g.Walls
		tasks.Go(func() { over <- k.guarding(ctx, g.Walls) })
		tasks.Go(func() { over <- k.renewing(ctx, g) })
		tasks.Go(func() { over <- k.watching(ctx) })
		tasks.Go(func() { k.loosening(ctx) })
	})
	var ended <-chan struct{}
	if k.tunnel != nil {
		ended = k.tunnel.Done()
	}
	select {
	case err := <-over:
		if ctx.Err() != nil { // the epilog's signal
			return nil
		}
		return err
	case <-ended:
		r := enclave.Refuse(mesh.CodeInterface, enclave.FaultNode, "interface %s was deleted, and the tunnel ended with it", k.c.Device)
		r.Check = "interface"
		return k.lost(r)
	}
}

// last is the job's own end.
func (k *keeper) last() time.Duration { return time.Duration(min(k.c.Expires, 1<<32)) * time.Second }

// close unlinks GO for good: a renewal that is under way writes it no more.
func (k *keeper) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.shut = true
	return k.c.Gate.RemoveGo(k.c.Key.Job)
}

// end closes the gate and then the tunnel. The epilog takes down the kernel's device itself, and
// reads its counters before.
func (k *keeper) end(epilog bool) error {
	var errs *multierror.Error
	if err := k.close(); err != nil {
		errs = multierror.Append(errs, err)
	}
	if k.tunnel != nil {
		if err := k.tunnel.Close(); err != nil {
			errs = multierror.Append(errs, fmt.Errorf("close tunnel %s: %w", k.c.Device, err))
		}
	} else if !epilog {
		if err := mesh.Cut(context.Background(), k.Mesh, k.c.Key.Job); err != nil { // the caller's context may be over
			errs = multierror.Append(errs, err)
		}
	}
	return errs.ErrorOrNil()
}
