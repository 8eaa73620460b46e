package verifier

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
)

// cores computes for others, on as many goroutines as there are processors.
type cores struct {
	work chan func()
	end  <-chan struct{}
}

func newCores(end <-chan struct{}) *cores { return &cores{work: make(chan func()), end: end} }

// compute works until the end. It runs on each processor.
func (c *cores) compute() {
	for {
		select {
		case f := <-c.work:
			f()
		case <-c.end:
			return
		}
	}
}

// inTurn has f computed, in turn: of thousands at the same time each would take as long as all, and
// grow a stack of its own for it, which it keeps while it waits for the others. A panic over somebody's
// evidence is the caller's, as it would be without all this.
func (v *Verifier) inTurn(f func()) {
	done := make(chan struct{})
	var failed any
	work := func() {
		defer close(done)
		defer func() { failed = recover() }()
		f()
	}
	select {
	case v.cores.work <- work:
	case <-v.cores.end: // whoever still asks is soon refused
		work()
	}
	if <-done; failed != nil {
		panic(failed)
	}
}

// onAllCores calls f for 0 to n-1 on as many processors as there are, and gives their errors.
// Each worker stops at its first.
func onAllCores(n int, f func(int) error) error {
	var next atomic.Int64
	workers := min(n, runtime.GOMAXPROCS(0))
	errs := make([]error, workers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && errs[w] == nil; i = int(next.Add(1)) - 1 {
				errs[w] = f(i)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
