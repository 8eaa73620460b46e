package verifier_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// lost is a keeper's word that somebody flushed its node's packet filter.
func (w *world) lost(k enclave.JobKey, caller, node string, change ...func(*enclave.Refusal)) error {
	w.t.Helper()
	r := enclave.Refuse("E426", enclave.FaultNode, "table enclave_7 was changed: no such table")
	r.Node, r.Check = node, "fence"
	for _, f := range change {
		f(r)
	}
	a, err := w.v.Lost(w.t.Context(), caller, api.BrokenRequest{NodeRequest: api.NodeRequest{Job: k, Node: node, Epoch: 1}, Refusal: *r})
	if err == nil {
		err = &a.Refusal
	}
	return err
}

func TestLost(t *testing.T) {
	t.Parallel()
	bubble(t, "a node that lost its fence leaves the roster, is drained, and the job ends for it", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2", "n3"))
		w.all(k, "n1", "n2", "n3")
		synctest.Wait()
		h1, h2 := w.watch(k, "n1"), w.watch(k, "n2")
		assert.Equal(t, "E426 node", told(w.lost(k, "n2", "n2")))
		one := <-h1
		require.NoError(t, one.err)
		assert.Equal(t, []string{"n2"}, one.gone)
		assert.Equal(t, "E426 node", told((<-h2).err))
		assert.Equal(t, []string{"n2"}, w.site.Drained())
		assert.Equal(t, []string{"record 7.0", "drain n2", "record 7.0", "end 7.0"}, w.site.Calls())
		e := w.entry(k)
		assert.Equal(t, enclave.VerdictRefused, e.Verdict)
		assert.Equal(t, "n2", e.Refusal.Node)
		s, err := w.v.Settled(t.Context(), k)
		require.NoError(t, err)
		assert.False(t, s.Requeued, "its ranks had begun")
	})
	bubble(t, "the same on all nodes is a fault of whoever flushed them all: nobody stays drained", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2", "n3"))
		w.all(k, "n1", "n2", "n3")
		for _, n := range []string{"n1", "n2", "n3"} {
			_ = w.lost(k, n, n)
		}
		assert.Empty(t, w.site.Drained())
		assert.Contains(t, w.alarms, enclave.Code("E530"))
	})
	bubble(t, "what could not be read drains nobody", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		assert.Equal(t, "E431 service", told(w.lost(k, "n1", "n1", func(r *enclave.Refusal) { r.Code, r.Fault, r.Check = "E431", enclave.FaultService, "" })))
		assert.Empty(t, w.site.Drained())
		assert.Contains(t, w.site.Calls(), "end 7.0")
	})
	bubble(t, "a node speaks for itself, in jobs of its own", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		assert.Equal(t, "E128 service", told(w.lost(k, "n3", "n1")), "in another's name")
		assert.Equal(t, "E128 request", told(w.lost(k, "n3", "n3")), "of a job that it is not in")
		assert.Equal(t, "E502 service", told(w.lost(enclave.JobKey{Cluster: "c1", Job: 99}, "n1", "n1")))
		assert.Equal(t, "E426 node", told(w.lost(k, "n1", "n1", func(r *enclave.Refusal) { r.Node = "n2" })))
		assert.Equal(t, []string{"n1"}, w.site.Drained())
	})
}
