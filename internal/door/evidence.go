package door

import (
	"context"
	"net/netip"

	"github.com/slurm-enclave/slurm-enclave/internal/attest"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
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
		nonce, err = n.client.Nonce(ctx, api.NonceRequest{Job: n.job.JobKey, Node: n.name, Purpose: claim.PurposeJob})
		return heard(err)
	})
	if err != nil {
		return err
	}
	n.epoch = nonce.Epoch
	a := n.announcement(nonce)
	if err = n.timed("report", func() error { return n.evidence(ctx, &a, nonce) }); err != nil {
		return err
	}
	var answer roster.Answer
	err = n.timed("barrier1", func() error { answer, err = n.client.Evidence(ctx, a); return heard(err) })
	if err != nil {
		return err
	}
	return n.timed("roster", func() error { return n.accept(ctx, a, answer) })
}

func (n *node) announcement(nonce api.NonceAnswer) api.Announcement {
	p := n.keys.Public()
	return api.Announcement{
		Job: n.job.JobKey, Node: n.name, Epoch: nonce.Epoch, Purpose: claim.PurposeJob, Nonce: nonce.Nonce,
		Keys:      enclave.NodeKeys{WireGuard: p.WireGuard, Ed25519: p.Ed25519, HPKE: p.HPKE},
		Addresses: nonce.Self.Addresses, Endpoint: netip.AddrPortFrom(nonce.Self.Tunnel, n.config.Network.Port),
	}
}

func (n *node) evidence(ctx context.Context, a *api.Announcement, nonce api.NonceAnswer) error {
	pin, err := n.config.Verifier.KeyDigest()
	if err != nil {
		return err
	}
	data, err := api.JobClaim(n.job.JobKey, nonce.HetOffset, pin, nonce.Policy, a).ReportData()
	if err != nil {
		return err
	}
	if a.Evidence, err = attest.New(tsmDir).Evidence(ctx, data); err != nil {
		return err
	}
	return a.Sign(n.keys.Sign)
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
	n.header, n.own = header, answer.Leaf
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
