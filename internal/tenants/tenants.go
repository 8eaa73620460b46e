// Package tenants reads the table of tenants and says which tenant a job belongs to.
//
// The table is an admin's file, /etc/slurm-enclave/tenants.yaml. Three read it: enclaved, which
// decides; enclave.lua inside slurmctld, which enforces at submit time and gets the table from
// RenderLua; and the submit library on login nodes, which only wants to be friendly. The tenant
// follows from the Slurm account, and an option of the user's selects among the tenants of that
// account, never beyond them.
//
// The package neither opens nor watches files and knows nothing of subtrees but their spelling.
package tenants

import (
	"fmt"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// The refusals of a job for its tenant.
const (
	CodeUnknownTenant   enclave.Code = "E101" // no such tenant in the table
	CodeNoTenant        enclave.Code = "E102" // the account has no tenant
	CodeNotEntitled     enclave.Code = "E103" // the tenant exists, the account isn't one of its
	CodeAmbiguousTenant enclave.Code = "E117" // several tenants, no default, and no choice made
	CodeMalformedTenant enclave.Code = "E109" // not spelled as a tenant's name is
)

// Default is the partition of a table that names none, DefaultUIDMin its lowest user id.
const (
	DefaultPartition = "cpu-sev"
	DefaultUIDMin    = 1000
)

// Table is a checked tenants.yaml.
type Table struct {
	Partitions []string          // the enclave partitions, the first one is where jobs are routed
	UIDMin     uint32            // no job of a lower uid runs in an enclave
	Tenants    []enclave.Tenant  // in the file's order
	Defaults   map[string]string // account to tenant, for accounts of more than one tenant
}

// Account is what the table says of one Slurm account.
type Account struct {
	Tenants  []string // in the file's order, never empty
	Default  string   // "" when the user has to choose
	Required bool     // every job of the account goes to an enclave
}

// Account collects what the table says of an account; false when it has no tenant. Slurm takes
// an account's name in either case, so does Account.
func (t *Table) Account(name string) (Account, bool) {
	var a Account
	name = strings.ToLower(name)
	for _, tenant := range t.Tenants {
		if slices.Contains(tenant.Accounts, name) {
			a.Tenants = append(a.Tenants, tenant.Name)
			a.Required = a.Required || tenant.Required
		}
	}
	switch {
	case len(a.Tenants) == 0:
		return Account{}, false
	case len(a.Tenants) == 1:
		a.Default = a.Tenants[0]
	default:
		a.Default = t.Defaults[name]
	}
	return a, true
}

// SamePartitions is an error unless these are the table's partitions. enclave.lua pins jobs by the table, nodes and
// verifier admit them by enclave.yaml: a partition that only one of them knows is not enforced at submit.
func (t *Table) SamePartitions(partitions []string) error {
	theirs, ours := slices.Sorted(slices.Values(t.Partitions)), slices.Sorted(slices.Values(partitions))
	if !slices.Equal(theirs, ours) {
		return fmt.Errorf("its partitions are %s, those of enclave.yaml %s", strings.Join(theirs, ", "), strings.Join(ours, ", "))
	}
	return nil
}

// Tenant finds a tenant by its name.
func (t *Table) Tenant(name string) (enclave.Tenant, bool) {
	i := slices.IndexFunc(t.Tenants, func(n enclave.Tenant) bool { return n.Name == name })
	if i < 0 {
		return enclave.Tenant{}, false
	}
	return t.Tenants[i], true
}

// Lookup gives the tenant of a job: wanted when the user named one and the account is entitled
// to it, else the account's default. Its error is an *enclave.Refusal.
func (t *Table) Lookup(account, wanted string) (enclave.Tenant, error) {
	if wanted != "" && !ValidName(wanted) {
		return enclave.Tenant{}, enclave.Refuse(CodeMalformedTenant, enclave.FaultRequest,
			"%q is not a tenant's name", clip(wanted))
	}
	if _, known := t.Tenant(wanted); wanted != "" && !known {
		return enclave.Tenant{}, enclave.Refuse(CodeUnknownTenant, enclave.FaultRequest,
			"there is no tenant %s", wanted)
	}
	a, ok := t.Account(account)
	if !ok {
		return enclave.Tenant{}, refuseAccount(account)
	}
	if wanted == "" {
		wanted = a.Default
	}
	if wanted == "" {
		return enclave.Tenant{}, enclave.Refuse(CodeAmbiguousTenant, enclave.FaultRequest,
			"account %s has several tenants: choose one with --enclave=TENANT", account)
	}
	if !slices.Contains(a.Tenants, wanted) {
		return enclave.Tenant{}, enclave.Refuse(CodeNotEntitled, enclave.FaultRequest,
			"account %s is not entitled to tenant %s", account, wanted)
	}
	tenant, _ := t.Tenant(wanted)
	return tenant, nil
}

func refuseAccount(account string) error {
	if account == "" {
		return enclave.Refuse(CodeNoTenant, enclave.FaultRequest,
			"the job has no account, and the tenant follows from it: use --account")
	}
	return enclave.Refuse(CodeNoTenant, enclave.FaultRequest, "account %q has no tenant", clip(account))
}

// clip keeps an outsider's text short in a message.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}
