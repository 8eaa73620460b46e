package api

import "github.com/slurm-enclave/slurm-enclave/internal/enclave"

// Receipt is one receipt as the ledger has it. What counts is the file: the rest is the ledger's
// word on it, and a reader compares.
type Receipt struct {
	Job      enclave.JobKey `json:"job"`
	Sequence uint64         `json:"sequence"`
	Digest   enclave.Digest `json:"digest"`
	Previous enclave.Digest `json:"previous"`
	File     []byte         `json:"file"`
}

// Receipts is a part of the cluster's chain, in its order, and where it ends. No receipts means
// that there are no more.
type Receipts struct {
	Receipts []Receipt      `json:"receipts"`
	Head     uint64         `json:"head"`        // number of the last receipt, 0 when there is none
	Digest   enclave.Digest `json:"head_digest"` // of its file
}

// ReceiptKeys are the public keys that receipts are signed with, raw Ed25519.
type ReceiptKeys struct {
	Real      enclave.PublicKey `json:"real"`
	Simulated enclave.PublicKey `json:"simulated"`
}
