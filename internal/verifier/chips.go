package verifier

import (
	"context"
	"errors"

	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Chips lists the enrolled nodes' processors by their latest evidence.
func (v *Verifier) Chips(ctx context.Context) (api.Chips, error) {
	out := api.Chips{Chips: []api.Chip{}}
	for _, n := range v.Inventory.Nodes {
		enrolment, err := v.Ledger.Enrolled(ctx, n.Name)
		if errors.Is(err, ledger.ErrNotFound) {
			continue
		}
		var e ledger.Evidence
		if err == nil {
			e, err = v.Ledger.LatestEvidence(ctx, n.Name)
		}
		switch {
		case errors.Is(err, ledger.ErrNotFound):
			out.Chips = append(out.Chips, api.Chip{Node: n.Name, Signer: "none"})
		case err != nil:
			return api.Chips{}, ledgerRefusal(err)
		default:
			if c := chipOf(e); c.ChipID.String() == enrolment.Chip {
				out.Chips = append(out.Chips, c)
			}
		}
	}
	return out, nil
}

// chipOf reads evidence that may have failed for want of a certificate: all of it is the report's
// own word. Nobody is trusted for it, and a certificate that is fetched by it is judged by itself.
func chipOf(e ledger.Evidence) api.Chip {
	at := e.At
	c := api.Chip{Node: e.Node, Seen: &at}
	chain, err := snp.ParseCertificates(e.Evidence.Certificates)
	r := snp.Verify(e.Evidence.Report, chain, snp.Options{})
	c.Product, c.ChipID, c.TCB, c.Signer = r.Product, r.ChipID, r.ReportedTCB, r.Signer
	if cert := chain.Endorsement(r.Signer); err == nil && cert != nil {
		c.Certificate = cert.Raw
	}
	return c
}
