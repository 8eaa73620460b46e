package verifier_test

import (
	"crypto/ed25519"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt/receipttest"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/verifiertest"
)

func (w *world) down(k enclave.JobKey, nodes ...string) {
	w.t.Helper()
	for _, n := range nodes {
		require.NoError(w.t, w.v.TeardownReport(w.t.Context(), n, api.TeardownRequest{
			NodeRequest: api.NodeRequest{Job: k, Node: n, Epoch: 1}, Closed: true, Network: api.Network{TunnelBytes: 9},
			Checks: receipttest.ReadBack(), PhasesMS: map[string]int64{"teardown": 75},
		}))
	}
}

func (w *world) settled(k enclave.JobKey) {
	w.t.Helper()
	w.site.SetJob(k.Job, enclave.JobState{State: "COMPLETED", Batch: true})
	_, err := w.v.Settled(w.t.Context(), k)
	require.NoError(w.t, err)
}

// receipt is the opened receipt of a start, nil before it is sealed.
func (w *world) receipt(k enclave.JobKey) *receipt.Opened {
	w.t.Helper()
	require.NoError(w.t, w.v.SealDue(w.t.Context()))
	r, err := w.v.Receipt(w.t.Context(), verifier.Viewer{UID: 2001}, k.Job, &k.Restart)
	if refusal, ok := enclave.AsRefusal(err); ok {
		assert.Equal(w.t, enclave.Code("E142"), refusal.Code)
		return nil
	}
	require.NoError(w.t, err)
	o, err := receipt.Open(r.File)
	require.NoError(w.t, err)
	assert.Equal(w.t, r.Digest, o.Digest)
	require.NoError(w.t, o.CheckSignature(verifiertest.ReceiptKey(o.Statement.Predicate.Simulated).Public().(ed25519.PublicKey)))
	return &o
}

