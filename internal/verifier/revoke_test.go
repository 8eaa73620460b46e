package verifier_test

import (
	"crypto/rand"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// renew is a node's whole renewal.
func (w *world) renew(k enclave.JobKey, node string) error {
	w.t.Helper()
	n, err := w.v.Nonce(w.t.Context(), node, api.NonceRequest{Job: k, Node: node, Purpose: claim.PurposeRenew})
	if err != nil {
		return err
	}
	a, err := w.nodes[node].Announce(k, claim.PurposeRenew, n)
	require.NoError(w.t, err)
	_, err = w.v.Renew(w.t.Context(), node, a)
	return err
}

// heard is what a watching node was told, and when.
type heard struct {
	gone   []string
	header enclave.RosterHeader
	seed   string
	err    error
	at     time.Time
}

// watch is a node's call, checked as the keeper checks it. A call that told nothing is made again.
func (w *world) watch(k enclave.JobKey, node string) <-chan heard {
	out := make(chan heard, 1)
	go func() {
		for {
			r := api.WatchRequest{NodeRequest: api.NodeRequest{Job: k, Node: node, Epoch: 1}}
			_, _ = rand.Read(r.Nonce[:]) // never fails
			a, err := w.v.Watch(w.t.Context(), node, r)
			h := heard{gone: a.Gone, err: err, at: time.Now()}
			if err == nil && a.Answer == nil {
				continue
			}
			if err == nil {
				var seed enclave.Secret
				h.header, seed, h.err = a.Answer.Accept(w.nodes[node].Expect(k, r.Nonce))
				h.seed = string(seed.Bytes())
			}
			out <- h
			return
		}
	}()
	return out
}

// seeds brings nodes up and gives the seed that each got in the first roster.
func (w *world) seeds(k enclave.JobKey, nodes ...string) (peers []enclave.Peer, seed string) {
	w.t.Helper()
	run := map[string]func() error{}
	for _, node := range nodes {
		run[node] = func() error {
			nonce := w.nonce(k, node)
			a, err := w.nodes[node].Announce(k, claim.PurposeJob, nonce)
			require.NoError(w.t, err)
			answer, err := w.v.PostEvidence(w.t.Context(), node, a)
			if err != nil {
				return err
			}
			_, s, err := answer.Accept(w.nodes[node].Expect(k, nonce.Nonce))
			require.NoError(w.t, err)
			r := api.NodeRequest{Job: k, Node: node, Epoch: 1}
			if node == nodes[0] {
				seed = string(s.Bytes())
				var bad error
				peers, bad = w.leaves(node, r)
				require.NoError(w.t, bad)
			}
			_, err = w.v.PostReady(w.t.Context(), node, api.ReadyRequest{NodeRequest: r})
			return err
		}
	}
	for node, told := range together(run) {
		require.Equal(w.t, "go", told, node)
	}
	synctest.Wait()
	return peers, seed
}

func revoke(node string) api.RevokeRequest {
	return api.RevokeRequest{Node: node, Reason: "the disk was \"stolen\"\n"}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	bubble(t, "the others hear of it at once, get a roster without the node and a seed it can't open", func(t *testing.T, w *world) {
		k, other := w.register(job(7, "n1", "n2", "n3")), w.register(job(8, "n4", "n5"))
		peers, seed := w.seeds(k, "n1", "n2", "n3")
		w.all(other, "n4", "n5")
		h1, h2, h3, h4 := w.watch(k, "n1"), w.watch(k, "n2"), w.watch(k, "n3"), w.watch(other, "n4")
		time.Sleep(30 * time.Second)
		now := time.Now()
		answer, err := w.v.Revoke(t.Context(), 0, revoke("n2"))
		require.NoError(t, err)
		assert.Equal(t, []enclave.JobKey{k}, answer.Ended)
		one, two, three := <-h1, <-h2, <-h3
		for _, h := range []heard{one, three} {
			require.NoError(t, h.err)
			assert.Equal(t, now, h.at)
			assert.Equal(t, []string{"n2"}, h.gone)
			assert.Equal(t, uint32(2), h.header.Epoch)
			assert.Equal(t, uint32(2), h.header.Size)
			require.NoError(t, roster.CheckPeers(h.header, []enclave.Peer{peers[0], peers[2]}))
			require.Error(t, roster.CheckPeers(h.header, peers))
			assert.NotEqual(t, seed, h.seed)
		}
		assert.Equal(t, one.seed, three.seed)
		assert.Equal(t, "E532 node", told(two.err))

		assert.Equal(t, "n2 drained enclave:E532 the node was revoked by an operator: the disk was 'stolen'? "+
			"(when it is trusted again: enrol it, then enclave node return n2)\n7.0 ended\n", w.site.String())
		assert.Equal(t, []string{"record 7.0", "record 8.0", "drain n2", "record 7.0", "end 7.0"}, w.site.Calls())
		assert.Contains(t, w.site.Verdict(k), "E532")
		e := w.entry(k)
		assert.Equal(t, enclave.VerdictRefused, e.Verdict)
		assert.Equal(t, "n2", e.Refusal.Node)
		list, err := w.settings.Ledger.Rosters(t.Context(), k)
		require.NoError(t, err)
		require.Len(t, list, 2)
		assert.Equal(t, "n2", list[1].Gone)
		assert.Len(t, list[1].Peers, 2)
		assert.Equal(t, "E532 node", told(w.renew(k, "n1")), "nobody of this job is renewed any more")
		s, err := w.v.Settled(t.Context(), k)
		require.NoError(t, err)
		assert.False(t, s.Requeued, "its ranks had begun")

		require.NoError(t, w.renew(other, "n4"))
		select {
		case h := <-h4:
			require.Fail(t, "another job heard of it", "%v", h)
		default:
		}
		_, err = w.v.Settled(t.Context(), other)
		require.NoError(t, err)
		assert.Equal(t, "E502 service", told((<-h4).err))
	})
	bubble(t, "two nodes at once are two epochs", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2", "n3"))
		peers, _ := w.seeds(k, "n1", "n2", "n3")
		_, err := w.v.Revoke(t.Context(), 0, revoke("n2"))
		require.NoError(t, err)
		answer, err := w.v.Revoke(t.Context(), 0, revoke("n3"))
		require.NoError(t, err)
		assert.Len(t, answer.Ended, 1)
		h := <-w.watch(k, "n1")
		require.NoError(t, h.err)
		assert.Equal(t, uint32(3), h.header.Epoch)
		require.NoError(t, roster.CheckPeers(h.header, peers[:1]))
		assert.Equal(t, []string{"n2", "n3"}, h.gone)
	})
	bubble(t, "a job of one node gets a roster of nobody, and ends", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		synctest.Wait()
		_, err := w.v.Revoke(t.Context(), 0, revoke("n1"))
		require.NoError(t, err)
		assert.Equal(t, "E532 node", told((<-w.watch(k, "n1")).err))
		assert.Contains(t, w.site.String(), "7.0 ended")
		assert.Empty(t, w.alarms)
		r, err := w.v.Report(t.Context(), verifier.Viewer{Operator: true}, 7, nil)
		require.NoError(t, err)
		require.Len(t, r.Departures, 1)
		assert.Equal(t, "n1", r.Departures[0].Node)
		assert.Equal(t, uint32(2), r.Departures[0].Epoch)
	})
	bubble(t, "a start that waits for the node is refused and put back", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		got := together(map[string]func() error{
			"n1": func() error { return w.bringUp(t.Context(), k, "n1") },
			"n2": func() error {
				if err := w.evidence(t.Context(), k, "n2"); err != nil {
					return err
				}
				_, err := w.v.Revoke(t.Context(), 0, revoke("n2"))
				return err
			},
		})
		synctest.Wait()
		assert.Equal(t, map[string]string{"n1": "E501 service", "n2": "go"}, got, "go being the operator's answer")
		assert.False(t, w.goFile(k))
		assert.Equal(t, []string{"n2"}, w.site.Drained())
		w.site.SetJob(7, enclave.JobState{State: "FAILED", Batch: true})
		s, err := w.v.Settled(t.Context(), k)
		require.NoError(t, err)
		assert.True(t, s.Requeued)
	})
	bubble(t, "a node that is not enrolled can't be revoked", func(t *testing.T, w *world) {
		_, err := w.v.Revoke(t.Context(), 0, revoke("stranger"))
		assert.Equal(t, "E138 request", told(err))
		assert.Empty(t, w.site.Calls())
	})
	bubble(t, "operators see why and when, others that it is out", func(t *testing.T, w *world) {
		_, err := w.v.Revoke(t.Context(), 0, revoke("n2"))
		require.NoError(t, err)
		fleet, err := w.v.Fleet(t.Context(), verifier.Viewer{Operator: true})
		require.NoError(t, err)
		line := fleet.Nodes[1]
		require.Equal(t, "n2", line.Name)
		assert.Equal(t, "E532 node", told(line.Refusal))
		assert.Equal(t, time.Now().UTC(), *line.RevokedAt)
		assert.True(t, line.Drained)
		assert.False(t, line.Enrolled)
		fleet, err = w.v.Fleet(t.Context(), verifier.Viewer{UID: 2001})
		require.NoError(t, err)
		assert.Nil(t, fleet.Nodes[1].Refusal)
		assert.True(t, fleet.Nodes[1].Drained)
	})
	bubble(t, "Slurm that is away keeps nobody in the tunnel", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		synctest.Wait()
		h := w.watch(k, "n1")
		w.site.SetAway(true)
		now := time.Now()
		_, err := w.v.Revoke(t.Context(), 0, revoke("n2"))
		require.NoError(t, err)
		assert.Equal(t, now, (<-h).at)
		assert.Contains(t, w.alarms, enclave.Code("E515"))
	})
}

