package api

import (
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Chips are the processors of the enrolled nodes, as their latest evidence shows them. Whoever
// keeps certificates wants to know.
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
	Seen        *time.Time     `json:"seen,omitempty"`        // nil: there is no evidence yet
}
