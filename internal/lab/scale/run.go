package scale

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
)

// run is one start of one job.
type run struct {
	Options
	site     *site
	nodes    []*node
	enclaved *process
	out      io.Writer

	firstNonce time.Time
	released   time.Time // when the nodes were let go
	begun      usage     // before the job is registered
	last       usage     // when the last evidence had left
	ended      usage     // when the last node had its answer
}

// usage is what enclaved had used at a time.
type usage struct {
	at  time.Time
	cpu time.Duration
}

func (r *run) key() enclave.JobKey { return enclave.JobKey{Cluster: cluster, Job: 7} }

func (r *run) measure(ctx context.Context) (err error) {
	bare, err := bareVerification()
	if err != nil {
		return err
	}
	if err = r.connect(ctx); err != nil {
		return err
	}
	if err = r.makeNetworks(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.leaveNetworks()) }()
	if err = r.enclaved.settle(ctx); err != nil {
		return err
	}
	if err = r.register(ctx); err != nil {
		return err
	}
	if err = r.enclaved.command("profile"); err != nil {
		return err
	}
	began := time.Now()
	r.firstNonce = began
	err = forEach(len(r.nodes), prepareAtOnce, func(i int) error { return r.nodes[i].prepare(ctx, r.key()) })
	if err != nil {
		return err
	}
	say(r.out, "%d nonces and reports in %.1f s", len(r.nodes), time.Since(began).Seconds())
	refusals, err := r.bringUp(ctx)
	if err != nil {
		return err
	}
	if err = r.enclaved.command("end profile"); err != nil {
		return err
	}
	after, err := bareVerification()
	if err != nil {
		return err
	}
	if r.Lost {
		return r.reportLost(refusals)
	}
	if err = r.takeDown(); err != nil {
		return err
	}
	return r.report((bare + after) / 2)
}

func (r *run) connect(ctx context.Context) error {
	began, err := r.enclaved.usage()
	if err != nil {
		return err
	}
	if err = forEach(len(r.nodes), prepareAtOnce, func(i int) error { return r.nodes[i].connect(ctx) }); err != nil {
		return err
	}
	now, err := r.enclaved.usage()
	if err != nil {
		return err
	}
	say(r.out, "%d connections in %.1f s, %.2f s of enclaved's CPU", len(r.nodes), now.at.Sub(began.at).Seconds(), (now.cpu - began.cpu).Seconds())
	return nil
}

func (r *run) register(ctx context.Context) (err error) {
	if r.begun, err = r.enclaved.usage(); err != nil {
		return err
	}
	j := enclave.Job{JobKey: r.key(), UID: 2001, User: "alice", Account: "onc", Partition: "cpu-sev", Batch: true}
	for _, n := range r.nodes {
		j.Nodes = append(j.Nodes, n.Name)
	}
	controller := client.New(client.Options{Socket: r.site.path("s")})
	defer controller.Close()
	began := time.Now()
	if _, err = controller.Register(ctx, api.RegisterRequest{Job: j}); err != nil {
		return err
	}
	say(r.out, "registered in %.0f ms", milliseconds(time.Since(began)))
	return nil
}

// posters is how many nodes post evidence.
func (r *run) posters() int {
	if r.Lost {
		return len(r.nodes) - 1
	}
	return len(r.nodes)
}

// bringUp lets all nodes go, each when its turn comes, and gives the refusals by node.
func (r *run) bringUp(ctx context.Context) ([]*enclave.Refusal, error) {
	var mu sync.Mutex
	var failed error
	refusals := make([]*enclave.Refusal, len(r.nodes))
	note := func(i int, err error) {
		mu.Lock()
		defer mu.Unlock()
		if refusal, ok := enclave.AsRefusal(err); ok && r.Lost {
			refusals[i] = refusal
		} else if err != nil && failed == nil {
			failed = fmt.Errorf("node %s: %w", r.nodes[i].Name, err)
		}
	}
	var left atomic.Int64
	left.Store(int64(r.posters()))
	wrote := func() {
		if left.Add(-1) != 0 {
			return
		}
		u, err := r.enclaved.usage()
		mu.Lock()
		defer mu.Unlock()
		if r.last = u; err != nil && failed == nil {
			failed = err
		}
	}
	step := math.MaxInt
	if r.Sample > 0 {
		step = int(math.Ceil(1 / r.Sample))
	}
	var all sync.WaitGroup
	start := time.Now()
	r.released = start
	for i, n := range r.nodes[:r.posters()] {
		wait := r.turn(i)
		up := make(chan struct{})
		all.Go(func() {
			defer close(up)
			pause(ctx, start.Add(wait))
			note(i, n.bringUp(ctx, i%step == 0, wrote))
		})
		if r.Twice && i == 0 {
			all.Go(func() {
				pause(ctx, start.Add(wait))
				note(i, n.again(ctx, up))
			})
		}
	}
	all.Wait()
	var err error
	if r.ended, err = r.enclaved.usage(); err != nil {
		return nil, err
	}
	return refusals, failed
}

// turn is when a node posts its evidence.
func (r *run) turn(i int) time.Duration {
	if i == len(r.nodes)-1 && r.Straggler > 0 {
		return r.Spread + r.Straggler
	}
	return time.Duration(i) * r.Spread / time.Duration(len(r.nodes))
}

func pause(ctx context.Context, until time.Time) {
	if time.Until(until) <= 0 {
		return
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// size is how many bytes a body has that was not kept.
func size(v any) (int64, error) {
	b, err := json.Marshal(v)
	return int64(len(b)), err
}
