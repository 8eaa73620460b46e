package verifier_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

func TestAnnouncementsThatChangeNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		want   string
		change func(*testing.T, *world, *api.Announcement)
	}{
		"an unknown nonce": {"E126 service", func(_ *testing.T, _ *world, a *api.Announcement) { a.Nonce[0]++ }},
		"another node's nonce": {"E126 service", func(_ *testing.T, w *world, a *api.Announcement) {
			a.Nonce = w.nonce(a.Job, "n2").Nonce
		}},
		"another job's nonce": {"E126 service", func(_ *testing.T, w *world, a *api.Announcement) {
			a.Nonce = w.nonce(w.register(job(8, "n1")), "n1").Nonce
		}},
		"an expired nonce":  {"E126 service", func(_ *testing.T, _ *world, _ *api.Announcement) { <-time.After(31 * time.Second) }},
		"another epoch":     {"E502 service", func(_ *testing.T, _ *world, a *api.Announcement) { a.Epoch++ }},
		"another purpose":   {"E502 service", func(_ *testing.T, _ *world, a *api.Announcement) { a.Purpose = claim.PurposeRenew }},
		"an unknown job":    {"E502 service", func(_ *testing.T, _ *world, a *api.Announcement) { a.Job.Job++ }},
		"another start":     {"E502 service", func(_ *testing.T, _ *world, a *api.Announcement) { a.Job.Restart++ }},
		"another node name": {"E128 service", func(_ *testing.T, _ *world, a *api.Announcement) { a.Node = "n2" }},
	} {
		bubble(t, name+" is refused, and the node may still pass", func(t *testing.T, w *world) {
			w.restartWithNonces(30)
			k := w.register(job(7, "n1", "n2"))
			a := w.announce(k, "n1")
			c.change(t, w, &a)
			require.NoError(t, w.nodes["n1"].Resign(&a))
			_, err := w.v.PostEvidence(t.Context(), "n1", a)
			assert.Equal(t, c.want, told(err))
			assert.Equal(t, map[string]string{"n1": "go", "n2": "go"}, w.all(k, "n1", "n2"))
		})
	}
	bubble(t, "an announcement signed by another key is refused", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		a := w.announce(k, "n1")
		_, other, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		require.NoError(t, a.Sign(func(m []byte) ([]byte, error) { return ed25519.Sign(other, m), nil }))
		_, err = w.v.PostEvidence(t.Context(), "n1", a)
		assert.Equal(t, "E127 service", told(err))
		assert.Equal(t, map[string]string{"n1": "go", "n2": "go"}, w.all(k, "n1", "n2"))
	})
	bubble(t, "a node that is not of the job is refused", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		assert.Equal(t, map[string]string{"n9": "E128 request"}, w.all(k, "n9"))
		assert.Equal(t, "E128 request", told(w.broken(t.Context(), k, "n9", "E210", enclave.FaultNode)))
		_, err := w.v.Leaves(t.Context(), "n9", api.NodeRequest{Job: k, Node: "n9", Epoch: 1})
		assert.Equal(t, "E128 request", told(err))
		require.Error(t, w.v.TeardownReport(t.Context(), "n9", api.TeardownRequest{NodeRequest: api.NodeRequest{Job: k, Node: "n9"}}))
		assert.Equal(t, map[string]string{"n1": "go", "n2": "go"}, w.all(k, "n1", "n2"))
	})
}

// restartWithNonces gives the world nonces of another life.
func (w *world) restartWithNonces(seconds uint32) {
	w.settings.Config.Limits.NonceSeconds = seconds
	w.restart()
}

