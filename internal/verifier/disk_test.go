package verifier_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// wish is a node's wish to be enrolled with a key.
func (w *world) wish(node string, key ed25519.PrivateKey) api.EnrolRequest {
	w.t.Helper()
	n := w.nodes[node]
	csr, err := pki.Request(node, key)
	require.NoError(w.t, err)
	nonce, err := w.v.EnrolNonce(w.t.Context(), api.EnrolNonceRequest{Node: node})
	require.NoError(w.t, err)
	r := api.EnrolRequest{Node: node, Nonce: nonce.Nonce, HPKE: n.Keys.HPKE, CSR: csr}
	c := api.EnrolClaim(nonce.Cluster, pki.KeyDigest(w.v.Public()), nonce.Policy, node, nonce.Nonce, r.EnrolKeys(enclave.PublicKey(key.Public().(ed25519.PublicKey))))
	r.Evidence, err = n.Evidence(c)
	require.NoError(w.t, err)
	return r
}

// stored counts what the ledger's file holds of evidence, and of documents.
func (w *world) stored() (rows, documents int) {
	w.t.Helper()
	db := w.behind()
	defer func() { _ = db.Close() }()
	require.NoError(w.t, db.QueryRowContext(w.t.Context(), "SELECT (SELECT count(*) FROM evidence), (SELECT count(*) FROM documents)").Scan(&rows, &documents))
	return rows, documents
}

func pad(e *enclave.Evidence) {
	e.Certificates = make([]byte, 200_000)
	_, _ = rand.Read(e.Certificates) // never fails
}

func TestNobodyFillsTheDisk(t *testing.T) {
	t.Parallel()
	bubble(t, "a node that fails to prove itself leaves nothing", func(t *testing.T, w *world) {
		w.nodes["n1"].Fail = "tcb_minimum"
		for range 3 {
			require.Error(t, prove(t, w, "n1", func(r *api.ProveRequest) { pad(&r.Evidence) }))
		}
		rows, documents := w.stored()
		assert.Zero(t, rows)
		assert.Zero(t, documents)
	})
	bubble(t, "one that does leaves its latest proof", func(t *testing.T, w *world) {
		for range 3 {
			require.NoError(t, prove(t, w, "n1", func(r *api.ProveRequest) { pad(&r.Evidence) }))
		}
		require.NoError(t, prove(t, w, "n2", func(*api.ProveRequest) {}))
		rows, documents := w.stored()
		assert.Equal(t, 2, rows)
		assert.Zero(t, documents)
	})
	bubble(t, "a wish that is told again is there once, and goes with its hour", func(t *testing.T, w *world) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		ask := func(key ed25519.PrivateKey) {
			r := w.wish("n1", key)
			pad(&r.Evidence)
			_, err := w.v.EnrolRequest(t.Context(), "", r)
			require.NoError(t, err)
		}
		for range 5 {
			ask(key)
		}
		rows, documents := w.stored()
		assert.Equal(t, 1, rows)
		assert.Zero(t, documents)
		for range 3 {
			_, other, err := ed25519.GenerateKey(rand.Reader)
			require.NoError(t, err)
			ask(other)
		}
		rows, _ = w.stored()
		assert.Equal(t, 4, rows, "each wish that is pending has its own")
		<-time.After(61 * time.Minute)
		ask(key)
		rows, _ = w.stored()
		assert.Equal(t, 1, rows)
	})
	bubble(t, "the evidence of a wish that was granted stays", func(t *testing.T, w *world) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		ticket, err := w.v.EnrolRequest(t.Context(), "", w.wish("n1", key))
		require.NoError(t, err)
		_, err = w.v.EnrolApprove(t.Context(), 0, api.ApproveRequest{Node: "n1", Fingerprint: ticket.Fingerprint, ChipID: w.nodes["n1"].Chip})
		require.NoError(t, err)
		_, err = w.v.EnrolRequest(t.Context(), "", w.wish("n1", key))
		require.NoError(t, err)
		rows, _ := w.stored()
		assert.Equal(t, 2, rows)
	})
	bubble(t, "renewals keep to their pace", func(t *testing.T, w *world) {
		k, other := w.register(job(7, "n1")), w.register(job(8, "n2"))
		w.all(k, "n1")
		w.all(other, "n2")
		var refused error
		for range 20 {
			if err := w.renew(k, "n1"); err != nil {
				refused = err
			}
		}
		assert.Equal(t, "E124 service", told(refused))
		list, err := w.settings.Ledger.Renewals(t.Context(), k)
		require.NoError(t, err)
		assert.Len(t, list, 8)
		require.NoError(t, w.renew(other, "n2"), "another node's is its own")
		for range 12 { // a node that tries again behind a lost answer is not late
			<-time.After(time.Duration(w.settings.Config.Limits.RenewSeconds) * time.Second / 2)
			require.NoError(t, w.renew(k, "n1"))
			require.NoError(t, w.renew(k, "n1"))
		}
	})
}
