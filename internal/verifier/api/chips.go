package api

import (
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Chips are the processors of the enrolled nodes, as their latest evidence shows them, and of
// those that can't be enrolled for want of a certificate. Whoever keeps certificates wants to know.
type Chips struct {
	Chips []Chip `json:"chips"`
}

// Chip is one node's processor.
type Chip struct {
	Node        string         `json:"node"`
	Product     string         `json:"product"`               // empty when the evidence does not say
	ChipID      enclave.ChipID `json:"chip_id"`               // all zero when masked
	TCB         enclave.TCB    `json:"tcb"`                   // REPORTED_TCB
	Signer      string         `json:"signer"`                // VCEK, VLEK, none
	Certificate []byte         `json:"certificate,omitempty"` // DER, where the node's host gave it
	Pending     bool           `json:"pending,omitempty"`     // it asked to be enrolled and had no certificate: its own word
	Seen        *time.Time     `json:"seen,omitempty"`        // nil: there is no evidence yet
}
