package keeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// watchLimit ends a call whose other end vanished without a word.
const watchLimit = (api.WatchSeconds + 10) * time.Second

// watchPace is the least time between two calls that told nothing.
const watchPace = time.Second

// watchAgain bounds the pauses, to half of it, while the verifier is away: news that come as soon
// as it is back shall not find a node asleep.
const watchAgain = 6 // seconds

// watching holds a call at the verifier and acts on its answer at once. It returns when this
// node was put out, or the job is over, or what it hears can't be believed.
func (k *keeper) watching(ctx context.Context) error {
	var pauses pause
	for {
		began := k.Host.Now()
		err := k.watch(ctx)
		next := began + watchPace
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			pauses = pause{}
		case final(err):
			return fmt.Errorf("watch: %w", err)
		default:
			next = k.Host.Now() + pauses.next(watchAgain)
		}
		if err = k.Host.Wait(ctx, next); err != nil {
			return err
		}
	}
}

func (k *keeper) watch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, watchLimit)
	defer cancel()
	w := api.WatchRequest{NodeRequest: api.NodeRequest{Job: k.c.Key, Node: k.c.Node, Epoch: k.at()}}
	_, _ = rand.Read(w.Nonce[:]) // never fails
	news, err := k.Verifier.Watch(ctx, w)
	if err != nil || news.Answer == nil {
		return err
	}
	// GO first: whatever the news are worth, no further rank starts.
	if err = errors.Join(k.close(), k.narrow(ctx, w, news)); err != nil {
		r := enclave.Refuse(CodeNews, enclave.FaultNode, "the roster changed, and that could not be followed: %v", err)
		r.Node = k.c.Node
		return r
	}
	k.Log.WithField("gone", news.Gone).Warn("nodes left the roster, the job is being ended")
	return nil
}

// narrow believes of the news what it can check, as the prolog did with the first roster: the
// signature, its own keys and nonce in it, a later epoch, and that the leaves are the first
// roster's without those that left. Then the peers that left go out of the tunnel.
func (k *keeper) narrow(ctx context.Context, w api.WatchRequest, news api.WatchAnswer) error {
	p := k.keys.Public()
	header, seed, err := news.Answer.Accept(roster.Expectation{
		Verifier: k.Verifier.Key(), Key: k.c.Key, Node: k.c.Node, Nonce: w.Nonce, HPKE: k.keys.HPKE(),
		Keys: enclave.NodeKeys{WireGuard: p.WireGuard, Ed25519: p.Ed25519, HPKE: p.HPKE},
	})
	if err != nil {
		return err
	}
	defer seed.Wipe()
	if header.Epoch <= w.Epoch {
		return fmt.Errorf("roster of epoch %d, want one after %d", header.Epoch, w.Epoch)
	}
	var gone []enclave.PublicKey
	var stay []enclave.Peer
	for _, x := range k.c.Peers {
		if slices.Contains(news.Gone, x.Node) {
			gone = append(gone, x.Key)
		} else {
			stay = append(stay, x)
		}
	}
	if err = roster.CheckPeers(header, stay); err != nil {
		return err
	}
	peers, err := k.pairs(seed, header.Epoch, stay)
	defer wipe(peers)
	if err != nil {
		return err
	}
	if err = mesh.Narrow(ctx, k.Mesh, k.c.Key.Job, gone, peers); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.epoch = header.Epoch
	return nil
}

// pairs are the other nodes that stay, with the new epoch's key for each.
func (k *keeper) pairs(seed enclave.Secret, epoch uint32, stay []enclave.Peer) ([]mesh.Peer, error) {
	own := k.keys.Public().WireGuard
	var out []mesh.Peer
	for _, x := range stay {
		if x.Node == k.c.Node {
			continue
		}
		psk, err := roster.PairPSK(seed, epoch, own, x.Key)
		if err != nil {
			return out, err
		}
		out = append(out, mesh.Peer{Peer: x, PSK: psk})
	}
	return out, nil
}

func wipe(peers []mesh.Peer) {
	for _, p := range peers {
		p.PSK.Wipe()
	}
}
