package verifier_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// behind opens the ledger behind the verifier's back; it waits while that writes.
func (w *world) behind() *sql.DB {
	w.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.path, "ledger.db")+"?_pragma=busy_timeout(5000)")
	require.NoError(w.t, err)
	return db
}

// tell executes statements in the ledger.
func (w *world) tell(statement string) {
	w.t.Helper()
	db := w.behind()
	defer func() { require.NoError(w.t, db.Close()) }()
	_, err := db.ExecContext(w.t.Context(), statement)
	require.NoError(w.t, err)
}

func TestAFullLedger(t *testing.T) {
	t.Parallel()
	bubble(t, "a node's last word is kept until there is space, and the receipt has it", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		w.down(k, "n1")
		w.settled(k)
		w.tell("CREATE TRIGGER full BEFORE UPDATE ON members BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END")
		word := api.TeardownRequest{NodeRequest: api.NodeRequest{Job: k, Node: "n2", Epoch: 1}, Closed: true}
		assert.Equal(t, "E507 service", told(w.v.TeardownReport(t.Context(), "n2", word)), "it is not said to be stored")
		require.ErrorContains(t, w.v.SealDue(t.Context()), "disk is full")
		w.tell("DROP TRIGGER full")
		o := w.receipt(k)
		require.NotNil(t, o, "nobody waits for n2 any more")
		for _, n := range o.Statement.Predicate.Nodes {
			assert.True(t, n.Teardown.Reported, n.Name)
		}
	})
	bubble(t, "a job's end is kept as well, and nobody has to ask Slurm for it", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		w.down(k, "n1")
		w.tell("CREATE TRIGGER full BEFORE UPDATE ON jobs BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END")
		w.site.SetJob(7, enclave.JobState{State: "COMPLETED", Batch: true})
		_, err := w.v.Settled(t.Context(), k)
		assert.Equal(t, "E507 service", told(err))
		w.tell("DROP TRIGGER full")
		require.NotNil(t, w.receipt(k))
		assert.Empty(t, w.site.String(), "it was not put back")
	})
	bubble(t, "so are a refusal, and that a job lost a node", func(t *testing.T, w *world) {
		lost, refused := w.register(job(7, "n1", "n2")), w.register(job(8, "n3"))
		w.all(lost, "n1", "n2")
		w.tell("CREATE TRIGGER full BEFORE UPDATE ON jobs BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END")
		assert.Equal(t, "E426 node", told(w.lost(lost, "n2", "n2")))
		w.nodes["n3"].Fail = "measurement"
		assert.Equal(t, map[string]string{"n3": "E229 node"}, w.all(refused, "n3"))
		for _, k := range []enclave.JobKey{lost, refused} {
			w.site.SetJob(k.Job, enclave.JobState{State: "CANCELLED", Batch: true})
			_, err := w.v.Settled(t.Context(), k)
			assert.Equal(t, "E507 service", told(err))
		}
		require.Error(t, w.v.SealDue(t.Context()))
		w.tell("DROP TRIGGER full")
		require.NoError(t, w.v.SealDue(t.Context()))
		assert.Equal(t, enclave.Code("E426"), w.entry(lost).Refusal.Code)
		assert.Equal(t, enclave.VerdictRefused, w.entry(lost).Verdict)
		assert.Equal(t, enclave.Code("E229"), w.entry(refused).Refusal.Code)
		assert.NotNil(t, w.entry(refused).Ended)
		time.Sleep(2 * time.Minute)
		o := w.receipt(lost)
		require.NotNil(t, o)
		assert.Len(t, o.Statement.Predicate.Rosters, 2)
	})
	bubble(t, "a node that says so late that it is not closed is drained when that can be stored", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		w.tell("CREATE TRIGGER full BEFORE UPDATE ON members BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END")
		r := enclave.Refuse("E243", enclave.FaultNode, "a mount is left")
		word := api.TeardownRequest{NodeRequest: api.NodeRequest{Job: k, Node: "n1", Epoch: 1}, Refusal: r}
		assert.Equal(t, "E507 service", told(w.v.TeardownReport(t.Context(), "n1", word)))
		assert.Empty(t, w.site.Drained())
		w.tell("DROP TRIGGER full")
		require.NoError(t, w.v.SealDue(t.Context()))
		assert.Equal(t, []string{"n1"}, w.site.Drained())
	})
}

func TestANodeBreaksAfterItWasLetIn(t *testing.T) {
	t.Parallel()
	bubble(t, "it is drained, and the start is on record as refused", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		assert.Equal(t, "E249 node", told(w.broken(t.Context(), k, "n2", "E249", enclave.FaultNode)))
		assert.Equal(t, []string{"n2"}, w.site.Drained())
		e := w.entry(k)
		assert.Equal(t, enclave.VerdictRefused, e.Verdict)
		assert.Equal(t, enclave.Code("E249"), e.Refusal.Code)
		assert.NotContains(t, w.site.Calls(), "end 7.0", "its prolog's failure puts it back")
	})
}

