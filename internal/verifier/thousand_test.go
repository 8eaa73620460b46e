package verifier_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	jobs "github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/verifiertest"
)

// settle gives the world nodes of these names, each with an address of either family.
func (w *world) settle(names []string) {
	w.t.Helper()
	for i, name := range names {
		four := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		six := netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x93, 14: byte(i >> 8), 15: byte(i)})
		w.settings.Inventory.Nodes = append(w.settings.Inventory.Nodes, enclave.Node{Name: name, Addresses: []netip.Addr{four, six}, Tunnel: four})
		var err error
		w.nodes[name], err = verifiertest.NewNode(name, four, w.v.Public())
		require.NoError(w.t, err)
		w.enrol(name)
	}
	w.restart()
}

// A thousand nodes with the longest names that DNS allows: no list of them may meet a limit that was made for
// short ones, from the environment of a prolog to the receipt.
func TestAThousandNodesWithLongNames(t *testing.T) {
	t.Parallel()
	const nodes, longest = 1000, 128 << 10 // execve takes no longer variable (MAX_ARG_STRLEN)
	long := func(i int) string {
		name := fmt.Sprintf("node-%04d.compute", i) + strings.Repeat(".subdomain", 10)
		return name + ".example.org"
	}
	names := make([]string, nodes)
	for i := range names {
		names[i] = long(i + 1)
	}
	list := strings.Join(names, ",") // as Slurm writes it: its own numbers stand at the end of a name only
	require.Greater(t, len(list), longest-8192, "as long as it may be")
	require.Less(t, len(list), longest)
	env := map[string]string{
		"SLURM_SCRIPT_CONTEXT": "prolog_slurmctld", "SLURM_CLUSTER_NAME": "c1", "SLURM_JOB_ID": "7", "SLURM_JOB_UID": "2001", "SLURM_JOB_GID": "2001",
		"SLURM_JOB_USER": "alice", "SLURM_JOB_ACCOUNT": "onc", "SLURM_JOB_PARTITION": "cpu-sev", "SLURM_JOB_NODELIST": list,
	}
	j, _, err := jobs.FromPrologEnv(func(name string) string { return env[name] })
	require.NoError(t, err)
	require.Equal(t, names, j.Nodes)
	body, err := json.Marshal(api.RegisterRequest{Job: j})
	require.NoError(t, err)
	require.Less(t, len(body), api.MaxLocal)

	bubble(t, "are let in, reported, and stand in the receipt", func(t *testing.T, w *world) {
		w.settle(names)
		k := w.register(j)
		require.Equal(t, map[string]int{"go": nodes}, count(w.all(k, names...)))
		synctest.Wait()
		peers, err := w.leaves(names[0], api.NodeRequest{Job: k, Node: names[0], Epoch: 1})
		require.NoError(t, err)
		header, err := roster.DecodeHeader(w.entry(k).Header)
		require.NoError(t, err)
		require.NoError(t, roster.CheckPeers(header, peers))
		r, err := w.v.Report(t.Context(), verifier.Viewer{UID: 2001}, 7, nil)
		require.NoError(t, err)
		require.Len(t, r.Nodes, nodes)
		for i, n := range r.Nodes {
			require.Equal(t, names[i], n.Name)
		}
		w.down(k, names...)
		w.settled(k)
		opened := w.receipt(k)
		require.NotNil(t, opened)
		assert.Len(t, opened.Statement.Predicate.Nodes, nodes)
	})
}
