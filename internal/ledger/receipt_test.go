package ledger_test

import (
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

// link is a receipt for the tests of the chain: its place and no more.
func link(sequence uint64, previous enclave.Digest) (ledger.Sealed, error) {
	b := fmt.Appendf(nil, "receipt %d after %s", sequence, previous)
	return ledger.Sealed{Digest: sha256.Sum256(b), Envelope: b}, nil
}

func ended(t *testing.T, l *ledger.Ledger, jobs ...uint32) {
	t.Helper()
	for _, j := range jobs {
		require.NoError(t, l.Register(t.Context(), plan(j, 0, 2001), noon))
		require.NoError(t, l.End(t.Context(), plan(j, 0, 2001).Job.JobKey, noon.Add(time.Duration(j)*time.Minute)))
	}
}

func TestReceiptsMakeOneChain(t *testing.T) {
	t.Parallel()
	l, path := open(t)
	ctx := t.Context()
	_, err := l.Head(ctx, "c1")
	require.ErrorIs(t, err, ledger.ErrNotFound)
	ended(t, l, 3, 1, 2)
	require.NoError(t, l.Register(ctx, plan(9, 0, 2001), noon))
	list, err := l.Unsealed(ctx, "c1", 10)
	require.NoError(t, err)
	require.Len(t, list, 3, "job 9 is not over")
	var before enclave.Digest
	for i, e := range list {
		assert.Equal(t, uint32(i+1), e.Job.Job, "the first to end comes first")
		r, bad := l.Seal(ctx, e.Job.JobKey, noon, link)
		require.NoError(t, bad)
		assert.Equal(t, uint64(i+1), r.Sequence)
		assert.Equal(t, before, r.Previous)
		before = r.Digest
	}
	again, err := ledger.Open(ctx, crash(t, path))
	require.NoError(t, err)
	defer func() { assert.NoError(t, again.Close()) }()
	head, err := again.Head(ctx, "c1")
	require.NoError(t, err)
	assert.Equal(t, before, head.Digest)
	assert.Nil(t, head.Envelope)
	list, err = again.Unsealed(ctx, "c1", 10)
	require.NoError(t, err)
	assert.Empty(t, list)
	list, err = again.Unended(ctx, "c1", 10)
	require.NoError(t, err)
	assert.Len(t, list, 1)
	chain, err := again.Receipts(ctx, "c1", 2, 10, 1<<20)
	require.NoError(t, err)
	assert.Len(t, chain, 2)
	chain, err = again.Receipts(ctx, "c1", 1, 10, 1)
	require.NoError(t, err)
	assert.Len(t, chain, 1, "one at least, whatever its size")
}

func TestSealingTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	ctx := t.Context()
	ended(t, l, 1)
	k := plan(1, 0, 2001).Job.JobKey
	first, err := l.Seal(ctx, k, noon, link)
	require.NoError(t, err)
	second, err := l.Seal(ctx, k, noon.Add(time.Hour), func(uint64, enclave.Digest) (ledger.Sealed, error) {
		t.Error("it was made again")
		return ledger.Sealed{}, nil
	})
	require.NoError(t, err)
	assert.Equal(t, first, second)
	of, err := l.ReceiptOf(ctx, k)
	require.NoError(t, err)
	assert.Equal(t, first, of)
}

func TestAReceiptThatCannotBeMadeLeavesNoGap(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	ctx := t.Context()
	ended(t, l, 1, 2)
	broken := errors.New("no key")
	_, err := l.Seal(ctx, plan(1, 0, 2001).Job.JobKey, noon, func(uint64, enclave.Digest) (ledger.Sealed, error) { return ledger.Sealed{}, broken })
	require.ErrorIs(t, err, broken)
	r, err := l.Seal(ctx, plan(2, 0, 2001).Job.JobKey, noon, link)
	require.NoError(t, err)
	assert.Equal(t, uint64(1), r.Sequence)
	list, err := l.Unsealed(ctx, "c1", 10)
	require.NoError(t, err)
	assert.Len(t, list, 1, "it is tried again")
	_, err = l.Seal(ctx, enclave.JobKey{Cluster: "c1", Job: 77}, noon, link)
	require.ErrorIs(t, err, ledger.ErrConflict, "a start that is not there gets none")
}