func TestARevocationThatCantBeStored(t *testing.T) {
	t.Parallel()
	const full = "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
	bubble(t, "acts at once, and is stored when there is space", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		synctest.Wait()
		h1, h2 := w.watch(k, "n1"), w.watch(k, "n2")
		w.tell("CREATE TRIGGER full BEFORE UPDATE ON enrolments " + full)
		w.tell("CREATE TRIGGER fuller BEFORE INSERT ON failures " + full)
		certificate := w.certificate("n2")
		now := time.Now()
		_, err := w.v.Revoke(t.Context(), 0, revoke("n2"))
		assert.Equal(t, "E507 service", told(err))
		require.ErrorContains(t, err, "node n2 is out now and 1 of its jobs")
		one := <-h1
		require.NoError(t, one.err)
		assert.Equal(t, []string{"n2"}, one.gone)
		assert.Equal(t, now, one.at)
		assert.Equal(t, "E532 node", told((<-h2).err))
		assert.Equal(t, []string{"n2"}, w.site.Drained())
		assert.Contains(t, w.site.Calls(), "end 7.0")
		assert.Contains(t, w.alarms, enclave.Code("E507"))
		_, err = w.v.Authenticate(t.Context(), certificate)
		assert.Equal(t, "E130 service", told(err))
		_, err = w.v.Authenticate(t.Context(), w.certificate("n1"))
		require.NoError(t, err, "the others")
		fleet, err := w.v.Fleet(t.Context(), verifier.Viewer{Operator: true})
		require.NoError(t, err)
		assert.False(t, fleet.Nodes[1].Enrolled)
		assert.Equal(t, "E532 node", told(fleet.Nodes[1].Refusal))

		require.Error(t, w.v.SealDue(t.Context()))
		w.tell("DROP TRIGGER full")
		w.tell("DROP TRIGGER fuller")
		require.NoError(t, w.v.SealDue(t.Context()))
		w.restart()
		_, err = w.v.Authenticate(t.Context(), certificate)
		assert.Equal(t, "E130 service", told(err))
		fleet, err = w.v.Fleet(t.Context(), verifier.Viewer{Operator: true})
		require.NoError(t, err)
		assert.Equal(t, now.UTC(), *fleet.Nodes[1].RevokedAt)
		assert.True(t, fleet.Nodes[1].Drained, "enclave node return can undo it")
	})
	bubble(t, "asked for again it is stored, and what was kept does not revoke the next enrolment", func(t *testing.T, w *world) {
		w.tell("CREATE TRIGGER full BEFORE UPDATE ON enrolments " + full)
		_, err := w.v.Revoke(t.Context(), 0, revoke("n2"))
		assert.Equal(t, "E507 service", told(err))
		w.tell("DROP TRIGGER full")
		_, err = w.v.Revoke(t.Context(), 0, revoke("n2"))
		require.NoError(t, err)
		w.enrol("n2")
		require.NoError(t, w.v.SealDue(t.Context()))
		_, err = w.v.Authenticate(t.Context(), w.certificate("n2"))
		require.NoError(t, err)
	})
	bubble(t, "a job whose entry can't be read ends as well", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		synctest.Wait()
		h1, h2 := w.watch(k, "n1"), w.watch(k, "n2")
		w.tell("UPDATE jobs SET weak=1, body='{' || body")
		_, err := w.v.Revoke(t.Context(), 0, revoke("n2"))
		require.NoError(t, err)
		assert.Equal(t, "E502 service", told((<-h1).err), "there is no roster without n2, and none with it")
		assert.Equal(t, "E532 node", told((<-h2).err))
		assert.Contains(t, w.site.Calls(), "end 7.0")
		assert.Contains(t, w.alarms, enclave.Code("E507"))
		w.tell("UPDATE jobs SET body=substr(body, 2)")
		require.NoError(t, w.v.SealDue(t.Context()))
		e := w.entry(k)
		assert.Equal(t, enclave.VerdictRefused, e.Verdict)
		assert.Equal(t, enclave.Code("E532"), e.Refusal.Code)
		assert.True(t, e.Weak)
	})
}

