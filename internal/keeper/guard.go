package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

const (
	// lookAgain is how often fence and mesh are read back without word of a change: WireGuard's
	// peers are changed without any.
	lookAgain = 30 * time.Second
	// lookPause is the least time between two looks, and lookShare what looking may take of the
	// time where a look takes long: others may change rules all day.
	lookPause = 100 * time.Millisecond
	lookShare = 10
	// A change counts when it is there this often in a row: a list that the kernel changes while
	// it is read may lack a line.
	lookTwice      = 3
	lookTwicePause = 20 * time.Millisecond
	// blindFor is how long what can't be read is taken for what was there.
	blindFor = 30 * time.Second
)

// guarding reads fence and mesh back whenever they may have changed. It returns a refusal when
// they are not what the prolog put up, and waits for the epilog when the closed fence has taken
// the fence's place: then our own programs are taking the enclave down.
func (k *keeper) guarding(ctx context.Context, w Walls) error {
	read := k.Host.Now() // when all was last well
	for {
		began := k.Host.Now()
		r, err := k.look(ctx, w)
		now := k.Host.Now()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case r != nil && k.closing(ctx, w):
			<-ctx.Done()
			return ctx.Err()
		case r != nil:
			return r
		case err == nil:
			read = now
		case now-read > blindFor:
			return k.lost(enclave.Refuse(CodeBlind, enclave.FaultService, "fence and mesh could not be read back for %s: %v", blindFor, err))
		default:
			k.Log.WithError(err).Warn("fence and mesh not read back, trying again")
		}
		if err = k.Host.Wait(ctx, now+max(lookPause, lookShare*(now-began))); err != nil {
			return err
		}
		next := lookAgain
		if read != now {
			next = time.Second
		}
		if err = k.news(ctx, now+next); err != nil {
			return err
		}
	}
}

// look is nil twice when all is as it was put up, a refusal when it is not, and an error when
// nobody knows.
func (k *keeper) look(ctx context.Context, w Walls) (*enclave.Refusal, error) {
	for try := 1; ; try++ {
		err := fence.Check(ctx, k.Fence, w.Fence)
		if err == nil {
			err = mesh.Check(ctx, k.Mesh, w.Mesh, k.c.Peers)
		}
		r, changed := enclave.AsRefusal(err)
		if !changed {
			return nil, err
		}
		if try == lookTwice {
			return k.lost(r), nil
		}
		if err = k.Host.Wait(ctx, k.Host.Now()+lookTwicePause); err != nil {
			return nil, err
		}
	}
}

// closing is true when the closed fence stands in the fence's place.
func (k *keeper) closing(ctx context.Context, w Walls) bool {
	own, err := fence.Stands(ctx, k.Fence, w.Fence.Name)
	if err != nil || own {
		return false
	}
	closed, err := fence.Stands(ctx, k.Fence, w.Closed.Name)
	return err == nil && closed
}

// news waits for word of a change, at most until then.
func (k *keeper) news(ctx context.Context, until time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan error, 1)
	go func() { over <- k.Host.Wait(ctx, until) }()
	select {
	case _, ok := <-k.changes:
		if !ok && ctx.Err() == nil {
			return k.lost(enclave.Refuse(CodeBlind, enclave.FaultService, "the kernel no longer tells of changes"))
		}
		return ctx.Err()
	case err := <-over:
		return err
	}
}

func (k *keeper) lost(r *enclave.Refusal) *enclave.Refusal {
	r.Node = k.c.Node
	return r
}

// shield puts the closed fence in the place of what is left of the job's. Without a fence the end
// of the tunnel would send the job's packets out in clear.
func (k *keeper) shield(ctx context.Context) error {
	if k.walls == nil {
		return nil
	}
	return fence.Up(ctx, k.Fence, k.walls.Closed, k.walls.Fence.Name)
}

// report tells the verifier that this node's part of the enclave is lost, until it has heard, or
// the epilog comes. It ends the job for it.
func (k *keeper) report(ctx context.Context, r *enclave.Refusal) error {
	var pauses pause
	request := api.BrokenRequest{NodeRequest: api.NodeRequest{Job: k.c.Key, Node: k.c.Node, Epoch: k.at()}, Refusal: *r}
	for {
		decided, err := k.Verifier.Lost(ctx, request)
		switch {
		case err == nil:
			k.Log.WithField("code", decided.Refusal.Code).Warn("the verifier was told, the job is being ended")
			return nil
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the epilog is here: the job has ended
		case final(err) || k.Host.Now() >= k.last():
			return fmt.Errorf("tell verifier: %w", err)
		}
		if err = k.Host.Wait(ctx, k.Host.Now()+pauses.next(watchAgain)); err != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
}