func TestReceiptsStay(t *testing.T) {
	t.Parallel()
	l, path := open(t)
	ctx := t.Context()
	ended(t, l, 1)
	k := plan(1, 0, 2001).Job.JobKey
	_, err := l.Seal(ctx, k, noon, link)
	require.NoError(t, err)
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	_, err = db.ExecContext(ctx, "DELETE FROM receipts")
	require.ErrorContains(t, err, "receipts never go")
	_, err = db.ExecContext(ctx, "UPDATE receipts SET seq=2")
	require.ErrorContains(t, err, "receipts never change")
	t.Run("one that is taken away by force is not made again", func(t *testing.T) {
		_, err := db.ExecContext(ctx, "DROP TRIGGER receipts_never_go; DELETE FROM receipts")
		require.NoError(t, err)
		_, err = l.Seal(ctx, k, noon, link)
		require.ErrorIs(t, err, ledger.ErrConflict)
	})
}

func TestEvidenceComesBackWithWhatItWasJudgedBy(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	ctx := t.Context()
	k := plan(1, 0, 2001).Job.JobKey
	by := enclave.Endorsements{Certificates: [][]byte{{1}, {2}}, Authorities: [][]byte{{2}, {3}}, CRLs: [][]byte{{4}}}
	for n := byte(1); n < 3; n++ {
		require.NoError(t, l.AddEvidence(ctx, ledger.Evidence{
			Key: k, Node: "n1", Purpose: 1, Nonce: enclave.Nonce{n}, Result: enclave.AttestationResult{Node: "n1", Endorsements: by}, At: noon,
		}))
	}
	list, err := l.EvidenceOf(ctx, k)
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, by, list[1].Result.Endorsements)
	b, err := l.Document(ctx, sha256.Sum256([]byte{4}))
	require.NoError(t, err)
	assert.Equal(t, []byte{4}, b)
	_, err = l.Document(ctx, enclave.Digest{})
	require.ErrorIs(t, err, ledger.ErrNotFound)
}

func TestCertificatesOfManyReportsAreStoredOnce(t *testing.T) {
	t.Parallel()
	l, path := open(t)
	ctx := t.Context()
	k := plan(1, 0, 2001).Job.JobKey
	table := drawn(4500)
	add := func(n byte, certificates []byte) {
		require.NoError(t, l.AddEvidence(ctx, ledger.Evidence{
			Key: k, Node: "n1", Purpose: 1, Nonce: enclave.Nonce{n}, Evidence: enclave.Evidence{Report: []byte{n}, Certificates: certificates}, At: noon,
		}))
	}
	add(1, table)
	add(2, table)
	add(3, nil)
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	var rows, documents int
	require.NoError(t, db.QueryRowContext(ctx, "SELECT sum(length(certificates)), (SELECT sum(length(body)) FROM documents) FROM evidence").Scan(&rows, &documents))
	assert.Zero(t, rows)
	assert.Equal(t, len(table), documents)
	_, err = db.ExecContext(ctx, "UPDATE evidence SET certificates=x'0102', delivered=NULL WHERE report=x'01'") // as an earlier release wrote it
	require.NoError(t, err)
	list, err := l.EvidenceOf(ctx, k)
	require.NoError(t, err)
	require.Len(t, list, 3)
	assert.Equal(t, []byte{1, 2}, list[0].Evidence.Certificates)
	assert.Equal(t, table, list[1].Evidence.Certificates)
	assert.Empty(t, list[2].Evidence.Certificates)
	last, err := l.LatestEvidence(ctx, "n1")
	require.NoError(t, err)
	assert.Empty(t, last.Evidence.Certificates)
}

func TestTheEnrolmentOfThatDayIsFound(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	ctx := t.Context()
	for i, chip := range []string{"old", "new"} {
		require.NoError(t, l.Enrol(ctx, ledger.Enrolment{Node: "n1", Chip: chip, Fingerprint: enclave.Digest{byte(i)}, Certificate: []byte{1}, At: noon.Add(time.Duration(i) * time.Hour)}))
	}
	require.NoError(t, l.Revoke(ctx, "n1", 0, "", noon.Add(2*time.Hour)))
	for minute, want := range map[int]string{0: "old", 59: "old", 60: "new", 119: "new"} {
		e, err := l.EnrolledAt(ctx, "n1", noon.Add(time.Duration(minute)*time.Minute))
		require.NoError(t, err)
		assert.Equal(t, want, e.Chip, "minute %d", minute)
	}
	for _, minute := range []int{-1, 120} {
		_, err := l.EnrolledAt(ctx, "n1", noon.Add(time.Duration(minute)*time.Minute))
		require.ErrorIs(t, err, ledger.ErrNotFound)
	}
}
