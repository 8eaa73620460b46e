package server_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
)

func TestAHeldCallIsAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t)
	k := s.register(7, "n1", "n2")
	errs := make(chan error, 2)
	for _, name := range []string{"n1", "n2"} {
		go func() { errs <- s.run(k, name) }()
	}
	require.NoError(t, <-errs)
	require.NoError(t, <-errs)
	watch := func(node string) <-chan error {
		told := make(chan error, 1)
		r := api.WatchRequest{NodeRequest: api.NodeRequest{Job: k, Node: node, Epoch: 1}, Nonce: enclave.Nonce{7}}
		go func() {
			a, err := s.node(node).Watch(t.Context(), r)
			if err == nil {
				_, _, err = a.Answer.Accept(s.nodes[node].Expect(k, r.Nonce))
			}
			told <- err
		}()
		return told
	}
	stays, goes := watch("n1"), watch("n2")
	time.Sleep(200 * time.Millisecond) // both wait by then; if not, they are answered all the same
	answer, err := s.controller(0).Revoke(t.Context(), api.RevokeRequest{Node: "n2", Reason: "test"})
	require.NoError(t, err)
	assert.Equal(t, []enclave.JobKey{k}, answer.Ended)
	require.NoError(t, <-stays)
	assert.Contains(t, []string{"E532", "E130"}, code(<-goes), "E130 when it called after the revocation")
}

func TestStrangersNeitherWatchNorRenew(t *testing.T) {
	t.Parallel()
	s := start(t)
	k := s.register(7, "n1")
	require.NoError(t, s.run(k, "n1"))
	ask := func(c *client.Client) (watch, nonce, renew error) {
		defer c.Close()
		_, watch = c.Watch(t.Context(), api.WatchRequest{NodeRequest: api.NodeRequest{Job: k, Node: "n1", Epoch: 0}})
		_, nonce = c.Nonce(t.Context(), api.NonceRequest{Job: k, Node: "n1", Purpose: claim.PurposeRenew})
		_, renew = c.Renew(t.Context(), api.Announcement{Job: k, Node: "n1", Epoch: 1, Purpose: claim.PurposeRenew})
		return watch, nonce, renew
	}
	watch, nonce, renew := ask(client.New(client.Options{Address: s.address, Pin: s.pin()}))
	assert.Equal(t, []string{"E130", "E130", "E130"}, []string{code(watch), code(nonce), code(renew)}, "a user on any host")
	watch, nonce, renew = ask(client.New(client.Options{Address: s.address, Pin: s.pin(), Certificate: s.certs["n2"]}))
	assert.Equal(t, []string{"E128", "E128", "E128"}, []string{code(watch), code(nonce), code(renew)}, "another node")
	nodes, err := s.person(0).Nodes(t.Context())
	require.NoError(t, err)
	assert.Equal(t, uint64(3), nodes.Counters["no_certificate"])
	assert.Empty(t, s.slurm.Drained())
	r, err := s.person(2001).Report(t.Context(), 7, nil)
	require.NoError(t, err)
	assert.Nil(t, r.Refusal)
}
