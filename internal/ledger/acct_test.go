package ledger_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

func TestShares(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	ctx := t.Context()
	for i := range uint32(5) {
		require.NoError(t, l.Register(ctx, plan(i+1, 0, 2001+i%2), noon.Add(time.Duration(i/2)*time.Minute)))
	}
	first := enclave.JobKey{Cluster: "c1", Job: 1}
	started := noon.Add(2 * time.Second)
	require.NoError(t, l.Decide(ctx, first, ledger.Verdict{Verdict: enclave.VerdictProtected, Started: &started, Members: []ledger.Member{
		{Node: "n1", Result: &enclave.AttestationResult{Node: "n1", Status: enclave.StatusAffirming}},
		{Node: "n2", Result: &enclave.AttestationResult{Node: "n2", Status: enclave.StatusContraindicated}},
	}}, started))
	counted := func(n uint64) any {
		return map[string]any{"network": map[string]uint64{"tunnel_bytes": n, "outside_bytes": 3}}
	}
	require.NoError(t, l.Teardown(ctx, first, "n1", counted(40), started))
	require.NoError(t, l.Teardown(ctx, first, "n2", counted(2), started))
	second := enclave.JobKey{Cluster: "c1", Job: 2}
	require.NoError(t, l.Decide(ctx, second, ledger.Verdict{Verdict: enclave.VerdictProtected, Members: []ledger.Member{{Node: "n1"}, {Node: "n2"}}}, started))
	require.NoError(t, l.Teardown(ctx, second, "n1", counted(math.MaxUint64), started))
	require.NoError(t, l.Teardown(ctx, second, "n2", counted(math.MaxInt64), started))

	all, err := l.Shares(ctx, "c1", ledger.Scope{All: true}, ledger.Cursor{}, 10)
	require.NoError(t, err)
	require.Len(t, all, 5)
	assert.Equal(t, 1, all[0].Affirmed)
	assert.EqualValues(t, 42, all[0].TunnelBytes)
	assert.EqualValues(t, 6, all[0].OutsideBytes)
	assert.Nil(t, all[0].Receipt)
	assert.Equal(t, &started, all[0].Started)
	assert.Equal(t, uint64(9_000_000_000_000_000_000), all[1].TunnelBytes, "nonsense spoils no other line")
	t.Run("pages meet without a gap and without a line twice", func(t *testing.T) {
		t.Parallel()
		var got []uint32
		after := ledger.Cursor{}
		for {
			page, err := l.Shares(ctx, "c1", ledger.Scope{All: true}, after, 2)
			require.NoError(t, err)
			for _, s := range page {
				got = append(got, s.Job.Job)
				after = ledger.Cursor{At: s.Registered, Job: s.Job.Job, Restart: s.Job.Restart}
			}
			if len(page) < 2 {
				break
			}
		}
		assert.Equal(t, []uint32{1, 2, 3, 4, 5}, got)
	})
	t.Run("only what the scope allows", func(t *testing.T) {
		t.Parallel()
		for _, c := range []struct {
			who  ledger.Scope
			want int
		}{
			{ledger.Scope{UID: 2001}, 3},
			{ledger.Scope{UID: 2002}, 2},
			{ledger.Scope{UID: 7}, 0},
			{ledger.Scope{UID: 7, Accounts: []string{"onc"}}, 5},
			{ledger.Scope{UID: 7, Accounts: []string{"onc' OR 1=1 --"}}, 0},
		} {
			got, err := l.Shares(ctx, "c1", c.who, ledger.Cursor{}, 10)
			require.NoError(t, err)
			assert.Len(t, got, c.want, "%+v", c.who)
		}
		other, err := l.Shares(ctx, "c2", ledger.Scope{All: true}, ledger.Cursor{}, 10)
		require.NoError(t, err)
		assert.Empty(t, other, "another cluster's")
	})
}
