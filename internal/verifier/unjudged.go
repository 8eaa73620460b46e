package verifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

const codeUnjudged enclave.Code = "E546"

// checkPolicy stands for all others when there are no rules to judge by.
const checkPolicy = "policy"

// tellUnjudged is how often an alarm says that evidence can't be judged: nodes ask again every few seconds.
const tellUnjudged = time.Hour

// unjudged is the refusal of evidence that this host can't judge: its clock is behind what AMD has
// signed, its revocation lists are out of date, it can't read its store, or no longer the policy of the
// job's start. No node is to blame, and jobs wait until an admin has mended it.
func (v *Verifier) unjudged(ctx context.Context, node, check, why string) *enclave.Refusal {
	r := enclave.Refuse(codeUnjudged, enclave.FaultPolicy, "check %s could not be made: %s", check, why)
	r.Node, r.Check, r.Fix = node, check, "on the controller: is the clock right, the certificate store readable and up to date? enclave certs show"
	if check == checkPolicy {
		r.Fix = "on the controller: put the policy file back as it was when the job started, or end the job"
	}
	if v.firstOf(check) {
		v.alarm(ctx, r.Code, fmt.Sprintf("evidence of node %s can't be judged, and maybe that of others: %s", node, r.Reason))
	}
	return r
}

// firstOf is true when it is time to tell that this check can't be made.
func (v *Verifier) firstOf(check string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if at, told := v.unable[check]; told && time.Since(at) < tellUnjudged {
		return false
	}
	v.unable[check] = time.Now()
	return true
}

func isUnjudged(r *enclave.Refusal) bool { return r != nil && r.Code == codeUnjudged }

// noRules is the result where nothing could be judged for lack of a policy.
func noRules(node string, cause error) enclave.AttestationResult {
	return enclave.AttestationResult{
		Node: node, Status: enclave.StatusNone, Unjudged: cause.Error(),
		Checks: []enclave.Check{{Name: checkPolicy, Result: enclave.CheckUnknown, Reason: cause.Error()}},
	}
}

// rules are those that the claim names: a job keeps the policy that it was started under, or a
// change of the file would end it. Without its text (of a job that an earlier release registered)
// the policy of that name counts.
func (v *Verifier) rules(ctx context.Context, name string, digest enclave.Digest) (Rules, error) {
	if v.inForce(name, digest) {
		return Rules{Name: name}, nil
	}
	p, err := v.Ledger.Policy(ctx, digest)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return Rules{Name: name}, nil
	case err != nil:
		return Rules{}, err
	}
	return Rules{Name: name, Text: p.Text}, nil
}
