package keeper

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/attest"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// renewing proves the node again and again, and gives GO a new end each time. It returns when
// the verifier refuses, or when none could be had until GO's end: then the node closes, for
// nobody vouches for it any more. Once another node has left the roster no renewal is given, as
// the job is being ended; this node then holds its tunnel for the epilog, no longer than GO's end.
func (k *keeper) renewing(ctx context.Context, g Grant) error {
	end := k.until(g.Lifetime)
	next := k.Host.Now() + around(g.Renew)
	var pauses pause
	var failed error
	for {
		if err := k.Host.Wait(ctx, min(next, end)); err != nil {
			return err
		}
		if k.Host.Now() >= end {
			return k.late(failed)
		}
		answer, err := k.renew(ctx, end)
		if err == nil {
			err = k.prolong(&g.Go, answer.Lifetime)
		}
		switch {
		case err == nil:
			if failed != nil {
				k.Log.Info("renewed again")
			}
			end, next = k.until(answer.Lifetime), k.Host.Now()+around(answer.Renew)
			failed, pauses = nil, pause{}
		case ctx.Err() != nil:
			return ctx.Err()
		case final(err) && !k.isShut():
			return fmt.Errorf("renew: %w", err)
		default:
			switch {
			case failed != nil:
			case over(err):
				k.Log.WithError(err).Info("not renewed, for the job ends; waiting for the epilog")
			default:
				k.Log.WithError(err).Warn("not renewed, trying again")
			}
			failed, next = err, k.Host.Now()+pauses.next(g.Renew)
		}
	}
}

// until is the end of a lifetime that begins now. The job's own end is never passed.
func (k *keeper) until(lifetime uint32) time.Duration {
	return min(k.Host.Now()+time.Duration(lifetime)*time.Second, k.last())
}

// late is the end of the grace period, or of the job, which is no fault.
func (k *keeper) late(failed error) error {
	if k.Host.Now() >= k.last() {
		return nil
	}
	r := enclave.Refuse(CodeLate, enclave.FaultService, "not renewed in time, the enclave is closed here: %v", failed)
	r.Node = k.c.Node
	return r
}

// renew is one attempt. It ends when GO does, on the clock on which GO does.
func (k *keeper) renew(ctx context.Context, end time.Duration) (api.RenewAnswer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		if k.Host.Wait(ctx, end) == nil {
			cancel()
		}
	}()
	nonce, err := k.Verifier.Nonce(ctx, api.NonceRequest{Job: k.c.Key, Node: k.c.Node, Purpose: claim.PurposeRenew})
	if err != nil {
		return api.RenewAnswer{}, err
	}
	a, err := k.speaker().Announce(ctx, claim.PurposeRenew, k.at(), nonce)
	if err != nil {
		return api.RenewAnswer{}, localError{err}
	}
	return k.Verifier.Renew(ctx, a)
}

func (k *keeper) speaker() Speaker {
	return Speaker{Job: k.c.Key, Keys: k.keys, Own: k.own(), Pin: k.c.Pin, Attester: k.Attester}
}

func (k *keeper) own() enclave.Peer {
	for _, p := range k.c.Peers {
		if p.Node == k.c.Node {
			return p
		}
	}
	return enclave.Peer{} // Config.Check refused that
}

func (k *keeper) isShut() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.shut
}

func (k *keeper) at() uint32 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.epoch
}

// prolong writes GO anew, unless it was closed in between. Where it can't be written (/run is full)
// the old one stays, with its end.
func (k *keeper) prolong(g *gate.Go, lifetime uint32) error {
	g.Expires = uint64(k.until(lifetime) / time.Second)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.shut {
		return nil
	}
	if err := k.c.Gate.WriteGo(*g); err != nil {
		return localError{err}
	}
	return nil
}

// localError is an error of this node's own: a firmware that is busy may answer the next time.
type localError struct{ error }

// Unwrap gives the cause.
func (e localError) Unwrap() error { return e.error }

// final says that trying again is no use: the verifier has decided. That it can't be reached or
// can't answer is no decision, nor is a nonce that came too late, nor this node's own trouble.
func final(err error) bool {
	if _, local := errors.AsType[localError](err); local {
		return false
	}
	r, ok := enclave.AsRefusal(err)
	if !ok {
		return false
	}
	switch r.Code {
	case "E124", "E126", "E131", "E500", "E507", "E509", "E514", "E517", "E518", "E546", "E547":
		return false
	}
	return !over(err)
}

// over says that to the verifier the job does not run any more: its epilog is on the way, which reads
// the tunnel's counters.
func over(err error) bool {
	r, ok := enclave.AsRefusal(err)
	return ok && r.Code == "E502"
}

// around is a period, a tenth more or less: the nodes of a job started together and shall not
// renew together.
func around(seconds uint32) time.Duration {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	period := time.Duration(seconds) * time.Second
	return period*9/10 + time.Duration(float64(period)/5*float64(binary.BigEndian.Uint32(b[:]))/(1<<32))
}

// pause grows with every attempt that failed in a row.
type pause struct{ last time.Duration }

const (
	firstPause   = 250 * time.Millisecond
	longestPause = 30 * time.Second
)

// next is never longer than half a period: a verifier that is back is found in time.
func (p *pause) next(period uint32) time.Duration {
	p.last = min(max(2*p.last, firstPause), longestPause, max(firstPause, time.Duration(period)*time.Second/2))
	return p.last
}

var _ Attester = (*attest.Attester)(nil)
