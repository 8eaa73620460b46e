package ledger_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

// lineage stores evidence of n1: what it started with, and what it renewed with, under other keys.
func lineage(t *testing.T, l *ledger.Ledger, k enclave.JobKey) (started, renewed ledger.Evidence) {
	t.Helper()
	started = ledger.Evidence{Key: k, Node: "n1", Purpose: 1, Nonce: enclave.Nonce{1}, Keys: enclave.NodeKeys{HPKE: []byte{1}}, At: noon}
	started.Result = enclave.AttestationResult{Node: "n1", Status: enclave.StatusAffirming, TCB: "4/0/24/219", Checks: []enclave.Check{}}
	renewed = started
	renewed.Purpose, renewed.Nonce, renewed.Keys.HPKE = 2, enclave.Nonce{2}, []byte{2}
	renewed.Result.Status = enclave.StatusContraindicated
	require.NoError(t, l.AddEvidence(t.Context(), started))
	require.NoError(t, l.AddRenewal(t.Context(), renewed, enclave.Digest{2}, false))
	return started, renewed
}

func TestAMembersKeysAndResultAreOfTheEvidenceThatItNames(t *testing.T) {
	t.Parallel()
	l, path := open(t)
	ctx := t.Context()
	require.NoError(t, l.Register(ctx, plan(1, 0, 2001), noon))
	k := plan(1, 0, 2001).Job.JobKey
	e, _ := lineage(t, l, k)
	require.NoError(t, l.Decide(ctx, k, ledger.Verdict{Verdict: enclave.VerdictProtected, Members: []ledger.Member{
		{Node: "n1", Nonce: &e.Nonce, Result: &enclave.AttestationResult{Status: enclave.StatusAffirming}}, {Node: "n2"},
	}}, noon))
	require.NoError(t, l.Ready(ctx, k, map[string]any{"n1": "up"}, noon))

	again, err := ledger.Open(ctx, crash(t, path))
	require.NoError(t, err)
	defer func() { assert.NoError(t, again.Close()) }()
	members, err := again.Members(ctx, k)
	require.NoError(t, err)
	require.Len(t, members, 2)
	assert.Equal(t, ledger.Member{Node: "n1", Keys: &e.Keys, Result: &e.Result}, members[0].Member)
	assert.Equal(t, `"up"`, string(members[0].Ready))
	assert.Equal(t, ledger.Member{Node: "n2"}, members[1].Member, "it named no evidence")
	one, err := again.Member(ctx, k, "n1")
	require.NoError(t, err)
	assert.Equal(t, members[0], one)
	last, err := again.LastMember(ctx, "n1")
	require.NoError(t, err)
	assert.Equal(t, members[0], last)
	shares, err := again.Shares(ctx, "c1", ledger.Scope{All: true}, ledger.Cursor{}, 10)
	require.NoError(t, err)
	require.Len(t, shares, 1)
	assert.Equal(t, 1, shares[0].Affirmed)
}

func TestNodesThatAnEarlierReleaseAffirmedAreCounted(t *testing.T) {
	t.Parallel()
	l, path := open(t)
	ctx := t.Context()
	require.NoError(t, l.Register(ctx, plan(1, 0, 2001), noon))
	of := func(s enclave.Status) *enclave.AttestationResult { return &enclave.AttestationResult{Status: s} }
	require.NoError(t, l.Decide(ctx, plan(1, 0, 2001).Job.JobKey, ledger.Verdict{Verdict: enclave.VerdictRefused, Members: []ledger.Member{
		{Node: "n1", Result: of(enclave.StatusAffirming)}, {Node: "n2", Result: of(enclave.StatusContraindicated)}, {Node: "n3"},
	}}, noon))
	affirmed := func() int {
		shares, err := l.Shares(ctx, "c1", ledger.Scope{All: true}, ledger.Cursor{}, 10)
		require.NoError(t, err)
		require.Len(t, shares, 1)
		return shares[0].Affirmed
	}
	assert.Equal(t, 1, affirmed())
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(ctx, "UPDATE members SET affirmed=NULL") // as it left them
	require.NoError(t, err)
	assert.Equal(t, 1, affirmed())
}

func TestWhatARowSaysOfAMemberItselfCountsFirst(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	ctx := t.Context()
	require.NoError(t, l.Register(ctx, plan(1, 0, 2001), noon))
	k := plan(1, 0, 2001).Job.JobKey
	e, other := lineage(t, l, k)
	decide := func(m ledger.Member) ledger.MemberEntry {
		require.NoError(t, l.Decide(ctx, k, ledger.Verdict{Verdict: enclave.VerdictRefused, Members: []ledger.Member{m}}, noon))
		got, err := l.Member(ctx, k, "n1")
		require.NoError(t, err)
		return got
	}
	refusal := enclave.Refuse("E221", enclave.FaultNode, "measurement")
	assert.Equal(t, ledger.Member{Node: "n1", Keys: &e.Keys, Result: &e.Result}, decide(ledger.Member{Node: "n1", Nonce: &e.Nonce}).Member)
	assert.Equal(t, refusal, decide(ledger.Member{Node: "n1", Refusal: refusal}).Refusal)
	after := decide(ledger.Member{Node: "n1", Keys: &other.Keys, Result: &other.Result})
	assert.Equal(t, ledger.Member{Node: "n1", Keys: &other.Keys, Result: &other.Result, Refusal: refusal}, after.Member,
		"as a release before this one wrote it, and as a start that is refused does")
}
