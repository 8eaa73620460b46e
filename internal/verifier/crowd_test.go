package verifier_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
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
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/verifiertest"
)

const crowd = 100

// grow gives the world as many nodes as a crowd has, and their names.
func (w *world) grow() []string {
	w.t.Helper()
	var names []string
	for i := 1; i <= crowd; i++ {
		name := fmt.Sprintf("n%d", i)
		names = append(names, name)
		if w.nodes[name] != nil {
			continue
		}
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		w.settings.Inventory.Nodes = append(w.settings.Inventory.Nodes, enclave.Node{Name: name, Addresses: []netip.Addr{a}, Tunnel: a})
		var err error
		w.nodes[name], err = verifiertest.NewNode(name, a, w.v.Public())
		require.NoError(w.t, err)
		w.enrol(name)
	}
	w.restart()
	return names
}

func count(told map[string]string) map[string]int {
	out := map[string]int{}
	for _, s := range told {
		out[s]++
	}
	return out
}

// slow takes its time over each piece of evidence.
type slow struct{ *verifiertest.Appraiser }

// Appraise is the other's, later.
func (s slow) Appraise(r verifier.Rules, e enclave.Evidence, c claim.Claim, m verifier.Machine) enclave.AttestationResult {
	time.Sleep(100 * time.Millisecond)
	return s.Appraiser.Appraise(r, e, c, m)
}

func TestACrowd(t *testing.T) {
	t.Parallel()
	bubble(t, "a hundred nodes are let in, each with its own place on one roster", func(t *testing.T, w *world) {
		names := w.grow()
		k := w.register(job(7, names...))
		assert.Equal(t, map[string]int{"go": crowd}, count(w.all(k, names...)))
		synctest.Wait()
		peers, err := w.leaves("n1", api.NodeRequest{Job: k, Node: "n1", Epoch: 1})
		require.NoError(t, err)
		header, err := roster.DecodeHeader(w.entry(k).Header)
		require.NoError(t, err)
		require.NoError(t, roster.CheckPeers(header, peers))
		members, err := w.settings.Ledger.Members(t.Context(), k)
		require.NoError(t, err)
		require.Len(t, members, crowd)
		for _, m := range members {
			assert.NotNil(t, m.Keys, m.Node)
			assert.NotNil(t, m.Result, m.Node)
			assert.Contains(t, string(m.Ready), `"mesh":5`, m.Node)
		}
	})
	bubble(t, "a straggler holds all back, and lets all go", func(t *testing.T, w *world) {
		names := w.grow()
		k := w.register(job(7, names...))
		late := map[string]func() error{}
		begun := time.Now()
		for _, n := range names {
			late[n] = func() error { return w.bringUp(t.Context(), k, n) }
		}
		late["n50"] = func() error {
			time.Sleep(20 * time.Second)
			synctest.Wait()
			assert.False(t, w.goFile(k), "nobody goes before the last")
			return w.bringUp(t.Context(), k, "n50")
		}
		assert.Equal(t, map[string]int{"go": crowd}, count(together(late)))
		assert.Equal(t, 20*time.Second, time.Since(begun), "nothing else is waited for")
	})
	bubble(t, "a lost node: all are refused at the deadline, and it alone is drained", func(t *testing.T, w *world) {
		names := w.grow()
		k := w.register(job(7, names...))
		w.nonce(k, "n50")
		told := w.all(k, slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "n50" })...)
		assert.Equal(t, map[string]int{"E501 service": crowd - 1}, count(told))
		assert.Equal(t, []string{"n50"}, w.site.Drained())
		assert.False(t, w.goFile(k))
	})
	bubble(t, "a node that posts twice at once gets one answer twice", func(t *testing.T, w *world) {
		w.settings.Appraiser = slow{w.appraiser}
		names := w.grow()
		k := w.register(job(7, names...))
		n1 := w.nodes["n1"]
		a := w.announce(k, "n1")
		other, err := n1.Announce(k, claim.PurposeJob, w.nonce(k, "n1"))
		require.NoError(t, err)
		answers := make(chan roster.Answer, 2)
		post := func(ctx context.Context) error {
			answer, bad := w.v.PostEvidence(ctx, "n1", a)
			answers <- answer
			return bad
		}
		run := map[string]func() error{"first": func() error { return post(t.Context()) }, "second": func() error { return post(t.Context()) }}
		run["other"] = func() error {
			time.Sleep(time.Second)
			_, bad := w.v.PostEvidence(t.Context(), "n1", other)
			return bad
		}
		for _, n := range names[1:] {
			run[n] = func() error { time.Sleep(2 * time.Second); return w.evidence(t.Context(), k, n) }
		}
		told := together(run)
		assert.Equal(t, "E125 service", told["other"])
		delete(told, "other")
		assert.Equal(t, map[string]int{"go": crowd + 1}, count(told))
		one, two := <-answers, <-answers
		assert.Equal(t, one.Binding, two.Binding)
		w.v.Close()
	})
}