func TestANodeBreaksWhileItsEvidenceIsJudged(t *testing.T) {
	t.Parallel()
	for _, fault := range []enclave.Fault{enclave.FaultNode, enclave.FaultService} {
		bubble(t, "its word counts, and nobody waits for ever: "+string(fault), func(t *testing.T, w *world) {
			k, other := w.register(job(7, "n1", "n2")), w.register(job(8, "n3"))
			w.appraiser.Slow = 500 * time.Millisecond
			got := together(map[string]func() error{
				"evidence": func() error { return w.evidence(t.Context(), k, "n1") },
				"broken": func() error {
					time.Sleep(w.appraiser.Slow / 2)
					return w.broken(t.Context(), k, "n1", "E240", fault)
				},
				"n2": func() error { return w.evidence(t.Context(), k, "n2") },
			})
			assert.Equal(t, "E240 "+string(fault), got["broken"])
			assert.Equal(t, "E240 "+string(fault), got["evidence"])
			e := w.entry(k)
			require.NotNil(t, e.Refusal)
			assert.Equal(t, enclave.Code("E240"), e.Refusal.Code)
			assert.Equal(t, map[string]string{"n3": "go"}, w.all(other, "n3"), "another job")
		})
	}
}

func TestAWrongClockOfTheVerifier(t *testing.T) {
	t.Parallel()
	bubble(t, "a receipt says what evidence was held against, whatever the clock said at the enrolment", func(t *testing.T, w *world) {
		held := func(k enclave.JobKey) string {
			w.all(k, "n1")
			w.down(k, "n1")
			w.settled(k)
			o := w.receipt(k)
			require.NotNil(t, o)
			return o.Statement.Predicate.Nodes[0].Enrolled.Chip
		}
		w.tell("UPDATE enrolments SET at=at+3600000")
		assert.Equal(t, w.nodes["n1"].Chip, held(w.register(job(7, "n1"))))
		k := w.register(job(8, "n1"))
		w.tell("CREATE TRIGGER earlier AFTER INSERT ON evidence BEGIN UPDATE evidence SET machine=NULL WHERE id=new.id; END")
		assert.Empty(t, held(k), "the control: an earlier release went by the time")
		w.tell("UPDATE enrolments SET at=at-7200000")
		assert.Equal(t, w.nodes["n1"].Chip, held(w.register(job(9, "n1"))))
	})
	for name, ended := range map[string]string{"put back": "ended+3600000", "put forward": "ended-3600000"} {
		bubble(t, "a receipt waits as long as ever for a node that is silent: "+name, func(t *testing.T, w *world) {
			k := w.register(job(7, "n1", "n2"))
			w.all(k, "n1", "n2")
			w.down(k, "n1")
			w.settled(k)
			assert.Nil(t, w.receipt(k))
			w.tell("UPDATE jobs SET ended=" + ended)
			time.Sleep(119 * time.Second)
			assert.Nil(t, w.receipt(k))
			time.Sleep(2 * time.Second)
			assert.NotNil(t, w.receipt(k))
		})
	}
	bubble(t, "and after a restart, which finds an end that is to come, no longer than that", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		w.settled(k)
		w.tell("UPDATE jobs SET ended=ended+3600000")
		w.restart()
		assert.Nil(t, w.receipt(k))
		time.Sleep(2 * time.Minute)
		assert.NotNil(t, w.receipt(k))
	})
	bubble(t, "failures of an hour to come are no storm of today's", func(t *testing.T, w *world) {
		for i, n := range []string{"n1", "n2"} {
			k := w.register(job(uint32(7+i), n))
			w.nodes[n].Fail = "measurement"
			assert.Equal(t, map[string]string{n: "E229 node"}, w.all(k, n))
		}
		w.tell("UPDATE failures SET at=at+3600000")
		w.nodes["n3"].Fail = "measurement"
		k := w.register(job(9, "n3"))
		assert.Equal(t, map[string]string{"n3": "E229 node"}, w.all(k, "n3"))
		assert.Equal(t, []string{"n1", "n2", "n3"}, w.site.Drained())
	})
	bubble(t, "evidence that can't be judged drains nobody, and its job waits for as long as it takes", func(t *testing.T, w *world) {
		w.nodes["n1"].Fail, w.nodes["n1"].Odd = "validity", "not valid before tomorrow"
		for restart := range uint32(6) {
			j := job(7, "n1")
			j.Restart = restart
			k := w.register(j)
			assert.Equal(t, map[string]string{"n1": "E546 policy"}, w.all(k, "n1"))
			w.site.SetJob(7, enclave.JobState{State: "FAILED", Batch: true})
			s, err := w.v.Settled(t.Context(), k)
			require.NoError(t, err)
			assert.True(t, s.Requeued)
			w.site.Submit(7)
		}
		assert.Empty(t, w.site.Drained())
		assert.Contains(t, w.alarms, enclave.Code("E546"))
		w.nodes["n1"].Fail = "measurement"
		j := job(8, "n1")
		assert.Equal(t, map[string]string{"n1": "E229 node"}, w.all(w.register(j), "n1"), "control: what else is wrong is the node's")
	})
	bubble(t, "nor does it end a job that runs", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		w.nodes["n1"].Fail, w.nodes["n1"].Odd = "validity", "not valid before tomorrow"
		assert.Equal(t, "E546 policy", told(w.renew(k, "n1")))
		w.nodes["n1"].Fail, w.nodes["n1"].Odd = "", ""
		require.NoError(t, w.renew(k, "n1"))
		assert.NotContains(t, w.site.Calls(), "end 7.0")
	})
	bubble(t, "an alarm tells it once an hour for each check, and the ledger keeps the latest of such evidence", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		odd := func(check string) {
			for _, n := range []string{"n1", "n2"} {
				w.nodes[n].Fail, w.nodes[n].Odd = check, "not now, which is "+time.Now().String()
				assert.Equal(t, "E546 policy", told(w.renew(k, n)))
				time.Sleep(30 * time.Second)
			}
		}
		for range 10 {
			odd("crl")
		}
		assert.Equal(t, []enclave.Code{"E546"}, w.alarms)
		odd("validity")
		assert.Len(t, w.alarms, 2)
		list, err := w.settings.Ledger.EvidenceOf(t.Context(), k)
		require.NoError(t, err)
		require.Equal(t, 4, len(list), "of the start, and of the latest renewal") //nolint:testifylint // a list that is printed fills the screen
		assert.Equal(t, "validity", list[3].Result.Failed().Name)
		all, err := w.settings.Ledger.Renewals(t.Context(), k)
		require.NoError(t, err)
		assert.Len(t, all, 22, "that they were made")
		w.nodes["n1"].Odd, w.nodes["n1"].Fail = "", "measurement"
		assert.Equal(t, "E229 node", told(w.renew(k, "n1")))
		list, err = w.settings.Ledger.EvidenceOf(t.Context(), k)
		require.NoError(t, err)
		assert.Len(t, list, 5)
	})
}

