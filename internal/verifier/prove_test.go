package verifier_test

import (
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// prove is a node that proves itself outside of a job; change spoils what it sends.
func prove(t *testing.T, w *world, node string, change func(*api.ProveRequest)) error {
	t.Helper()
	n := w.nodes[node]
	nonce, err := w.v.EnrolNonce(t.Context(), api.EnrolNonceRequest{Node: node})
	require.NoError(t, err)
	r := api.ProveRequest{Nonce: nonce.Nonce, HPKE: n.Keys.HPKE}
	own := enclave.PublicKey(n.Signing.Public().(ed25519.PublicKey))
	r.Evidence, err = n.Evidence(api.EnrolClaim(nonce.Cluster, pki.KeyDigest(w.v.Public()), nonce.Policy, node, nonce.Nonce, enclave.NodeKeys{Ed25519: own, HPKE: r.HPKE}))
	require.NoError(t, err)
	change(&r)
	_, err = w.v.Prove(t.Context(), node, r)
	return err
}

func TestANodeProvesItselfBeforeItComesBack(t *testing.T) {
	t.Parallel()
	drained := func(t *testing.T, w *world) {
		t.Helper()
		k := w.register(job(7, "n1", "n2"))
		assert.Equal(t, "E210 node", told(w.broken(t.Context(), k, "n1", "E210", enclave.FaultNode)))
		require.Equal(t, []string{"n1"}, w.site.Drained())
	}
	sound := func(*api.ProveRequest) {}
	bubble(t, "after it has", func(t *testing.T, w *world) {
		drained(t, w)
		require.NoError(t, prove(t, w, "n1", sound))
		require.NoError(t, w.v.Return(t.Context(), "n1"))
		assert.Empty(t, w.site.Drained())
	})
	bubble(t, "not by a proof from before it was drained", func(t *testing.T, w *world) {
		require.NoError(t, prove(t, w, "n1", sound))
		<-time.After(time.Second)
		drained(t, w)
		assert.Equal(t, "E156 request", told(w.v.Return(t.Context(), "n1")))
		assert.Equal(t, []string{"n1"}, w.site.Drained())
	})
	bubble(t, "not by one that is a quarter of an hour old", func(t *testing.T, w *world) {
		drained(t, w)
		require.NoError(t, prove(t, w, "n1", sound))
		<-time.After(15*time.Minute + time.Second)
		assert.Equal(t, "E156 request", told(w.v.Return(t.Context(), "n1")))
	})
	bubble(t, "not by another node's, and not by one that failed", func(t *testing.T, w *world) {
		drained(t, w)
		require.NoError(t, prove(t, w, "n2", sound))
		w.nodes["n1"].Fail = "tcb_minimum"
		require.ErrorContains(t, prove(t, w, "n1", sound), "tcb_minimum")
		assert.Equal(t, "E156 request", told(w.v.Return(t.Context(), "n1")))
		assert.Equal(t, []string{"n1"}, w.site.Drained())
	})
	bubble(t, "not by evidence that was sent before, or of another chip, or by a stranger", func(t *testing.T, w *world) {
		drained(t, w)
		var first api.ProveRequest
		require.NoError(t, prove(t, w, "n2", func(r *api.ProveRequest) { first = *r }))
		_, err := w.v.Prove(t.Context(), "n2", first)
		assert.Equal(t, "E126 service", told(err), "a nonce is good once")
		require.Error(t, prove(t, w, "n1", func(r *api.ProveRequest) { r.Evidence = first.Evidence }), "another node's")
		w.nodes["n1"].Chip = w.nodes["n2"].Chip
		require.ErrorContains(t, prove(t, w, "n1", sound), "chip")
		_, err = w.v.Revoke(t.Context(), 0, api.RevokeRequest{Node: "n1"})
		require.NoError(t, err)
		assert.Equal(t, "E130 service", told(prove(t, w, "n1", sound)), "one that is not enrolled")
		assert.Equal(t, "E156 request", told(w.v.Return(t.Context(), "n1")))
	})
}