func TestEvidenceThatBlamesItsNode(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		want   string
		change func(*testing.T, *world, *api.Announcement)
	}{
		"evidence of another job": {"E228 node", func(_ *testing.T, w *world, a *api.Announcement) {
			other := w.announce(w.register(job(8, "n1")), "n1")
			a.Evidence = other.Evidence
		}},
		"evidence for another tunnel key": {"E228 node", func(_ *testing.T, _ *world, a *api.Announcement) { a.Keys.WireGuard[0]++ }},
		"evidence of another node": {"E228 node", func(_ *testing.T, w *world, a *api.Announcement) {
			a.Evidence = w.announce(a.Job, "n2").Evidence
		}},
		"evidence that is garbage": {"E220 node", func(_ *testing.T, _ *world, a *api.Announcement) { a.Evidence.Report = []byte("x") }},
		"another's address": {"E250 node", func(_ *testing.T, _ *world, a *api.Announcement) {
			a.Addresses = append(a.Addresses, netip.MustParseAddr("10.0.0.2"))
		}},
		"no address": {"E250 node", func(_ *testing.T, _ *world, a *api.Announcement) { a.Addresses = nil }},
		"another's endpoint": {"E250 node", func(_ *testing.T, _ *world, a *api.Announcement) {
			a.Endpoint = netip.MustParseAddrPort("10.0.0.2:51820")
		}},
		"a chip that is not the enrolled one": {"E237 node", func(_ *testing.T, w *world, a *api.Announcement) {
			w.nodes["n1"].Chip = strings.Repeat("ab", 64)
			*a = w.announce(a.Job, "n1")
		}},
		"an enrolment that was revoked": {"E252 node", func(t *testing.T, w *world, _ *api.Announcement) {
			require.NoError(t, w.settings.Ledger.Revoke(t.Context(), "n1", 0, "test", time.Now()))
		}},
		"a sealing key that is none": {"E228 node", func(_ *testing.T, _ *world, a *api.Announcement) { a.Keys.HPKE = []byte("x") }},
	} {
		bubble(t, name+" is refused", func(t *testing.T, w *world) {
			k := w.register(job(7, "n1", "n2"))
			a := w.announce(k, "n1")
			c.change(t, w, &a)
			require.NoError(t, w.nodes["n1"].Resign(&a))
			got := together(map[string]func() error{
				"n1": func() error { _, err := w.v.PostEvidence(t.Context(), "n1", a); return err },
				"n2": func() error { return w.bringUp(t.Context(), k, "n2") },
			})
			assert.Equal(t, map[string]string{"n1": c.want, "n2": "E501 service"}, got)
			assert.Equal(t, []string{"n1"}, w.site.Drained())
		})
	}
	bubble(t, "two nodes with one tunnel key are refused", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.nodes["n2"].Keys.WireGuard = w.nodes["n1"].Keys.WireGuard
		got := w.all(k, "n1", "n2")
		assert.ElementsMatch(t, []string{"E223 node", "E501 service"}, []string{got["n1"], got["n2"]})
	})
}

// What waits for its turn does not grow too old by that; what comes too late does.
func TestANonceCountsWhenTheCallBegan(t *testing.T) {
	for name, c := range map[string]struct {
		began time.Duration // after the nonce
		code  string
	}{"a call that began in time is taken, though its turn came late": {29 * time.Second, ""}, "one that began too late is not": {31 * time.Second, "E126"}} {
		bubble(t, name, func(t *testing.T, w *world) {
			w.v.Config.Limits.NonceSeconds = 30 // less than the barrier's
			k := w.register(job(7, "n1", "n2"))
			a := w.announce(k, "n1")
			began := time.Now().Add(c.began)
			<-time.After(35 * time.Second)
			err := w.v.TakeEvidence(t.Context(), "n1", a, began)
			if c.code == "" {
				require.NoError(t, err)
				return
			}
			r, ok := enclave.AsRefusal(err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, enclave.Code(c.code), r.Code)
		})
	}
}

