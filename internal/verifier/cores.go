package verifier

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
)

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
