package keeper

import (
	"context"

	"github.com/slurm-enclave/slurm-enclave/internal/attest"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Attester makes evidence over REPORT_DATA; attest.Attester is one.
type Attester interface {
	Evidence(ctx context.Context, reportData [64]byte) (enclave.Evidence, error)
}

// Speaker is who announces: a node in a job, with its keys and its place on the roster.
type Speaker struct {
	Job      enclave.JobKey
	Keys     attest.Keys
	Own      enclave.Peer // name, addresses and endpoint
	Pin      enclave.Digest
	Attester Attester
}

// Announce answers a nonce with evidence that binds it, signed with the node's key of this job.
// The prolog does it once, the keeper again and again.
func (s Speaker) Announce(ctx context.Context, purpose claim.Purpose, epoch uint32, nonce api.NonceAnswer) (api.Announcement, error) {
	p := s.Keys.Public()
	a := api.Announcement{
		Job: s.Job, Node: s.Own.Node, Epoch: epoch, Purpose: purpose, Nonce: nonce.Nonce,
		Keys:      enclave.NodeKeys{WireGuard: p.WireGuard, Ed25519: p.Ed25519, HPKE: p.HPKE},
		Addresses: s.Own.Addresses, Endpoint: s.Own.Endpoint,
	}
	data, err := api.JobClaim(s.Job, nonce.HetOffset, s.Pin, nonce.Policy, &a).ReportData()
	if err != nil {
		return a, err
	}
	if a.Evidence, err = s.Attester.Evidence(ctx, data); err != nil {
		return a, err
	}
	return a, a.Sign(s.Keys.Sign)
}
