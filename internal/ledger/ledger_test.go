package ledger_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

var evening = noon.Add(9 * time.Hour)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func open(t *testing.T) (*ledger.Ledger, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, err := ledger.Open(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	return l, path
}

func plan(job, restart, uid uint32) ledger.Plan {
	return ledger.Plan{Job: enclave.Job{
		JobKey: enclave.JobKey{Cluster: "c1", Job: job, Restart: restart}, UID: uid, User: "alice", Account: "onc",
		Nodes: []string{"n1", "n2"}, Batch: true,
	}, Tenant: enclave.Tenant{Name: "oncology"}, Policy: enclave.Digest{7}}
}

// crash copies the files as they lie on the disk, as a machine that lost power leaves them.
func crash(t *testing.T, path string) string {
	t.Helper()
	dir := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "ledger.db"+suffix), b, 0o600))
	}
	return filepath.Join(dir, "ledger.db")
}

func TestWhatWasWrittenOutlivesACrash(t *testing.T) {
	t.Parallel()
	l, path := open(t)
	ctx := t.Context()
	p := plan(4711, 1, 2001)
	require.NoError(t, l.Register(ctx, p, noon))
	started := noon.Add(time.Second)
	refusal := enclave.Refuse("E221", enclave.FaultNode, "measurement")
	require.NoError(t, l.Decide(ctx, p.Job.JobKey, ledger.Verdict{
		Verdict: enclave.VerdictSimulated, Weak: true, Header: []byte("h"), Signature: []byte("s"), Started: &started,
		Members: []ledger.Member{
			{Node: "n1", Keys: &enclave.NodeKeys{HPKE: []byte{1}}, Result: &enclave.AttestationResult{Node: "n1", Status: enclave.StatusAffirming}},
			{Node: "n2", Refusal: refusal},
		},
	}, noon))
	require.NoError(t, l.Ready(ctx, p.Job.JobKey, map[string]any{"n1": map[string]int{"mesh": 3}}, noon))
	require.NoError(t, l.Teardown(ctx, p.Job.JobKey, "n1", map[string]bool{"closed": true}, noon))
	require.NoError(t, l.AddEvidence(ctx, ledger.Evidence{Key: p.Job.JobKey, Node: "n1", Purpose: 1, Epoch: 1, Nonce: enclave.Nonce{9}, Evidence: enclave.Evidence{Report: []byte{1}}, At: noon}))
	_, err := l.AddErrand(ctx, "comment", []byte("x"), noon)
	require.NoError(t, err)

	again, err := ledger.Open(ctx, crash(t, path))
	require.NoError(t, err)
	defer func() { assert.NoError(t, again.Close()) }()
	e, err := again.Entry(ctx, p.Job.JobKey)
	require.NoError(t, err)
	assert.Equal(t, p, e.Plan)
	assert.Equal(t, enclave.VerdictSimulated, e.Verdict)
	assert.True(t, e.Weak)
	assert.Equal(t, started, *e.Started)
	assert.Nil(t, e.Ended)
	members, err := again.Members(ctx, p.Job.JobKey)
	require.NoError(t, err)
	require.Len(t, members, 2)
	assert.JSONEq(t, `{"mesh":3}`, string(members[0].Ready))
	assert.JSONEq(t, `{"closed":true}`, string(members[0].Teardown))
	assert.Equal(t, enclave.StatusAffirming, members[0].Result.Status)
	assert.Equal(t, refusal, members[1].Refusal)
	ev, err := again.EvidenceOf(ctx, p.Job.JobKey)
	require.NoError(t, err)
	require.Len(t, ev, 1)
	errands, err := again.Errands(ctx, noon, evening, 10)
	require.NoError(t, err)
	assert.Len(t, errands, 1)
}

func TestRegisteringTwice(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	p := plan(1, 0, 2001)
	require.NoError(t, l.Register(t.Context(), p, noon))
	require.NoError(t, l.Register(t.Context(), p, noon.Add(time.Hour)), "the same again")
	p.Job.Nodes = []string{"n1"}
	require.ErrorIs(t, l.Register(t.Context(), p, noon), ledger.ErrConflict)
	e, err := l.Entry(t.Context(), p.Job.JobKey)
	require.NoError(t, err)
	assert.Len(t, e.Job.Nodes, 2, "the first plan stands")
	assert.Equal(t, noon, e.Registered)
}

func TestADecisionIsWholeOrNothing(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	k := plan(1, 0, 2001).Job.JobKey
	err := l.Decide(t.Context(), k, ledger.Verdict{Verdict: enclave.VerdictProtected, Members: []ledger.Member{{Node: "n1"}}}, noon)
	require.ErrorIs(t, err, ledger.ErrNotFound)
	members, err := l.Members(t.Context(), k)
	require.NoError(t, err)
	assert.Empty(t, members)
	require.Error(t, l.Ready(t.Context(), k, map[string]any{"n1": nil}, noon), "a node of no job")
}

