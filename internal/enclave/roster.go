package enclave

import "net/netip"

// Evidence is one attestation report and what came with it.
type Evidence struct {
	Report       []byte `json:"report"`       // 1184 bytes, AMD publication 56860
	Certificates []byte `json:"certificates"` // certificate table of GHCB 2.0 section 4.1.8.1, may be empty
	Provider     string `json:"provider"`     // configfs-tsm's provider, without the newline
}

// Node is one line of the inventory: what the admin says a node is.
type Node struct {
	Name      string       `json:"name" yaml:"name"`           // NodeName as slurm.conf spells it
	Addresses []netip.Addr `json:"addresses" yaml:"addresses"` // all unicast addresses of the node
	Tunnel    netip.Addr   `json:"tunnel" yaml:"tunnel"`       // the one of them that WireGuard's packets use
}

// Peer is a node as the other nodes of its job see it: one leaf of the roster.
type Peer struct {
	Node      string         `json:"node"`
	Addresses []netip.Addr   `json:"addresses"` // AllowedIPs of the peer, a /32 or /128 each
	Endpoint  netip.AddrPort `json:"endpoint"`  // the inventory's tunnel address and the node's port
	Key       PublicKey      `json:"key"`       // WireGuard
}

// RosterHeader is what the verifier signs: who may talk to whom, in which job, for how long.
type RosterHeader struct {
	JobKey
	Epoch        uint32 `json:"epoch"`
	SubmitHost   string `json:"submit_host"`
	Tenant       string `json:"tenant"`
	Subtree      string `json:"subtree"`
	RootFID      FID    `json:"root_fid,omitzero"` // of the subtree, on Lustre; zero where it is not registered
	PolicyDigest Digest `json:"policy_digest"`
	Lifetime     uint32 `json:"lifetime_seconds"` // on CLOCK_BOOTTIME from receipt
	Simulated    bool   `json:"simulated"`
	Weak         bool   `json:"weak"`
	Size         uint32 `json:"size"` // number of leaves
	Root         Digest `json:"root"` // RFC 6962 Merkle tree hash of the leaves
}
