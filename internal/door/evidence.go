package door

import (
	"context"
	"net/netip"

	"github.com/slurm-enclave/slurm-enclave/internal/attest"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// tsmDir is the kernel's configfs-tsm (Documentation/ABI/testing/configfs-tsm-report).
const tsmDir = "/sys/kernel/config/tsm/report"

// attested makes keys and evidence, waits at barrier 1 and believes of the answer what it can
// check: the verifier's signature, its own keys and nonce in it, its place in the roster, and
// the other nodes' leaves against the signed root.
func (n *node) attested(ctx context.Context) (err error) {
	if err = n.timed("keys", func() error { n.keys, err = attest.NewKeys(); return err }); err != nil {
		return err
	}
	var nonce api.NonceAnswer
	err = n.timed("nonce", func() error {
		nonce, err = n.client.Nonce(ctx, api.NonceRequest{Job: n.job.JobKey, Node: n.name, Purpose: claim.PurposeJob, HPKE: n.keys.Public().HPKE})
		return heard(err)
	})
	if err != nil {
		return err
	}
	n.epoch = nonce.Epoch
	var a api.Announcement
	if err = n.timed("report", func() error { a, err = n.announce(ctx, nonce); return err }); err != nil {
		return err
	}
	var answer roster.Answer
	err = n.timed("barrier1", func() error { answer, err = n.client.Evidence(ctx, a); return heard(err) })
	if err != nil {
		return err
	}
	return n.timed("roster", func() error { return n.accept(ctx, a, answer) })
}

// announce makes the report. The addresses are the inventory's, which the verifier told.
func (n *node) announce(ctx context.Context, nonce api.NonceAnswer) (api.Announcement, error) {
	pin, err := n.config.Verifier.KeyDigest()
	if err != nil {
		return api.Announcement{}, err
	}
	own := enclave.Peer{Node: n.name, Addresses: nonce.Self.Addresses, Endpoint: netip.AddrPortFrom(nonce.Self.Tunnel, n.config.Network.Port)}
	s := keeper.Speaker{Job: n.job.JobKey, Keys: n.keys, Own: own, Pin: pin, Attester: attest.New(tsmDir)}
	return s.Announce(ctx, claim.PurposeJob, nonce.Epoch, nonce)
}

func (n *node) accept(ctx context.Context, a api.Announcement, answer roster.Answer) error {
	received := boottime()
	header, seed, err := answer.Accept(roster.Expectation{
		Verifier: n.client.Key(), Key: n.job.JobKey, Node: n.name, Nonce: a.Nonce, Keys: a.Keys, HPKE: n.keys.HPKE(),
	})
	if err != nil {
		return enclave.Refuse("E508", enclave.FaultService, "%s", err)
	}
	defer seed.Wipe()
	peers, err := n.client.Leaves(ctx, n.request())
	if err != nil {
		return heard(err)
	}
	if err = roster.CheckPeers(header, peers); err != nil {
		return enclave.Refuse("E508", enclave.FaultService, "%s", err)
	}
	n.header, n.own, n.leaves = header, answer.Leaf, peers
	n.until = uint64(received)/1e9 + uint64(header.Lifetime)
	for _, p := range peers {
		if p.Node == n.name {
			continue
		}
		psk, err := roster.PairPSK(seed, header.Epoch, n.own.Key, p.Key)
		if err != nil {
			return err
		}
		n.peers = append(n.peers, mesh.Peer{Peer: p, PSK: psk})
	}
	return nil
}
