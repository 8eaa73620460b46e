package verifier

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestWorkInTurn(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	v := &Verifier{cores: newCores(end)}
	const workers = 2
	var all sync.WaitGroup
	for range workers {
		all.Go(v.cores.compute)
	}
	t.Run("no more of it is under way than there are processors", func(t *testing.T) {
		var now, over atomic.Int32
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() {
				v.inTurn(func() {
					if now.Add(1) > workers {
						over.Add(1)
					}
					time.Sleep(time.Millisecond)
					now.Add(-1)
				})
			})
		}
		callers.Wait()
		assert.Zero(t, over.Load())
	})
	t.Run("a panic over somebody's evidence is that caller's, and nobody else's", func(t *testing.T) {
		for range 2 * workers {
			assert.PanicsWithValue(t, "a report of a new kind", func() { v.inTurn(func() { panic("a report of a new kind") }) })
		}
		done := false
		v.inTurn(func() { done = true })
		assert.True(t, done)
	})
	t.Run("after the end a caller works for itself", func(t *testing.T) {
		close(end)
		all.Wait()
		done := false
		v.inTurn(func() { done = true })
		assert.True(t, done)
		assert.Panics(t, func() { v.inTurn(func() { panic("late") }) })
	})
}
