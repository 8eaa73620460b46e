// Package route decides what a submit client should do about an enclave: nothing, ask for the
// enclave partition, or tell the user at once that it can't be.
//
// It is the pure half of libenclave-submit.so: argument vector and tenant table in, decision
// out. It opens nothing, asks nobody and enforces nothing; enclave.lua in slurmctld does. Where
// it can't know, it does nothing.
package route

import (
	"errors"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/tenants"
)

// The refusals that only a submission can earn.
const (
	CodeUser       enclave.Code = "E104" // root, or a uid below the table's
	CodeNoAllocate enclave.Code = "E116" // srun --no-allocate
)

// Submission is what is known of one submission before Slurm reads it.
type Submission struct {
	Program   Program
	UID       uint32
	Argv      []string
	Option    *string // --enclave from elsewhere (an #SBATCH line, a variable), nil when not seen
	Partition bool    // the client's partition variable is set
	Account   string  // the client's account variable
	InJob     bool    // SLURM_JOB_ID is set
	Fallback  string  // the enclave partition when there is no table
}

// Decide gives the partition to ask for, or "" to leave the submission alone. Its error is an
// *enclave.Refusal. table is nil where the login node has none: nothing is checked then.
func Decide(s Submission, table *tenants.Table) (string, error) {
	if s.Program == Srun && s.InJob {
		return "", nil // a step of a running job
	}
	asked := Scan(s.Program, s.Argv)
	if s.Option != nil && !asked.Enclave {
		asked.Enclave, asked.Tenant = true, *s.Option
	}
	if asked.Account == "" {
		asked.Account = s.Account
	}
	if asked.Enclave {
		if err := check(s, asked, table); err != nil {
			return "", err
		}
	} else if !required(asked, table) {
		return "", nil
	}
	if asked.Partition || s.Partition {
		return "", nil // the user named one; slurmctld says whether the two agree
	}
	if table != nil {
		return table.Partitions[0], nil
	}
	return s.Fallback, nil
}

// check refuses what slurmctld would refuse, for the reason it would give.
func check(s Submission, asked Asked, table *tenants.Table) error {
	if asked.NoAllocate {
		return enclave.Refuse(CodeNoAllocate, enclave.FaultRequest,
			"--no-allocate runs without a job, and only a job can be admitted to an enclave")
	}
	if asked.Tenant != "" && !tenants.ValidName(asked.Tenant) {
		return enclave.Refuse(tenants.CodeMalformedTenant, enclave.FaultRequest,
			"the value of --enclave is not a tenant's name")
	}
	if s.UID == 0 || table != nil && s.UID < table.UIDMin {
		return enclave.Refuse(CodeUser, enclave.FaultRequest,
			"user id %d is root's or a system user's: submit as yourself", s.UID)
	}
	if table == nil {
		return nil
	}
	if asked.Account == "" {
		// The default account is known to slurmctld only.
		if _, known := table.Tenant(asked.Tenant); asked.Tenant != "" && !known {
			return enclave.Refuse(tenants.CodeUnknownTenant, enclave.FaultRequest,
				"there is no tenant %s", asked.Tenant)
		}
		return nil
	}
	_, err := table.Lookup(asked.Account, asked.Tenant)
	return err
}

func required(asked Asked, table *tenants.Table) bool {
	if table == nil {
		return false
	}
	a, ok := table.Account(asked.Account)
	return ok && a.Required
}

// Message is a refusal for the user, one line, "E103: reason".
func Message(err error) string {
	var r *enclave.Refusal
	if !errors.As(err, &r) {
		return err.Error()
	}
	return string(r.Code) + ": " + r.Reason
}
