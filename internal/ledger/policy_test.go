package ledger_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

func TestPoliciesAreKeptByTheirDigest(t *testing.T) {
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	p := ledger.Policy{Digest: enclave.Digest{1}, Name: "default", Text: "name: default\n", At: time.UnixMilli(7).UTC()}
	require.NoError(t, l.AddPolicy(t.Context(), p))
	again := p
	again.Name, again.At = "other", time.UnixMilli(9)
	require.NoError(t, l.AddPolicy(t.Context(), again))
	got, err := l.Policy(t.Context(), p.Digest)
	require.NoError(t, err)
	assert.Equal(t, p, got, "the first word stays")
	_, err = l.Policy(t.Context(), enclave.Digest{2})
	assert.ErrorIs(t, err, ledger.ErrNotFound)
}

func TestLatestEvidenceOfANode(t *testing.T) {
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	_, err = l.LatestEvidence(t.Context(), "n1")
	require.ErrorIs(t, err, ledger.ErrNotFound)
	for i, node := range []string{"n1", "n1", "n2"} {
		require.NoError(t, l.AddEvidence(t.Context(), ledger.Evidence{
			Key: enclave.JobKey{Cluster: "c1", Job: uint32(i)}, Node: node, Purpose: 3, Nonce: enclave.Nonce{byte(i)},
			Evidence: enclave.Evidence{Report: []byte{byte(i)}, Certificates: []byte{9}, Provider: "sev_guest"},
			Result:   enclave.AttestationResult{Node: node, Status: enclave.StatusContraindicated}, At: time.UnixMilli(int64(i)),
		}))
	}
	e, err := l.LatestEvidence(t.Context(), "n1")
	require.NoError(t, err)
	assert.Equal(t, []byte{1}, e.Evidence.Report)
	assert.Equal(t, uint32(1), e.Key.Job)
	assert.Equal(t, enclave.Nonce{1}, e.Nonce)
	assert.Equal(t, enclave.StatusContraindicated, e.Result.Status, "whatever was said of it")
}
