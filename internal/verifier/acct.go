package verifier

import (
	"context"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Me says whom the caller is taken for.
func (*Verifier) Me(who Viewer) api.Me {
	return api.Me{UID: who.UID, Operator: who.Operator, Accounts: append([]string{}, who.Accounts...)}
}

// ParseCursor reads "MILLISECONDS.JOB.RESTART", as More spells it; the last two may be left out.
func ParseCursor(s string) (ledger.Cursor, error) {
	var ms int64
	var c ledger.Cursor
	n, err := fmt.Sscanf(s, "%d.%d.%d", &ms, &c.Job, &c.Restart)
	if n == 1 && fmt.Sprint(ms) == s {
		err = nil
	}
	if err != nil || ms < 0 || (n == 3 && spellCursor(ms, c.Job, c.Restart) != s) {
		return ledger.Cursor{}, enclave.Refuse("E129", enclave.FaultRequest, "want after=MILLISECONDS[.JOB.RESTART], not %q", printable(s, 40))
	}
	c.At = time.UnixMilli(ms)
	return c, nil
}

func spellCursor(ms int64, job, restart uint32) string {
	return fmt.Sprintf("%d.%d.%d", ms, job, restart)
}

// Shares makes a page of what the ledger has of jobs that the viewer may see.
func (v *Verifier) Shares(ctx context.Context, who Viewer, after ledger.Cursor) (api.Shares, error) {
	rows, err := v.Ledger.Shares(ctx, v.Config.Cluster, who.scope(), after, maxList)
	if err != nil {
		return api.Shares{}, ledgerRefusal(err)
	}
	out := api.Shares{Shares: make([]api.Share, len(rows))}
	for i, r := range rows {
		j := r.Job
		s := api.Share{
			Job: j.Job, Restart: j.Restart, UID: j.UID, User: j.User, Account: j.Account, Partition: j.Partition, Tenant: r.Tenant.Name, Policy: r.Policy, Verdict: r.Verdict, Weak: r.Weak,
			Registered: r.Registered, Started: r.Started, Nodes: len(j.Nodes), Affirmed: r.Affirmed, TunnelBytes: r.TunnelBytes, OutsideBytes: r.OutsideBytes,
		}
		if r.Refusal != nil {
			s.Code = r.Refusal.Code
		}
		if r.Receipt != nil {
			s.Receipt = "sha256:" + r.Receipt.String()
		}
		out.Shares[i] = s
	}
	if len(rows) == maxList {
		last := rows[len(rows)-1]
		out.More = spellCursor(last.Registered.UnixMilli(), last.Job.Job, last.Job.Restart)
	}
	return out, nil
}
