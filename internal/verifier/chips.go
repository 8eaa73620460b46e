package verifier

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Chips lists the enrolled nodes' processors by their latest evidence.
func (v *Verifier) Chips(ctx context.Context) (api.Chips, error) {
	out := api.Chips{Chips: []api.Chip{}}
	for _, n := range v.Inventory.Nodes {
		enrolment, err := v.enrolled(ctx, n.Name)
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
	out.Chips = append(out.Chips, v.pending.wanted()...)
	return out, nil
}

// want remembers the chip of a node that asked to be enrolled and brought no certificate; one for
// each node of the inventory, since a stranger may speak in its name.
func (p *pending) want(node string, e enclave.Evidence) bool {
	c := chipOf(ledger.Evidence{Node: node, Evidence: e, At: time.Now()})
	c.Pending = true
	if c.Signer != "VCEK" || c.ChipID == (enclave.ChipID{}) || c.Certificate != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.chips[node] = c
	return true
}

// wanted are those of the last hour, by node.
func (p *pending) wanted() []api.Chip {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []api.Chip
	for _, node := range slices.Sorted(maps.Keys(p.chips)) {
		if c := p.chips[node]; time.Since(*c.Seen) <= keepPending {
			out = append(out, c)
		}
	}
	return out
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
