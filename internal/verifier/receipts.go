package verifier

import (
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// A part of the chain is bounded in number and, but for one receipt alone, in bytes.
const (
	chainLinks = 256
	chainBytes = 32 << 20
)

// Receipt gives the receipt of one start, the latest when restart is nil, to whom Report would
// answer. One that is not made yet is a service refusal that says what it waits for.
func (v *Verifier) Receipt(ctx context.Context, who Viewer, job uint32, restart *uint32) (api.Receipt, error) {
	e, err := v.visible(ctx, who, job, restart)
	if err != nil {
		return api.Receipt{}, err
	}
	r, err := v.Ledger.ReceiptOf(ctx, e.Job.JobKey)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return api.Receipt{}, v.notSealed(ctx, e)
	case err != nil:
		return api.Receipt{}, ledgerRefusal(err)
	}
	return sealed(r), nil
}

func sealed(r ledger.Receipt) api.Receipt {
	return api.Receipt{Job: r.Key, Sequence: r.Sequence, Digest: r.Digest, Previous: r.Previous, File: r.Envelope}
}

func (v *Verifier) notSealed(ctx context.Context, e ledger.Entry) error {
	r := enclave.Refuse("E142", enclave.FaultService, "job %s has no receipt yet: it is not over", e.Job.JobKey)
	if e.Ended == nil {
		r.Fix = "ask again when it is"
		return r
	}
	members, err := v.Ledger.Members(ctx, e.Job.JobKey)
	if err != nil {
		return ledgerRefusal(err)
	}
	told := map[string]bool{}
	for _, m := range members {
		told[m.Node] = m.Teardown != nil
	}
	var silent []string
	for _, n := range e.Job.Nodes {
		if !told[n] {
			silent = append(silent, n)
		}
	}
	r = enclave.Refuse("E142", enclave.FaultService, "job %s has no receipt yet: it waits for the last word of %s, until %s",
		e.Job.JobKey, strings.Join(silent, ","), e.Ended.Add(v.Config.Limits.Receipt()).UTC().Format(time.RFC3339))
	if len(silent) == 0 {
		r.Reason = "job " + e.Job.JobKey.String() + " has no receipt yet: it is being made"
	}
	r.Fix = "ask again then"
	return r
}

// ReceiptChain gives operators the next part of the cluster's chain.
func (v *Verifier) ReceiptChain(ctx context.Context, who Viewer, from uint64) (api.Receipts, error) {
	if !who.Operator {
		return api.Receipts{}, enclave.Refuse("E143", enclave.FaultRequest, "only Slurm's operators may read all receipts")
	}
	list, err := v.Ledger.Receipts(ctx, v.Config.Cluster, from, chainLinks, chainBytes)
	if err != nil {
		return api.Receipts{}, ledgerRefusal(err)
	}
	out := api.Receipts{Receipts: []api.Receipt{}}
	for _, r := range list {
		out.Receipts = append(out.Receipts, sealed(r))
	}
	head, err := v.Ledger.Head(ctx, v.Config.Cluster)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return api.Receipts{}, ledgerRefusal(err)
	}
	out.Head, out.Digest = head.Sequence, head.Digest
	return out, nil
}

// ReceiptSigners are the public keys to pin.
func (v *Verifier) ReceiptSigners() api.ReceiptKeys {
	raw := func(k ed25519.PrivateKey) enclave.PublicKey { return enclave.PublicKey(k[ed25519.SeedSize:]) }
	return api.ReceiptKeys{Real: raw(v.Receipts.Real), Simulated: raw(v.Receipts.Simulated)}
}
