package fence

import (
	"context"
	"errors"
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// ErrAbsent is what Kernel.Read says of a table that is not there.
var ErrAbsent = errors.New("no such table")

// ErrUnreadable is in what Kernel.Read says when it could not compare.
var ErrUnreadable = errors.New("not readable")

// CodeChanged is the refusal of a running job's fence that is gone or is not as it was put up.
const CodeChanged enclave.Code = "E426"

// Kernel is the node's packet filter.
type Kernel interface {
	// Replace puts t in the place of the table of its name and deletes the tables named gone,
	// all in one transaction. It succeeds when one of gone is not there. A t without chains
	// is not put in.
	Replace(ctx context.Context, t Table, gone ...string) error
	// Read compares the kernel's table with t: nil when it is there and is t, ErrAbsent when it
	// is not there, another error when it differs, with ErrUnreadable in it when nobody knows.
	Read(ctx context.Context, t Table) error
	// Counters reads the counters of a table.
	Counters(ctx context.Context, table string) (map[string]Count, error)
}

// Up puts t in place of what was there under its name, and takes the tables named instead away
// in the same moment, so that there is no time without a fence: Up(ctx, k, job's, ClosedName)
// opens the node for a job, Up(ctx, k, closed, Name(job)) closes it. It then reads t back.
func Up(ctx context.Context, k Kernel, t Table, instead ...string) error {
	if len(t.Chains) == 0 {
		return enclave.Refuse(CodePlan, enclave.FaultService, "fence %q is empty", t.Name)
	}
	if err := k.Replace(ctx, t, instead...); err != nil {
		return fmt.Errorf("fence: put up %s: %w", t.Name, err)
	}
	if err := k.Read(ctx, t); err != nil {
		return enclave.Refuse(CodeReadBack, enclave.FaultNode, "table %s: %s", t.Name, err)
	}
	for _, name := range instead {
		if err := absent(ctx, k, name); err != nil {
			return err
		}
	}
	return nil
}

// Down deletes the fence of a job and reads back that it is gone; it needs no Up before it.
// An enclave node is never without a fence: there, Up of the closed one comes first.
func Down(ctx context.Context, k Kernel, job uint32) error {
	if err := k.Replace(ctx, Table{}, Name(job)); err != nil {
		return fmt.Errorf("fence: delete %s: %w", Name(job), err)
	}
	return absent(ctx, k, Name(job))
}

// Check reads a running job's fence back. A refusal says that somebody has changed it, which no
// user can; any other error, that it could not be read.
func Check(ctx context.Context, k Kernel, t Table) error {
	if len(t.Chains) == 0 {
		return fmt.Errorf("fence: check %q: it is empty: %w", t.Name, ErrUnreadable)
	}
	err := k.Read(ctx, t)
	switch {
	case err == nil, errors.Is(err, ErrUnreadable), ctx.Err() != nil:
		return err
	}
	r := enclave.Refuse(CodeChanged, enclave.FaultNode, "table %s was changed while the job ran: %s", t.Name, err)
	r.Check, r.Fix = "fence", "find the program that flushes nftables, and have it spare tables enclave_*"
	return r
}

// Stands says whether there is a table of that name, whatever is in it.
func Stands(ctx context.Context, k Kernel, name string) (bool, error) {
	err := k.Read(ctx, Table{Name: name})
	if errors.Is(err, ErrUnreadable) {
		return false, err
	}
	return !errors.Is(err, ErrAbsent), nil
}

func absent(ctx context.Context, k Kernel, name string) error {
	err := k.Read(ctx, Table{Name: name})
	if errors.Is(err, ErrAbsent) {
		return nil
	}
	return enclave.Refuse(CodeLeftover, enclave.FaultNode, "table %s should be gone: %s", name, still(err))
}

func still(err error) string {
	if err == nil {
		return "it is there"
	}
	return err.Error()
}
