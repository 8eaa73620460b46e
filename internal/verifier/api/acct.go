package api

import (
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Me is whom enclaved takes the caller for, and whose jobs the caller may read of.
type Me struct {
	UID      uint32   `json:"uid"`
	Operator bool     `json:"operator"` // all jobs
	Accounts []string `json:"accounts"` // that the caller coordinates
}

// Share is what the ledger has of one start of a job, in sums.
type Share struct {
	Job          uint32          `json:"job"`
	Restart      uint32          `json:"restart"`
	UID          uint32          `json:"uid"`
	User         string          `json:"user"`
	Account      string          `json:"account"`
	Partition    string          `json:"partition"`
	Tenant       string          `json:"tenant"`
	Policy       enclave.Digest  `json:"policy"`
	Verdict      enclave.Verdict `json:"verdict"`
	Weak         bool            `json:"weak"`
	Code         enclave.Code    `json:"code,omitempty"`
	Registered   time.Time       `json:"registered"`
	Started      *time.Time      `json:"started,omitempty"` // GO
	Nodes        int             `json:"nodes"`
	Affirmed     int             `json:"affirmed"` // of them
	TunnelBytes  uint64          `json:"tunnel_bytes"`
	OutsideBytes uint64          `json:"outside_bytes"`
	Receipt      string          `json:"receipt,omitempty"` // "sha256:" and the digest of its file
}

// Shares is a page of the ledger in the order of registration. More is the rest of the question for the
// next page, empty at the end.
type Shares struct {
	Shares []Share `json:"shares"`
	More   string  `json:"more,omitempty"`
}