func TestAFailedRenewalPutsTheNodeOut(t *testing.T) {
	t.Parallel()
	bubble(t, "it leaves the roster as a revoked one does", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		synctest.Wait()
		h1, h2 := w.watch(k, "n1"), w.watch(k, "n2")
		w.nodes["n2"].Fail = "tcb_minimum"
		assert.Equal(t, "E235 node", told(w.renew(k, "n2")))
		require.NoError(t, (<-h1).err)
		assert.Equal(t, "E235 node", told((<-h2).err))
		assert.Equal(t, []string{"n2"}, w.site.Drained())
		assert.Equal(t, []string{"record 7.0", "drain n2", "record 7.0", "end 7.0"}, w.site.Calls())
		list, err := w.settings.Ledger.Renewals(t.Context(), k)
		require.NoError(t, err)
		require.Len(t, list, 1)
		assert.False(t, list[0].Good)
		_, err = w.v.Authenticate(t.Context(), w.certificate("n2"))
		require.NoError(t, err, "it is broken, not revoked")
	})
	for name, c := range map[string]struct {
		want  string
		spoil func(w *world, a *api.Announcement)
	}{
		"of another epoch":             {"E127 service", func(_ *world, a *api.Announcement) { a.Epoch = 2 }},
		"for another purpose":          {"E127 service", func(_ *world, a *api.Announcement) { a.Purpose = claim.PurposeJob }},
		"with a nonce that is made up": {"E126 service", func(_ *world, a *api.Announcement) { a.Nonce[3]++ }},
		"with a nonce of another node": {"E126 service", func(w *world, a *api.Announcement) {
			n, err := w.v.Nonce(w.t.Context(), "n2", api.NonceRequest{Job: a.Job, Node: "n2", Purpose: claim.PurposeRenew})
			require.NoError(w.t, err)
			a.Nonce = n.Nonce
		}},
		"with a nonce that is too old": {"E126 service", func(*world, *api.Announcement) { time.Sleep(61 * time.Second) }},
	} {
		bubble(t, "a renewal "+name+" changes nothing", func(t *testing.T, w *world) {
			k := w.register(job(7, "n1", "n2"))
			w.all(k, "n1", "n2")
			n, err := w.v.Nonce(t.Context(), "n1", api.NonceRequest{Job: k, Node: "n1", Purpose: claim.PurposeRenew})
			require.NoError(t, err)
			a, err := w.nodes["n1"].Announce(k, claim.PurposeRenew, n)
			require.NoError(t, err)
			c.spoil(w, &a)
			require.NoError(t, w.nodes["n1"].Resign(&a))
			_, err = w.v.Renew(t.Context(), "n1", a)
			assert.Equal(t, c.want, told(err))
			assert.Empty(t, w.site.Drained())
			require.NoError(t, w.renew(k, "n1"))
		})
	}
	bubble(t, "a strange caller hears nothing", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		ask := func(caller, node string, key enclave.JobKey, epoch uint32) error {
			_, err := w.v.Watch(t.Context(), caller, api.WatchRequest{NodeRequest: api.NodeRequest{Job: key, Node: node, Epoch: epoch}})
			return err
		}
		assert.Equal(t, "E128 service", told(ask("n3", "n1", k, 1)), "in another's name")
		assert.Equal(t, "E128 request", told(ask("n3", "n3", k, 1)), "of a job that it is not in")
		assert.Equal(t, "E502 service", told(ask("n1", "n1", enclave.JobKey{Cluster: "c1", Job: 99}, 1)))
		assert.Equal(t, "E502 service", told(ask("n1", "n1", k, 9)), "of an epoch to come")
	})
}

