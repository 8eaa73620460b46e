package ledger_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

func TestEveryEpochIsKept(t *testing.T) {
	t.Parallel()
	l, path := open(t)
	ctx := t.Context()
	k := plan(7, 0, 2001).Job.JobKey
	first := ledger.Roster{
		Key: k, Epoch: 1, Header: []byte("h1"), Signature: []byte("s1"), At: noon,
		Peers: []enclave.Peer{{Node: "n1", Endpoint: netip.MustParseAddrPort("10.0.0.1:51820")}, {Node: "n2", Endpoint: netip.MustParseAddrPort("10.0.0.2:51820")}},
	}
	second := ledger.Roster{
		Key: k, Epoch: 2, Header: []byte("h2"), Signature: []byte("s2"), Peers: first.Peers[:1], At: noon.Add(time.Hour),
		Gone: "n2", Refusal: enclave.Refuse("E235", enclave.FaultNode, "old firmware"),
	}
	require.Error(t, l.AddRoster(ctx, first), "of a job that is not registered")
	require.NoError(t, l.Register(ctx, plan(7, 0, 2001), noon))
	require.NoError(t, l.AddRoster(ctx, first))
	require.NoError(t, l.AddRoster(ctx, second))
	require.Error(t, l.AddRoster(ctx, second), "an epoch is signed once")

	again, err := ledger.Open(ctx, crash(t, path))
	require.NoError(t, err)
	defer func() { assert.NoError(t, again.Close()) }()
	list, err := again.Rosters(ctx, k)
	require.NoError(t, err)
	assert.Equal(t, []ledger.Roster{first, second}, list)
}

func TestOnlyStartsThatRunAreRunning(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	ctx := t.Context()
	started := noon.Add(time.Minute)
	for job := uint32(1); job <= 4; job++ {
		require.NoError(t, l.Register(ctx, plan(job, 0, 2001), noon))
		if job > 1 {
			require.NoError(t, l.Decide(ctx, plan(job, 0, 2001).Job.JobKey, ledger.Verdict{Verdict: enclave.VerdictProtected, Started: &started}, noon))
		}
	}
	require.NoError(t, l.End(ctx, plan(2, 0, 2001).Job.JobKey, noon))
	require.NoError(t, l.Decide(ctx, plan(3, 0, 2001).Job.JobKey, ledger.Verdict{
		Verdict: enclave.VerdictRefused, Refusal: enclave.Refuse("E235", enclave.FaultNode, "old firmware"),
	}, noon))
	list, err := l.Running(ctx, "c1")
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, uint32(3), list[0].Job.Job)
	assert.NotNil(t, list[0].Refusal, "one that was refused is not over before Slurm says so")
	assert.Equal(t, uint32(4), list[1].Job.Job)
	list, err = l.Running(ctx, "another")
	require.NoError(t, err)
	assert.Empty(t, list)
}

func TestRenewalsOfDaysStaySmall(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	ctx := t.Context()
	k := plan(7, 0, 2001).Job.JobKey
	renew := func(node string, n byte) ledger.Evidence {
		return ledger.Evidence{
			Key: k, Node: node, Purpose: 2, Epoch: 1, Nonce: enclave.Nonce{n},
			Evidence: enclave.Evidence{Report: []byte{n}, Certificates: []byte{}}, At: noon.Add(time.Duration(n) * time.Minute),
		}
	}
	start := renew("n1", 100)
	start.Purpose = 1
	require.NoError(t, l.AddEvidence(ctx, start))
	for n := byte(1); n <= 9; n++ {
		good := n != 5
		require.NoError(t, l.AddRenewal(ctx, renew("n1", n), enclave.Digest{n}, good))
	}
	require.NoError(t, l.AddRenewal(ctx, renew("n2", 20), enclave.Digest{20}, true))
	t.Run("each one has its row", func(t *testing.T) {
		list, err := l.Renewals(ctx, k)
		require.NoError(t, err)
		require.Len(t, list, 10)
		assert.Equal(t, ledger.Renewal{Node: "n1", Epoch: 1, Nonce: enclave.Nonce{5}, Digest: enclave.Digest{5}, At: noon.Add(5 * time.Minute)}, list[4])
		assert.True(t, list[5].Good)
	})
	t.Run("they are counted by node, the failed one not", func(t *testing.T) {
		sums, err := l.RenewalSums(ctx, k)
		require.NoError(t, err)
		assert.Equal(t, map[string]ledger.RenewalSum{
			"n1": {Times: 8, Last: noon.Add(9 * time.Minute)}, "n2": {Times: 1, Last: noon.Add(20 * time.Minute)},
		}, sums)
	})
	t.Run("whole are the start's, the first, the last, and the one that failed", func(t *testing.T) {
		list, err := l.EvidenceOf(ctx, k)
		require.NoError(t, err)
		var whole []byte
		for _, e := range list {
			whole = append(whole, e.Evidence.Report...)
		}
		assert.Equal(t, []byte{100, 1, 5, 9, 20}, whole)
	})
	t.Run("a nonce whose evidence is no longer kept can't come again", func(t *testing.T) {
		require.Error(t, l.AddRenewal(ctx, renew("n1", 3), enclave.Digest{3}, true))
		require.Error(t, l.AddRenewal(ctx, renew("n1", 100), enclave.Digest{3}, true), "nor one of the start")
	})
}