func TestReceipts(t *testing.T) {
	t.Parallel()
	viewer := verifier.Viewer{UID: 2001}
	bubble(t, "a job that lost a node has both rosters in its receipt, and says why", func(t *testing.T, w *world) {
		for id, nodes := range map[uint32][]string{7: {"n1", "n2"}, 8: {"n3"}} {
			k, gone := w.register(job(id, nodes...)), nodes[len(nodes)-1]
			w.all(k, nodes...)
			require.NoError(t, w.renew(k, gone))
			_, err := w.v.Revoke(t.Context(), 0, revoke(gone))
			require.NoError(t, err)
			w.settled(k)
			w.down(k, nodes...)
			o := w.receipt(k)
			require.NotNil(t, o)
			p := o.Statement.Predicate
			require.Len(t, p.Rosters, 2)
			assert.Equal(t, gone, p.Rosters[1].Gone)
			require.NotNil(t, p.Refusal)
			assert.Equal(t, enclave.Code("E532"), p.Refusal.Code)
		}
	})
	bubble(t, "a receipt is sealed when the job is over and all nodes have told", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		assert.Nil(t, w.receipt(k), "it runs")
		w.down(k, "n1")
		w.settled(k)
		assert.Nil(t, w.receipt(k), "n2 has not told")
		_, err := w.v.Receipt(t.Context(), viewer, 7, nil)
		require.ErrorContains(t, err, "the last word of n2")
		w.down(k, "n2")
		select {
		case <-w.v.Over():
		default:
			assert.Fail(t, "nobody wakes the sealer")
		}
		o := w.receipt(k)
		require.NotNil(t, o)
		p := o.Statement.Predicate
		assert.Equal(t, receipt.TypeSimulated, o.Statement.PredicateType, "fake evidence is never real")
		assert.Equal(t, receipt.Chain{Sequence: 1}, p.Chain)
		assert.Equal(t, enclave.VerdictSimulated, p.Verdict)
		require.NoError(t, p.Signer.CheckEndorsement(p.Verifier.Key))
		require.Len(t, p.Nodes, 2)
		assert.Equal(t, verifiertest.ChipOf("n2"), p.Nodes[1].Enrolled.Chip)
		assert.Len(t, p.Nodes[1].Evidence, 1)
		assert.Equal(t, uint64(9), p.Nodes[1].Teardown.Network.TunnelBytes)
		for _, n := range p.Nodes {
			assert.True(t, n.Teardown.Closed, n.Name)
			assert.Equal(t, receipttest.ReadBack(), n.Teardown.Checks, "%s: what was read back from its kernel", n.Name)
			assert.Equal(t, int64(75), n.Teardown.TookMS, n.Name)
		}
		require.Len(t, p.Rosters, 1)
		assert.Len(t, p.Rosters[0].Peers, 2)
		assert.Contains(t, p.Policy.Text, "version: 0")
		r, err := w.v.Report(t.Context(), viewer, 7, nil)
		require.NoError(t, err)
		assert.Equal(t, "sha256:"+o.Digest.String(), r.Receipt)
		assert.Equal(t, uint64(1), r.Sequence)
		again := w.receipt(k)
		assert.Equal(t, o.Digest, again.Digest, "sealing again changes nothing")
	})
	bubble(t, "a node of which something is left is not shown as closed, whatever it calls that", func(t *testing.T, w *world) {
		for i, result := range []enclave.CheckResult{enclave.CheckPass, enclave.CheckFail, enclave.CheckUnknown} {
			k := w.register(job(7+uint32(i), "n1", "n2"))
			w.all(k, "n1", "n2")
			w.down(k, "n1")
			word := api.TeardownRequest{
				NodeRequest: api.NodeRequest{Job: k, Node: "n2", Epoch: 1}, Closed: true, Checks: receipttest.ReadBack(), PhasesMS: map[string]int64{"teardown": 75},
			}
			word.Checks[5].Result = result
			require.NoError(t, w.v.TeardownReport(t.Context(), "n2", word))
			w.settled(k)
			o := w.receipt(k)
			require.NotNil(t, o)
			whole := result == enclave.CheckPass // the control
			assert.True(t, o.Statement.Predicate.Nodes[0].Teardown.Closed)
			assert.Equal(t, whole, o.Statement.Predicate.Nodes[1].Teardown.Closed, result)
			r, err := w.v.Report(t.Context(), viewer, k.Job, nil)
			require.NoError(t, err)
			require.NotNil(t, r.Nodes[1].Closed)
			assert.Equal(t, whole, *r.Nodes[1].Closed, result)
		}
	})
	bubble(t, "a node that never tells is waited for, and then the receipt says so", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		w.down(k, "n1")
		w.settled(k)
		time.Sleep(119 * time.Second)
		assert.Nil(t, w.receipt(k))
		time.Sleep(time.Second)
		o := w.receipt(k)
		require.NotNil(t, o)
		assert.True(t, o.Statement.Predicate.Nodes[0].Teardown.Reported)
		assert.False(t, o.Statement.Predicate.Nodes[1].Teardown.Reported)
		w.down(k, "n2")
		assert.Equal(t, o.Digest, w.receipt(k).Digest, "what comes later changes nothing")
	})
	bubble(t, "a refused job gets one, with the refusal and what evidence came", func(t *testing.T, w *world) {
		w.nodes["n2"].Fail = "measurement"
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		w.settled(k)
		time.Sleep(2 * time.Minute)
		o := w.receipt(k)
		require.NotNil(t, o)
		p := o.Statement.Predicate
		assert.Equal(t, enclave.VerdictRefused, p.Verdict)
		assert.Equal(t, enclave.Code("E229"), p.Refusal.Code)
		assert.Equal(t, enclave.StatusContraindicated, p.Nodes[1].Evidence[0].Result.Status)
		assert.Empty(t, p.Rosters)
	})
	bubble(t, "a job of which no evidence came gets one without a word on hardware", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.settled(k)
		time.Sleep(2 * time.Minute)
		o := w.receipt(k)
		require.NotNil(t, o)
		assert.Equal(t, enclave.VerdictRefused, o.Statement.Predicate.Verdict)
		assert.Equal(t, receipt.Policy{}, o.Statement.Predicate.Policy)
		assert.Empty(t, o.Statement.Predicate.Nodes[0].Evidence)
	})
	bubble(t, "receipts are chained, and what was over before a restart is sealed after it", func(t *testing.T, w *world) {
		var before enclave.Digest
		for i := range uint32(3) {
			k := w.register(job(7+i, "n1"))
			w.all(k, "n1")
			w.down(k, "n1")
			w.settled(k)
			if i == 1 {
				w.restart()
			}
			o := w.receipt(k)
			require.NotNil(t, o)
			assert.Equal(t, receipt.Chain{Sequence: uint64(i) + 1, Previous: before}, o.Statement.Predicate.Chain)
			before = o.Digest
		}
		all, err := w.v.ReceiptChain(t.Context(), verifier.Viewer{Operator: true}, 2)
		require.NoError(t, err)
		assert.Len(t, all.Receipts, 2)
		assert.Equal(t, uint64(3), all.Head)
		assert.Equal(t, before, all.Digest)
		_, err = w.v.ReceiptChain(t.Context(), viewer, 1)
		assert.Equal(t, "E143 request", told(err))
		_, err = w.v.Receipt(t.Context(), verifier.Viewer{UID: 2002}, 7, nil)
		assert.Equal(t, "E135 request", told(err), "another user's job is not there")
	})
	bubble(t, "the policy of that day is in it, whatever the files say later", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		w.appraiser.Version++
		w.down(k, "n1")
		w.settled(k)
		o := w.receipt(k)
		require.NotNil(t, o)
		assert.Contains(t, o.Statement.Predicate.Policy.Text, "version: 0")
	})
	bubble(t, "a ledger that is full is an alarm, and nothing is lost", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		w.down(k, "n1")
		w.settled(k)
		w.tell("CREATE TRIGGER full BEFORE INSERT ON receipts BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END")
		for range 3 {
			require.ErrorContains(t, w.v.SealDue(t.Context()), "disk is full")
		}
		w.mu.Lock()
		alarms := slices.Clone(w.alarms)
		w.mu.Unlock()
		assert.Equal(t, []enclave.Code{"E525"}, alarms, "told once, not every few seconds")
		w.tell("DROP TRIGGER full")
		o := w.receipt(k)
		require.NotNil(t, o)
		assert.Equal(t, uint64(1), o.Statement.Predicate.Chain.Sequence)
	})
	bubble(t, "a job whose end nobody reported is ended once Slurm has said it twice", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		w.down(k, "n1")
		w.site.SetJob(7, enclave.JobState{})
		assert.Nil(t, w.receipt(k), "its EpilogSlurmctld may be on its way")
		w.site.SetAway(true)
		time.Sleep(6 * time.Minute)
		assert.Nil(t, w.receipt(k), "Slurm is away")
		w.site.SetAway(false)
		for range 2 {
			time.Sleep(6 * time.Minute)
			require.NoError(t, w.v.SealDue(t.Context()))
		}
		require.NotNil(t, w.receipt(k))
	})
}

func TestKeysOfReceiptsAreNobodyElses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.close()
	one := verifiertest.ReceiptKey(false)
	for name, keys := range map[string]verifier.ReceiptKeys{
		"none":                      {},
		"one for both":              {Real: one, Simulated: one},
		"the verifier's":            {Real: w.settings.Key, Simulated: one},
		"the verifier's, simulated": {Real: one, Simulated: w.settings.Key},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			s := w.settings
			s.Receipts = keys
			_, err := verifier.New(t.Context(), s)
			require.Error(t, err)
		})
	}
}
