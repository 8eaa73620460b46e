package verifier

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// run is a job that was let in and is not over. Everything but turn belongs to the verifier's
// lock; the ledger holds what a restart needs of it.
type run struct {
	plan   ledger.Plan
	turn   sync.Mutex           // held while a node is put out, so that each epoch is signed once
	seen   map[string]time.Time // when a node was affirmed last; this process's clock, never set back
	gone   []string             // nodes that left, in that order
	why    map[string]*enclave.Refusal
	ending *enclave.Refusal // Slurm was told to end it, or is being told
	epoch  uint32
	later  *epoch        // of the latest epoch, nil in the first and after a restart
	change chan struct{} // closed when anything above changed, and made anew
	asked  time.Time     // when Slurm was last asked whether an overdue job lives
}

// epoch is a later roster as the remaining nodes get it.
type epoch struct {
	signed roster.Signed
	peers  []enclave.Peer
	place  map[string]int // of a node among the peers
	tree   *roster.Tree
	sealed map[string][]byte // the new seed, for each node
	keys   map[string]enclave.NodeKeys
}

func newRun(p ledger.Plan, now time.Time) *run {
	r := &run{plan: p, epoch: firstEpoch, seen: map[string]time.Time{}, why: map[string]*enclave.Refusal{}, change: make(chan struct{})}
	for _, n := range p.Job.Nodes {
		r.seen[n] = now
	}
	return r
}

// tell wakes everybody who watches. The caller holds v.mu.
func (r *run) tell() {
	close(r.change)
	r.change = make(chan struct{})
}

// resume takes up the jobs that ran when the process before this one ended. Their clocks start
// anew: nobody is overdue for the time in which there was nobody to prove anything to. A job
// that was to be ended is ended again, for Slurm may not have heard of it.
func (v *Verifier) resume(ctx context.Context) error {
	list, err := v.Ledger.Running(ctx, v.Config.Cluster)
	if err != nil {
		return fmt.Errorf("take up running jobs: %w", err)
	}
	for _, e := range list {
		k, r := e.Job.JobKey, newRun(e.Plan, time.Now())
		rosters, err := v.Ledger.Rosters(ctx, k)
		if err != nil {
			return fmt.Errorf("take up running jobs: %w", err)
		}
		for _, x := range rosters {
			if r.epoch = x.Epoch; x.Gone != "" {
				r.gone, r.why[x.Gone] = append(r.gone, x.Gone), x.Refusal
			}
		}
		v.runs[k] = r
		if r.ending = e.Refusal; r.ending != nil {
			v.jobs.Go(func() {
				work, cancel := context.WithTimeout(v.life, closeTimeout)
				defer cancel()
				v.endJob(work, e)
			})
		}
	}
	return nil
}

// forget ends the watches of a start that is over.
func (v *Verifier) forget(k enclave.JobKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r := v.runs[k]; r != nil {
		delete(v.runs, k)
		r.tell()
	}
}

// affirmed notes that a node has just proved itself again.
func (v *Verifier) affirmed(k enclave.JobKey, node string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r := v.runs[k]; r != nil {
		r.seen[node] = time.Now()
	}
}

// Watch answers when the roster is no longer that of the node's epoch, or after a while. The
// nodes of a job hold one such call each, so that a revocation reaches them at once.
func (v *Verifier) Watch(ctx context.Context, node string, r api.WatchRequest) (api.WatchAnswer, error) {
	if r.Node != node {
		return api.WatchAnswer{}, foreign(node, r.Node)
	}
	hold := time.NewTimer(api.WatchSeconds * time.Second)
	defer hold.Stop()
	for {
		answer, change, err := v.look(ctx, r)
		if err != nil || answer.Answer != nil {
			return answer, err
		}
		select {
		case <-change:
		case <-hold.C:
			return answer, nil
		case <-v.life.Done():
			return answer, enclave.Refuse("E509", enclave.FaultService, "enclaved is stopping")
		case <-ctx.Done():
			return answer, ctx.Err()
		}
	}
}

// look gives what a node is to be told now, and what to wait for when that is nothing.
func (v *Verifier) look(ctx context.Context, w api.WatchRequest) (api.WatchAnswer, <-chan struct{}, error) {
	v.mu.Lock()
	r := v.runs[w.Job]
	if r == nil {
		v.mu.Unlock()
		return api.WatchAnswer{}, nil, v.notRunning(ctx, w.Job, w.Node)
	}
	known, why, later, current, gone, change := !r.seen[w.Node].IsZero(), r.why[w.Node], r.later, r.epoch, slices.Clone(r.gone), r.change
	v.mu.Unlock()
	switch {
	case !known:
		return api.WatchAnswer{}, nil, enclave.Refuse("E128", enclave.FaultRequest, "node %s is not one of job %s", w.Node, w.Job)
	case why != nil:
		return api.WatchAnswer{}, nil, why
	case w.Epoch == current:
		return api.WatchAnswer{}, change, nil
	case w.Epoch > current || later == nil: // of a start that this process did not see
		return api.WatchAnswer{}, nil, enclave.Refuse("E502", enclave.FaultService, "job %s has no roster of epoch %d", w.Job, w.Epoch)
	}
	// Outside of the lock: all nodes of a large job ask at the same moment.
	answer, err := later.answer(v.Key, w)
	return api.WatchAnswer{Gone: gone, Answer: answer}, nil, err
}

// notRunning is why a job has no run: it is over, was never let in, or is nobody's.
func (v *Verifier) notRunning(ctx context.Context, k enclave.JobKey, node string) error {
	_, err := v.running(ctx, k, node)
	if err == nil { // ended between two looks
		err = enclave.Refuse("E502", enclave.FaultService, "job %s is not running", k)
	}
	return err
}

// answer is the later roster for one node, bound to the nonce of its call.
func (e *epoch) answer(key ed25519.PrivateKey, w api.WatchRequest) (*roster.Answer, error) {
	i, ok := e.place[w.Node]
	if !ok {
		return nil, enclave.Refuse("E502", enclave.FaultService, "node %s is not on the roster of job %s", w.Node, w.Job)
	}
	path, err := e.tree.Prove(i)
	if err != nil {
		return nil, err
	}
	a := &roster.Answer{
		Roster: e.signed, Leaf: e.peers[i], Index: uint32(i), Path: path, // at most maxNodes
		Nonce: w.Nonce, Keys: e.keys[w.Node], Seed: e.sealed[w.Node],
	}
	a.Bind(key)
	return a, nil
}