// TestUnjudged: the appraiser of production says when not the evidence is to blame.
func TestUnjudged(t *testing.T) {
	t.Parallel()
	k := newCourt(t)
	judged := func(certificates []byte) enclave.AttestationResult {
		c := claim.Claim{Cluster: "c1", Node: "n1", HPKE: make([]byte, claim.HPKESize), Purpose: claim.PurposeEnrol, Nonce: enclave.Nonce{1}}
		data, err := c.ReportData()
		require.NoError(t, err)
		report, err := k.chip.Signed(k.chip.Report(data))
		require.NoError(t, err)
		return k.a.Appraise(verifier.Rules{}, enclave.Evidence{Report: report, Certificates: certificates}, c, verifier.Machine{})
	}
	assert.Empty(t, judged(k.chip.Table()).Unjudged)
	assert.Empty(t, judged(nil).Unjudged, "a host that gives no certificate, and a store that has none")
	t.Run("a certificate that AMD has signed and the clock has not reached", func(t *testing.T) {
		now := time.Now()
		early, err := k.lab.NewChip(k.chip.ID, attesttest.CurrentTCB(), attesttest.Validity{NotBefore: now.Add(time.Hour), NotAfter: now.AddDate(1, 0, 0)})
		require.NoError(t, err)
		was := k.chip
		k.chip = early
		defer func() { k.chip = was }()
		r := judged(early.Table())
		assert.Equal(t, "validity", r.Failed().Name)
		assert.Contains(t, r.Unjudged, "is not valid before")
	})
	t.Run("one that has expired is the node's", func(t *testing.T) {
		now := time.Now()
		old, err := k.lab.NewChip(k.chip.ID, attesttest.CurrentTCB(), attesttest.Validity{NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.Add(-time.Hour)})
		require.NoError(t, err)
		was := k.chip
		k.chip = old
		defer func() { k.chip = was }()
		assert.Empty(t, judged(old.Table()).Unjudged)
	})
	t.Run("a revocation list of an hour to come, or of the past", func(t *testing.T) {
		for _, from := range []time.Duration{-2 * time.Hour, time.Hour} {
			k.put("milan-vcek.crl", k.crl(from, from+time.Hour, false))
			require.NoError(t, k.a.Refresh())
			r := judged(k.chip.Table())
			assert.Equal(t, "crl", r.Failed().Name)
			assert.Contains(t, r.Unjudged, "the CRL of")
		}
	})
	t.Run("a key that is revoked is the node's", func(t *testing.T) {
		k.put("milan-vcek.crl", k.crl(time.Hour, 2*time.Hour, true))
		require.NoError(t, k.a.Refresh())
		r := judged(k.chip.Table())
		assert.Equal(t, "crl", r.Failed().Name)
		assert.Empty(t, r.Unjudged)
	})
	t.Run("a store that can't be read", func(t *testing.T) {
		require.NoError(t, os.RemoveAll(k.path("certs")))
		require.NoError(t, os.WriteFile(k.path("certs"), nil, 0o600))
		r := judged(nil)
		assert.Equal(t, "chain", r.Failed().Name)
		assert.Contains(t, r.Unjudged, "the certificate store can't be read")
	})
}
