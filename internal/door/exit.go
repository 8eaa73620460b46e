package door

import (
	"errors"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// The two exit statuses that Slurm tells apart. A prolog or epilog that fails drains its node.
const (
	exitFine   = 0
	exitBroken = 1
)

// refusalOf turns any error into a refusal: what is not one already is this node's own trouble.
func refusalOf(err error, code enclave.Code) *enclave.Refusal {
	if r, ok := errors.AsType[*enclave.Refusal](err); ok {
		return r
	}
	return enclave.Refuse(code, enclave.FaultNode, "%s", err)
}

// status is the exit status of a refused prolog. Faults of others never drain this node.
func status(r *enclave.Refusal) int {
	if r.Fault == enclave.FaultNode {
		return exitBroken
	}
	return exitFine
}