func TestOverdue(t *testing.T) {
	t.Parallel()
	overdue := func(w *world) time.Duration { return w.settings.Config.Limits.Overdue() }
	bubble(t, "a node that fell silent ends the job, and nobody is drained for it", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		synctest.Wait()
		h := w.watch(k, "n1")
		for range 5 {
			time.Sleep(overdue(w) / 5)
			require.NoError(t, w.renew(k, "n1"))
		}
		assert.Empty(t, w.site.String())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Equal(t, "7.0 ended\n", w.site.String())
		assert.Equal(t, []string{"n2"}, (<-h).gone)
		e := w.entry(k)
		assert.Equal(t, enclave.Code("E531"), e.Refusal.Code)
		assert.Equal(t, enclave.FaultService, e.Refusal.Fault)
		assert.Equal(t, []enclave.Code{"E531"}, w.alarms)
		time.Sleep(3 * overdue(w))
		assert.Equal(t, []enclave.Code{"E531"}, w.alarms, "told once")
	})
	bubble(t, "nodes that renew are never overdue", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		for range 20 {
			time.Sleep(overdue(w) / 2)
			require.NoError(t, w.renew(k, "n1"))
			require.NoError(t, w.renew(k, "n2"))
		}
		assert.Empty(t, w.site.String())
		r, err := w.v.Report(t.Context(), verifier.Viewer{UID: 2001}, 7, nil)
		require.NoError(t, err)
		assert.Equal(t, 20, r.Nodes[0].Renewals)
		assert.NotNil(t, r.Nodes[1].Renewed)
		assert.Empty(t, r.Departures)
	})
	bubble(t, "the clocks start anew when enclaved does", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		time.Sleep(overdue(w) - time.Minute)
		w.close()
		time.Sleep(10 * time.Hour)
		w.open()
		time.Sleep(overdue(w) - time.Minute)
		assert.Empty(t, w.site.String())
		h := w.watch(k, "n1")
		require.NoError(t, w.renew(k, "n1"))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		assert.Equal(t, "7.0 ended\n", w.site.String())
		got := <-h
		require.NoError(t, got.err)
		assert.Equal(t, []string{"n2"}, got.gone)
	})
	bubble(t, "a job that is over in Slurm is not ended for it", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		w.site.SetJob(7, enclave.JobState{State: "COMPLETED"})
		time.Sleep(3 * overdue(w))
		assert.Empty(t, w.site.String())
		assert.Nil(t, w.entry(k).Refusal)
	})
	bubble(t, "Slurm that does not answer is no proof", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		synctest.Wait()
		w.site.SetAway(true)
		time.Sleep(3 * overdue(w))
		assert.Nil(t, w.entry(k).Refusal)
		w.site.SetAway(false)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		assert.NotNil(t, w.entry(k).Refusal)
		assert.Equal(t, "7.0 ended\n", w.site.String())
	})
	bubble(t, "a job that Slurm did not hear of is ended again after a restart", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		synctest.Wait()
		w.site.SetAway(true)
		_, err := w.v.Revoke(t.Context(), 0, revoke("n2"))
		require.NoError(t, err)
		w.site.SetAway(false)
		w.restart()
		synctest.Wait()
		assert.Equal(t, "7.0 ended\n", w.site.String())
		assert.Equal(t, "E502 service", told((<-w.watch(k, "n1")).err), "the seed went with the process: this node closes by itself")
		assert.Equal(t, "E532 node", told((<-w.watch(k, "n2")).err))
	})
}