func TestSecondAnnouncements(t *testing.T) {
	t.Parallel()
	bubble(t, "the same again waits for the same answer", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		a := w.announce(k, "n1")
		post := func() error { _, err := w.v.PostEvidence(t.Context(), "n1", a); return err }
		got := together(map[string]func() error{
			"first": post,
			"again": func() error { <-time.After(time.Second); return post() },
			"n2":    func() error { <-time.After(2 * time.Second); return w.evidence(t.Context(), k, "n2") },
		})
		assert.Equal(t, map[string]string{"first": "go", "again": "go", "n2": "go"}, got)
		require.NoError(t, post(), "and behind the barrier, too")
		list, err := w.settings.Ledger.EvidenceOf(t.Context(), k)
		require.NoError(t, err)
		assert.Len(t, list, 2)
	})
	bubble(t, "another one is refused, and the first stands", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		first, second := w.announce(k, "n1"), w.announce(k, "n1")
		got := together(map[string]func() error{
			"first": func() error { _, err := w.v.PostEvidence(t.Context(), "n1", first); return err },
			"second": func() error {
				<-time.After(time.Second)
				_, err := w.v.PostEvidence(t.Context(), "n1", second)
				return err
			},
			"n2": func() error { <-time.After(2 * time.Second); return w.evidence(t.Context(), k, "n2") },
		})
		assert.Equal(t, map[string]string{"first": "go", "second": "E125 service", "n2": "go"}, got)
	})
	bubble(t, "a nonce works once, though evidence was lost on the way", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		a := w.announce(k, "n1")
		a.Evidence.Report = []byte("garbage")
		require.NoError(t, w.nodes["n1"].Resign(&a))
		go func() { _, _ = w.v.PostEvidence(t.Context(), "n1", a) }() // blocks at the barrier
		synctest.Wait()
		a.Evidence.Report = []byte("more garbage")
		require.NoError(t, w.nodes["n1"].Resign(&a))
		_, err := w.v.PostEvidence(t.Context(), "n1", a)
		assert.Equal(t, "E125 service", told(err))
		w.v.Close()
	})
	bubble(t, "nonces are bounded, and expire", func(t *testing.T, w *world) {
		w.restartWithNonces(10)
		k := w.register(job(7, "n1"))
		for range 8 {
			w.nonce(k, "n1")
		}
		_, err := w.v.Nonce(t.Context(), "n1", api.NonceRequest{Job: k, Node: "n1", Purpose: claim.PurposeJob})
		assert.Equal(t, "E124 service", told(err))
		<-time.After(11 * time.Second)
		w.nonce(k, "n1")
	})
	bubble(t, "a policy that changes in between refuses the start", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		a := w.announce(k, "n1")
		w.appraiser.Version++
		_, err := w.v.PostEvidence(t.Context(), "n1", a)
		assert.Equal(t, "E508 service", told(err))
		assert.Empty(t, w.site.Drained())
	})
}