func TestANonceStandsOnce(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	e := ledger.Evidence{Node: "n1", Nonce: enclave.Nonce{1}, At: noon}
	require.NoError(t, l.AddEvidence(t.Context(), e))
	require.Error(t, l.AddEvidence(t.Context(), e))
}

func TestUsersSeeTheirOwn(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	for i := range uint32(4) {
		require.NoError(t, l.Register(t.Context(), plan(i+1, 0, 2001+i%2), noon.Add(time.Duration(i)*time.Minute)))
	}
	require.NoError(t, l.Register(t.Context(), plan(4, 1, 2002), noon.Add(time.Hour)))
	mine, err := l.Entries(t.Context(), ledger.Scope{UID: 2001}, 10)
	require.NoError(t, err)
	require.Len(t, mine, 2)
	assert.Equal(t, uint32(3), mine[0].Job.Job, "latest first")
	all, err := l.Entries(t.Context(), ledger.Scope{All: true}, 3)
	require.NoError(t, err)
	assert.Len(t, all, 3)
	theirs, err := l.Entries(t.Context(), ledger.Scope{UID: 1, Accounts: []string{"chem", "onc"}}, 10)
	require.NoError(t, err)
	assert.Len(t, theirs, 5, "a coordinator sees the account's")
	none, err := l.Entries(t.Context(), ledger.Scope{UID: 1, Accounts: []string{"on", "ONC", "%"}}, 10)
	require.NoError(t, err)
	assert.Empty(t, none)
	last, err := l.Latest(t.Context(), "c1", 4)
	require.NoError(t, err)
	assert.Equal(t, uint32(1), last.Job.Restart)
	_, err = l.Latest(t.Context(), "c2", 4)
	require.ErrorIs(t, err, ledger.ErrNotFound)
}

func TestRefusalsAreCountedByFault(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	for i, f := range []enclave.Fault{enclave.FaultNode, enclave.FaultPolicy, enclave.FaultService} {
		p := plan(5, uint32(i), 2001)
		require.NoError(t, l.Register(t.Context(), p, noon))
		require.NoError(t, l.Decide(t.Context(), p.Job.JobKey, ledger.Verdict{Verdict: enclave.VerdictRefused, Refusal: enclave.Refuse("E501", f, "x")}, noon))
		require.NoError(t, l.End(t.Context(), p.Job.JobKey, noon))
	}
	n, err := l.Refusals(t.Context(), "c1", 5, enclave.FaultNode, enclave.FaultService)
	require.NoError(t, err)
	assert.Equal(t, 2, n)
}

func TestAJobNumberThatComesAgain(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	register := func(restart, uid uint32, at time.Time) enclave.JobKey {
		p := plan(5, restart, uid)
		require.NoError(t, l.Register(t.Context(), p, at))
		require.NoError(t, l.Decide(t.Context(), p.Job.JobKey, ledger.Verdict{Verdict: enclave.VerdictRefused, Refusal: enclave.Refuse("E501", enclave.FaultService, "x")}, at))
		return p.Job.JobKey
	}
	count := func() int {
		n, err := l.Refusals(t.Context(), "c1", 5, enclave.FaultService)
		require.NoError(t, err)
		return n
	}
	register(2, 2001, noon)
	register(3, 2001, noon)
	assert.Equal(t, 2, count(), "the control")
	k := register(1, 2001, noon.Add(-time.Hour)) // of the next job, and the clock was set back
	latest, err := l.Latest(t.Context(), "c1", 5)
	require.NoError(t, err)
	assert.Equal(t, k, latest.Job.JobKey)
	assert.Equal(t, 1, count())
	register(4, 2002, noon)
	assert.Equal(t, 1, count(), "of another user's job")
}

