package enclaved_test

import (
	"crypto/sha256"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/verifiertest"
)

// announce has the node's chip sign for a job or a renewal.
func (c *controller) announce(k *client.Client, n *verifiertest.Node, key enclave.JobKey, purpose claim.Purpose) api.Announcement {
	c.t.Helper()
	nonce, err := k.Nonce(c.t.Context(), api.NonceRequest{Job: key, Node: n.Name, Purpose: purpose})
	require.NoError(c.t, err)
	a, err := n.Announce(key, purpose, nonce)
	require.NoError(c.t, err)
	data, err := api.JobClaim(key, nonce.HetOffset, sha256.Sum256(k.Key()), nonce.Policy, &a).ReportData()
	require.NoError(c.t, err)
	a.Evidence, err = c.attester(n.Name)(c.t.Context(), data)
	require.NoError(c.t, err)
	require.NoError(c.t, n.Resign(&a))
	return a
}

func TestAReloadedPolicyCountsForNewJobsOnly(t *testing.T) {
	t.Parallel()
	c := start(t)
	k := c.enrol("n1")
	register := func(id uint32) enclave.JobKey {
		j := enclave.Job{JobKey: enclave.JobKey{Cluster: "c1", Job: id}, UID: 2001, Account: "onc", Partition: "cpu-sev", Nodes: []string{"n1"}, Batch: true}
		_, err := c.admin(0).Register(t.Context(), api.RegisterRequest{Job: j})
		require.NoError(t, err)
		return j.JobKey
	}
	first := register(7)
	_, err := k.Nonce(t.Context(), api.NonceRequest{Job: first, Node: "n1", Purpose: claim.PurposeJob}) // learns the verifier's key
	require.NoError(t, err)
	n, err := verifiertest.NewNode("n1", netip.MustParseAddr("10.0.0.1"), k.Key())
	require.NoError(t, err)
	_, err = k.Evidence(t.Context(), c.announce(k, n, first, claim.PurposeJob))
	require.NoError(t, err)
	_, err = k.Ready(t.Context(), api.ReadyRequest{NodeRequest: api.NodeRequest{Job: first, Node: "n1", Epoch: 1}})
	require.NoError(t, err)

	c.write("policy.d/default.yaml", policy()+"smt: deny\n")
	c.reload <- syscall.SIGHUP
	c.reload <- syscall.SIGHUP // taken once the one before is done
	_, err = k.Renew(t.Context(), c.announce(k, n, first, claim.PurposeRenew))
	require.NoError(t, err, "it was started under another text")

	second := register(8)
	_, err = k.Evidence(t.Context(), c.announce(k, n, second, claim.PurposeJob))
	r, ok := enclave.AsRefusal(err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, "smt", r.Check)
}