func TestStormGuard(t *testing.T) {
	t.Parallel()
	wrong := func(w *world, check string, nodes ...string) {
		for _, n := range nodes {
			w.nodes[n].Fail = check
		}
	}
	bubble(t, "the same check on all nodes of a job is the policy's fault", func(t *testing.T, w *world) {
		wrong(w, "measurement", "n1", "n2")
		k := w.register(job(7, "n1", "n2"))
		assert.Equal(t, map[string]string{"n1": "E530 policy", "n2": "E530 policy"}, w.all(k, "n1", "n2"))
		assert.Empty(t, w.site.Drained())
		assert.Equal(t, []enclave.Code{"E530"}, w.alarms)
		assert.Equal(t, enclave.FaultPolicy, w.entry(k).Refusal.Fault)
	})
	bubble(t, "different checks on all nodes are the nodes' faults", func(t *testing.T, w *world) {
		wrong(w, "measurement", "n1")
		wrong(w, "debug", "n2")
		k := w.register(job(7, "n1", "n2"))
		assert.Equal(t, map[string]string{"n1": "E229 node", "n2": "E231 node"}, w.all(k, "n1", "n2"))
		assert.Equal(t, []string{"n1", "n2"}, w.site.Drained())
	})
	bubble(t, "single-node jobs count towards the window: the third node frees the first two", func(t *testing.T, w *world) {
		wrong(w, "tcb_minimum", "n1", "n2", "n3")
		for i, n := range []string{"n1", "n2"} {
			k := w.register(job(uint32(7+i), n))
			assert.Equal(t, map[string]string{n: "E235 node"}, w.all(k, n), "alone it is the node's fault")
			<-time.After(time.Minute)
		}
		assert.Equal(t, []string{"n1", "n2"}, w.site.Drained())
		k := w.register(job(9, "n3"))
		assert.Equal(t, map[string]string{"n3": "E530 policy"}, w.all(k, "n3"))
		assert.Empty(t, w.site.Drained())
		assert.Equal(t, []enclave.Code{"E530"}, w.alarms)
	})
	bubble(t, "the window outlives a restart", func(t *testing.T, w *world) {
		wrong(w, "tcb_minimum", "n1", "n2", "n3")
		for i, n := range []string{"n1", "n2", "n3"} {
			w.all(w.register(job(uint32(7+i), n)), n)
			w.restart()
		}
		assert.Empty(t, w.site.Drained())
	})
	bubble(t, "what is older than the window does not count", func(t *testing.T, w *world) {
		wrong(w, "tcb_minimum", "n1", "n2", "n3")
		for i, n := range []string{"n1", "n2", "n3"} {
			w.all(w.register(job(uint32(7+i), n)), n)
			<-time.After(6 * time.Minute)
		}
		assert.Equal(t, []string{"n1", "n2", "n3"}, w.site.Drained())
	})
	bubble(t, "one node failing three times is one node", func(t *testing.T, w *world) {
		wrong(w, "tcb_minimum", "n1")
		for i := range uint32(4) {
			w.all(w.register(job(7+i, "n1")), "n1")
		}
		assert.Equal(t, []string{"n1"}, w.site.Drained())
		assert.Empty(t, w.alarms)
	})
	bubble(t, "nodes that break one after the other in one job are found out, too", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		assert.Equal(t, "E210 node", told(w.broken(t.Context(), k, "n1", "E210", enclave.FaultNode)))
		assert.Equal(t, []string{"n1"}, w.site.Drained())
		assert.Equal(t, "E530 policy", told(w.broken(t.Context(), k, "n2", "E210", enclave.FaultNode)))
		assert.Empty(t, w.site.Drained())
	})
	bubble(t, "an admin puts a node back, once", func(t *testing.T, w *world) {
		wrong(w, "debug", "n1")
		w.all(w.register(job(7, "n1")), "n1")
		assert.Equal(t, "E156 request", told(w.v.Return(t.Context(), "n1")), "not before it has proved itself")
		wrong(w, "", "n1")
		require.NoError(t, prove(t, w, "n1", func(*api.ProveRequest) {}))
		require.NoError(t, w.v.Return(t.Context(), "n1"))
		assert.Empty(t, w.site.Drained())
		assert.Equal(t, "E140 request", told(w.v.Return(t.Context(), "n1")))
		assert.Equal(t, "E140 request", told(w.v.Return(t.Context(), "n2")))
	})
	bubble(t, "a node that an admin drained stays drained", func(t *testing.T, w *world) {
		require.NoError(t, w.site.Drain(t.Context(), "n1", "broken fan"))
		wrong(w, "tcb_minimum", "n1", "n2", "n3")
		for i, n := range []string{"n1", "n2", "n3"} {
			w.all(w.register(job(uint32(7+i), n)), n)
		}
		assert.Equal(t, "n1 drained broken fan\n", w.site.String())
	})
	bubble(t, "a node that is not closed after a job is drained", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		left := &enclave.Refusal{Code: "E240", Fault: enclave.FaultNode, Node: "n5", Reason: "rule left\nover \"x\""}
		require.NoError(t, w.v.TeardownReport(t.Context(), "n1", api.TeardownRequest{NodeRequest: api.NodeRequest{Job: k, Node: "n1", Epoch: 1}, Refusal: left}))
		assert.Equal(t, "n1 drained enclave:E240 rule left?over 'x'\n", w.site.String(), "it speaks for itself only, on one line")
	})
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	renew := func(t *testing.T, w *world, k enclave.JobKey, node string) error {
		t.Helper()
		n, err := w.v.Nonce(t.Context(), node, api.NonceRequest{Job: k, Node: node, Purpose: claim.PurposeRenew})
		if err != nil {
			return err
		}
		a, err := w.nodes[node].Announce(k, claim.PurposeRenew, n)
		require.NoError(t, err)
		_, err = w.v.Renew(t.Context(), node, a)
		return err
	}
	bubble(t, "a good node is renewed, over a restart of the verifier", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		require.NoError(t, renew(t, w, k, "n1"))
		w.restart()
		require.NoError(t, renew(t, w, k, "n1"))
	})
	bubble(t, "the same announcement does not renew twice", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		n, err := w.v.Nonce(t.Context(), "n1", api.NonceRequest{Job: k, Node: "n1", Purpose: claim.PurposeRenew})
		require.NoError(t, err)
		a, err := w.nodes["n1"].Announce(k, claim.PurposeRenew, n)
		require.NoError(t, err)
		_, err = w.v.Renew(t.Context(), "n1", a)
		require.NoError(t, err)
		_, err = w.v.Renew(t.Context(), "n1", a)
		assert.Equal(t, "E126 service", told(err))
		assert.Empty(t, w.site.Drained())
	})
	bubble(t, "a node that fails ends the job and is drained", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.all(k, "n1", "n2")
		w.nodes["n1"].Fail = "tcb_minimum"
		assert.Equal(t, "E235 node", told(renew(t, w, k, "n1")))
		assert.Equal(t, "E235 node", told(renew(t, w, k, "n2")), "no renewal for the others either")
		assert.Equal(t, "n1 drained enclave:E235 check tcb_minimum: as the test wants it (see enclave why n1)\n7.0 ended\n", w.site.String())
	})
	bubble(t, "other keys are refused", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		w.nodes["n1"].Keys.WireGuard[0]++
		assert.Equal(t, "E224 node", told(renew(t, w, k, "n1")))
	})
	bubble(t, "a job that never began, or is over, has no renewal", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		assert.Equal(t, "E502 service", told(renew(t, w, k, "n1")))
		w.all(k, "n1")
		_, err := w.v.Settled(t.Context(), k)
		require.NoError(t, err)
		assert.Equal(t, "E502 service", told(renew(t, w, k, "n1")))
	})
}