func TestEnrolmentsLeaveATrail(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	ctx := t.Context()
	_, err := l.Enrolled(ctx, "n1")
	require.ErrorIs(t, err, ledger.ErrNotFound)
	require.NoError(t, l.Enrol(ctx, ledger.Enrolment{Node: "n1", Chip: "aa", Fingerprint: enclave.Digest{1}, Certificate: []byte{1}, At: noon}))
	require.NoError(t, l.Enrol(ctx, ledger.Enrolment{Node: "n1", Chip: "bb", Fingerprint: enclave.Digest{2}, Certificate: []byte{2}, By: 5, At: noon}))
	e, err := l.Enrolled(ctx, "n1")
	require.NoError(t, err)
	assert.Equal(t, "bb", e.Chip)
	require.NoError(t, l.Revoke(ctx, "n1", 0, "sold", noon))
	n, err := l.CountEnrolled(ctx)
	require.NoError(t, err)
	assert.Zero(t, n, "a revoked one does not count")
	_, err = l.Enrolled(ctx, "n1")
	require.ErrorIs(t, err, ledger.ErrNotFound)
	require.ErrorIs(t, l.Revoke(ctx, "n1", 0, "again", noon), ledger.ErrNotFound)
	trail, err := l.Enrolments(ctx, "n1")
	require.NoError(t, err)
	require.Len(t, trail, 2)
	assert.Contains(t, trail[0].Why, "replaced by 02")
	assert.Equal(t, "sold", trail[1].Why)
}

func TestTheStormWindow(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	ctx := t.Context()
	require.NoError(t, l.AddFailures(ctx, []ledger.Failure{
		{Name: "tcb", Code: "E222", Node: "n1", At: noon.Add(-time.Hour), Drained: true},
		{Name: "tcb", Code: "E222", Node: "n2", At: noon, Drained: true},
		{Name: "debug", Code: "E223", Node: "n3", At: noon},
	}))
	list, err := l.Failures(ctx, "tcb", noon.Add(-time.Minute), noon.Add(time.Minute))
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, ledger.Failure{Name: "tcb", Code: "E222", Node: "n2", At: noon, Drained: true}, list[0])
	before, err := l.Failures(ctx, "tcb", noon.Add(-70*time.Minute), noon.Add(-59*time.Minute))
	require.NoError(t, err)
	require.Len(t, before, 1, "what a clock that was put back since says of n2 is of another time")
	require.NoError(t, l.Resumed(ctx, "tcb", "n2"))
	f, err := l.LastFailure(ctx, "n2")
	require.NoError(t, err)
	assert.True(t, f.Resumed)
	_, err = l.LastFailure(ctx, "n9")
	require.ErrorIs(t, err, ledger.ErrNotFound)
	require.NoError(t, l.AddAlarm(ctx, ledger.Alarm{Code: "E530", Reason: "r", At: noon}))
	alarms, err := l.Alarms(ctx, 5)
	require.NoError(t, err)
	assert.Equal(t, []ledger.Alarm{{Code: "E530", Reason: "r", At: noon}}, alarms)
}

func TestSilencesInARow(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	for want := 1; want <= 3; want++ {
		n, err := l.Silent(t.Context(), "n1")
		require.NoError(t, err)
		assert.Equal(t, want, n)
	}
	require.NoError(t, l.Spoke(t.Context(), map[string]bool{"n1": true}))
	n, err := l.Silent(t.Context(), "n1")
	require.NoError(t, err)
	assert.Equal(t, 1, n)
}

func TestErrandsStayUntilDone(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	ctx := t.Context()
	id, err := l.AddErrand(ctx, "requeue", []byte("4711"), noon)
	require.NoError(t, err)
	require.NoError(t, l.Postpone(ctx, id, noon.Add(time.Minute), "slurmctld away"))
	due, err := l.Errands(ctx, noon, evening, 10)
	require.NoError(t, err)
	assert.Empty(t, due, "not before its time")
	due, err = l.Errands(ctx, noon.Add(time.Minute), evening, 10)
	require.NoError(t, err)
	require.Len(t, due, 1)
	assert.Equal(t, 1, due[0].Attempts)
	assert.Equal(t, "slurmctld away", due[0].Cause)
	due, err = l.Errands(ctx, noon.Add(-time.Hour), noon.Add(-50*time.Minute), 10)
	require.NoError(t, err)
	assert.Len(t, due, 1, "the clock was put back by an hour since")
	require.NoError(t, l.Done(ctx, id))
	due, err = l.Errands(ctx, noon.Add(time.Hour), evening, 10)
	require.NoError(t, err)
	assert.Empty(t, due)
}

func TestManyWritersLoseNothing(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	var group sync.WaitGroup
	errs := make(chan error, 64)
	for i := range 64 {
		group.Go(func() {
			_, err := l.AddErrand(context.WithoutCancel(t.Context()), fmt.Sprint(i), nil, noon)
			errs <- err
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	due, err := l.Errands(t.Context(), noon, evening, 100)
	require.NoError(t, err)
	assert.Len(t, due, 64)
}

func TestANewerSchemaIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, err := ledger.Open(t.Context(), path)
	require.NoError(t, err)
	require.NoError(t, ledger.SetVersion(t.Context(), l, 99))
	require.NoError(t, l.Close())
	_, err = ledger.Open(t.Context(), path)
	require.ErrorContains(t, err, "newer release")
}
