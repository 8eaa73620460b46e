package ledger_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

// size is how many bytes of certificates and documents the file holds.
func size(t *testing.T, path string) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	require.NoError(t, db.QueryRowContext(t.Context(),
		"SELECT coalesce((SELECT sum(length(body)) FROM documents), 0) + coalesce((SELECT sum(length(certificates)) FROM evidence), 0)").Scan(&n))
	return n
}

func TestPaddingFillsNoDisk(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	vcek, ask := drawn(1300), drawn(1600)
	padded := func(n byte, key enclave.JobKey) ledger.Evidence {
		e := ledger.Evidence{
			Key: key, Node: "n1", Purpose: 2, Epoch: 1, Nonce: enclave.Nonce{n}, At: noon,
			Evidence: enclave.Evidence{Report: []byte{n}, Certificates: append([]byte{n}, drawn(200_000)...), Provider: string(drawn(100_000))},
		}
		e.Result.Endorsements.Certificates = [][]byte{vcek, ask}
		return e
	}
	whole := append(append([]byte{}, vcek...), ask...)
	t.Run("of renewals that wrap the same certificates otherwise each time", func(t *testing.T) {
		t.Parallel()
		l, path := open(t)
		k := plan(7, 0, 2001).Job.JobKey
		for n := byte(1); n <= 9; n++ {
			require.NoError(t, l.AddRenewal(ctx, padded(n, k), enclave.Digest{n}, true))
		}
		assert.Equal(t, len(whole), size(t, path))
		list, err := l.EvidenceOf(ctx, k)
		require.NoError(t, err)
		require.Len(t, list, 2)
		assert.Equal(t, whole, list[1].Evidence.Certificates)
		assert.Equal(t, [][]byte{vcek, ask}, list[1].Result.Endorsements.Certificates)
		assert.LessOrEqual(t, len(list[1].Evidence.Provider), 64)
	})
	t.Run("of what is no job's, one in the place of another", func(t *testing.T) {
		t.Parallel()
		l, path := open(t)
		none := enclave.JobKey{Cluster: "c1"}
		for n := byte(1); n <= 9; n++ {
			require.NoError(t, l.AddUnbound(ctx, padded(n, none), enclave.Nonce{n - 1}))
		}
		assert.Equal(t, len(whole), size(t, path))
		last, err := l.LatestEvidence(ctx, "n1")
		require.NoError(t, err)
		assert.Equal(t, []byte{9}, last.Evidence.Report)
		assert.Equal(t, whole, last.Evidence.Certificates)
	})
	t.Run("and takes no job's evidence away", func(t *testing.T) {
		t.Parallel()
		l, _ := open(t)
		k := plan(7, 0, 2001).Job.JobKey
		require.NoError(t, l.AddEvidence(ctx, padded(1, k)))
		require.NoError(t, l.AddUnbound(ctx, padded(2, enclave.JobKey{Cluster: "c1"}), enclave.Nonce{1}))
		list, err := l.EvidenceOf(ctx, k)
		require.NoError(t, err)
		assert.Len(t, list, 1)
	})
	t.Run("certificates that could not be read stay as they came", func(t *testing.T) {
		t.Parallel()
		l, _ := open(t)
		k := plan(7, 0, 2001).Job.JobKey
		e := padded(1, k)
		e.Result.Endorsements.Certificates = nil
		require.NoError(t, l.AddEvidence(ctx, e))
		list, err := l.EvidenceOf(ctx, k)
		require.NoError(t, err)
		assert.Equal(t, e.Evidence.Certificates, list[0].Evidence.Certificates, "or nobody could say again why")
	})
}

func TestDocumentsThatNobodyNamesLeaveWithTheUpgrade(t *testing.T) {
	t.Parallel()
	l, path := open(t)
	ctx := t.Context()
	k := plan(7, 0, 2001).Job.JobKey
	e := ledger.Evidence{Key: k, Node: "n1", Purpose: 1, Nonce: enclave.Nonce{1}, At: noon}
	e.Result.Endorsements = enclave.Endorsements{Certificates: [][]byte{{1}}, Authorities: [][]byte{{2}}, CRLs: [][]byte{{3}}}
	require.NoError(t, l.AddEvidence(ctx, e))
	raw := ledger.Evidence{Key: k, Node: "n2", Purpose: 1, Nonce: enclave.Nonce{2}, Evidence: enclave.Evidence{Certificates: []byte("no certificate")}, At: noon}
	require.NoError(t, l.AddEvidence(ctx, raw))
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(ctx, "INSERT INTO documents VALUES ('left', zeroblob(250000)); ALTER TABLE evidence DROP COLUMN machine; ALTER TABLE evidence DROP COLUMN unjudged; ALTER TABLE members DROP COLUMN nonce; ALTER TABLE members DROP COLUMN affirmed; PRAGMA user_version = 6") // as an earlier release left it
	require.NoError(t, err)
	again, err := ledger.Open(ctx, path)
	require.NoError(t, err)
	defer func() { assert.NoError(t, again.Close()) }()
	assert.Equal(t, 3+len("no certificate"), size(t, path))
	list, err := again.EvidenceOf(ctx, k)
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, e.Result.Endorsements, list[0].Result.Endorsements)
	assert.Equal(t, raw.Evidence.Certificates, list[1].Evidence.Certificates)
}