func TestEnrolment(t *testing.T) {
	t.Parallel()
	wish := func(t *testing.T, w *world, node string) (api.EnrolRequest, ed25519.PrivateKey) {
		t.Helper()
		_, key, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		return w.wish(node, key), key
	}
	bubble(t, "a node is enrolled by an admin who names its chip", func(t *testing.T, w *world) {
		r, _ := wish(t, w, "n1")
		ticket, err := w.v.EnrolRequest(t.Context(), "10.0.0.1", r)
		require.NoError(t, err)
		status := api.EnrolStatusRequest{Node: "n1", Fingerprint: ticket.Fingerprint}
		s, err := w.v.EnrolStatus(t.Context(), status)
		require.NoError(t, err)
		assert.Equal(t, api.EnrolPending, s.State)
		list, err := w.v.PendingEnrols(t.Context())
		require.NoError(t, err)
		require.Len(t, list.Pending, 1)
		p := list.Pending[0]
		assert.Equal(t, w.nodes["n1"].Chip, p.ChipID)
		assert.Equal(t, w.nodes["n1"].Chip, p.Replaces)
		yes := api.ApproveRequest{Node: "n1", Fingerprint: p.Fingerprint, ChipID: strings.Repeat("ab", 64)}
		_, err = w.v.EnrolApprove(t.Context(), 0, yes)
		assert.Equal(t, "E139 request", told(err), "another chip")
		yes.ChipID = p.ChipID
		_, err = w.v.EnrolApprove(t.Context(), 0, yes)
		require.NoError(t, err)
		s, err = w.v.EnrolStatus(t.Context(), status)
		require.NoError(t, err)
		node, err := w.v.Authenticate(t.Context(), s.Certificate)
		require.NoError(t, err)
		assert.Equal(t, "n1", node)
		trail, err := w.settings.Ledger.Enrolments(t.Context(), "n1")
		require.NoError(t, err)
		assert.Len(t, trail, 2, "the one before is on record")
		_, err = w.v.Revoke(t.Context(), 0, api.RevokeRequest{Node: "n1"})
		require.NoError(t, err)
		_, err = w.v.Authenticate(t.Context(), s.Certificate)
		assert.Equal(t, "E130 service", told(err))
	})
	bubble(t, "wishes that don't hold are refused", func(t *testing.T, w *world) {
		_, err := w.v.EnrolNonce(t.Context(), api.EnrolNonceRequest{Node: "stranger"})
		assert.Equal(t, "E136 request", told(err))
		for want, change := range map[string]func(*api.EnrolRequest){
			"E136 request": func(r *api.EnrolRequest) { r.CSR = []byte("x") },
			"E126 service": func(r *api.EnrolRequest) { r.Nonce[0]++ },
		} {
			r, _ := wish(t, w, "n1")
			change(&r)
			_, err = w.v.EnrolRequest(t.Context(), "", r)
			assert.Equal(t, want, told(err))
		}
		r, _ := wish(t, w, "n1")
		other, _ := wish(t, w, "n1")
		r.CSR = other.CSR
		_, err = w.v.EnrolRequest(t.Context(), "", r)
		assert.Equal(t, "E136 request", told(err), "a report for another key")
		r, _ = wish(t, w, "n2")
		r.Node = "n1"
		_, err = w.v.EnrolRequest(t.Context(), "", r)
		assert.Equal(t, "E136 request", told(err), "a request in another's name")
		list, err := w.v.PendingEnrols(t.Context())
		require.NoError(t, err)
		assert.Empty(t, list.Pending)
	})
	bubble(t, "wishes are bounded per node, and expire", func(t *testing.T, w *world) {
		for range 4 {
			r, _ := wish(t, w, "n1")
			_, err := w.v.EnrolRequest(t.Context(), "", r)
			require.NoError(t, err)
		}
		r, _ := wish(t, w, "n1")
		_, err := w.v.EnrolRequest(t.Context(), "", r)
		assert.Equal(t, "E137 service", told(err))
		<-time.After(61 * time.Minute)
		r, _ = wish(t, w, "n1")
		ticket, err := w.v.EnrolRequest(t.Context(), "", r)
		require.NoError(t, err)
		<-time.After(61 * time.Minute)
		_, err = w.v.EnrolStatus(t.Context(), api.EnrolStatusRequest{Node: "n1", Fingerprint: ticket.Fingerprint})
		assert.Equal(t, "E138 request", told(err))
	})
	bubble(t, "a masked chip can't be enrolled", func(t *testing.T, w *world) {
		w.nodes["n1"].Chip = strings.Repeat("0", 128)
		r, _ := wish(t, w, "n1")
		ticket, err := w.v.EnrolRequest(t.Context(), "", r)
		require.NoError(t, err)
		_, err = w.v.EnrolApprove(t.Context(), 0, api.ApproveRequest{Node: "n1", Fingerprint: ticket.Fingerprint, ChipID: w.nodes["n1"].Chip})
		assert.Equal(t, "E139 request", told(err))
	})
	bubble(t, "a masked chip is enrolled by the report id that the admin saw", func(t *testing.T, w *world) {
		n := w.nodes["n1"]
		n.Chip, n.ReportID = strings.Repeat("0", 128), strings.Repeat("ab", 32)
		r, _ := wish(t, w, "n1")
		ticket, err := w.v.EnrolRequest(t.Context(), "", r)
		require.NoError(t, err)
		list, err := w.v.PendingEnrols(t.Context())
		require.NoError(t, err)
		require.Equal(t, n.ReportID, list.Pending[0].ReportID)
		yes := api.ApproveRequest{Node: "n1", Fingerprint: ticket.Fingerprint, ChipID: n.Chip}
		for _, id := range []string{"", strings.Repeat("cd", 32)} {
			yes.ReportID = id
			_, err = w.v.EnrolApprove(t.Context(), 0, yes)
			assert.Equal(t, "E139 request", told(err), id)
		}
		yes.ReportID = n.ReportID
		_, err = w.v.EnrolApprove(t.Context(), 0, yes)
		require.NoError(t, err)
		e, err := w.settings.Ledger.Enrolled(t.Context(), "n1")
		require.NoError(t, err)
		assert.Equal(t, n.ReportID, e.ReportID)
		k := w.register(job(1, "n1"))
		require.NoError(t, w.bringUp(t.Context(), k, "n1"))
		n.ReportID = strings.Repeat("cd", 32)
		k = w.register(job(2, "n1"))
		err = w.bringUp(t.Context(), k, "n1")
		assert.Equal(t, "E237 node", told(err), "started anew")
		refusal, _ := enclave.AsRefusal(err)
		assert.Contains(t, refusal.Fix, "enclave node enrol --request")
	})
	bubble(t, "a certificate of another authority, or for another use, is refused", func(t *testing.T, w *world) {
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		foreign, err := pki.New(key)
		require.NoError(t, err)
		der, err := foreign.Node("n1", pub)
		require.NoError(t, err)
		server, err := w.settings.Authority.Server()
		require.NoError(t, err)
		unknown, err := w.settings.Authority.Node("n1", pub)
		require.NoError(t, err)
		for name, c := range map[string][]byte{"foreign": der, "server": server.Certificate[0], "authority": server.Certificate[1], "never enrolled": unknown, "garbage": []byte("x")} {
			_, err := w.v.Authenticate(t.Context(), c)
			assert.Equal(t, "E130 service", told(err), fmt.Sprint(name))
		}
	})
}
