package tenants

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// maxTable bounds the file: a table is read while slurmctld holds its locks.
const maxTable = 1 << 20

// file is tenants.yaml as it is written.
type file struct {
	Partitions []string          `yaml:"partitions"`
	UIDMin     *uint32           `yaml:"uid_min"`
	Tenants    []enclave.Tenant  `yaml:"tenants"`
	Defaults   map[string]string `yaml:"defaults"`
}

// Load reads and checks a tenants.yaml. An unknown or doubled key, a second document, a name
// that is not spelled right and a subtree that is not canonical are errors; so is a table
// without tenants, since it could only be a mistake.
func Load(r io.Reader) (*Table, error) {
	f, err := parse(r)
	if err != nil {
		return nil, fmt.Errorf("read tenants: %w", err)
	}
	t := &Table{
		Partitions: f.Partitions, UIDMin: DefaultUIDMin, Tenants: f.Tenants, Defaults: f.Defaults,
	}
	if len(t.Partitions) == 0 {
		t.Partitions = []string{DefaultPartition}
	}
	if f.UIDMin != nil {
		t.UIDMin = *f.UIDMin
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("check tenants: %w", err)
	}
	return t, nil
}

func parse(r io.Reader) (*file, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxTable+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxTable {
		return nil, fmt.Errorf("more than %d bytes", maxTable)
	}
	var f file
	return &f, config.Strict(bytes.NewReader(b), &f)
}

func (t *Table) check() error {
	if t.UIDMin == 0 {
		return errors.New("uid_min is 0: root's jobs never run in an enclave")
	}
	if err := unique("partition", t.Partitions, validPartition); err != nil {
		return err
	}
	if len(t.Tenants) == 0 {
		return errors.New("no tenants")
	}
	names := make([]string, 0, len(t.Tenants))
	for _, tenant := range t.Tenants {
		names = append(names, tenant.Name)
	}
	if err := unique("tenant", names, ValidName); err != nil {
		return err
	}
	for _, tenant := range t.Tenants {
		if err := checkTenant(tenant); err != nil {
			return fmt.Errorf("tenant %s: %w", tenant.Name, err)
		}
	}
	return t.checkDefaults()
}

func checkTenant(t enclave.Tenant) error {
	if len(t.Accounts) == 0 {
		return errors.New("no accounts")
	}
	if err := unique("account", t.Accounts, validAccount); err != nil {
		return err
	}
	if !validSubtree(t.Subtree) {
		return fmt.Errorf("subtree %q: not a clean path below the file system's root", t.Subtree)
	}
	if t.RootFID == enclave.RootFID() {
		return fmt.Errorf("root_fid %s is the whole file system", t.RootFID)
	}
	// Without a policy the controller's default one holds.
	if t.Policy != "" && !ValidName(t.Policy) {
		return fmt.Errorf("policy %q is not a policy's name", t.Policy)
	}
	return nil
}

func (t *Table) checkDefaults() error {
	for account, tenant := range t.Defaults {
		a, ok := t.Account(account)
		if !ok {
			return fmt.Errorf("default of account %q: the account has no tenant", account)
		}
		if !slices.Contains(a.Tenants, tenant) {
			return fmt.Errorf("default of account %s: it is not entitled to tenant %q", account, tenant)
		}
	}
	return nil
}

// unique checks each name's spelling and that none comes twice.
func unique(what string, names []string, valid func(string) bool) error {
	seen := make(map[string]bool, len(names))
	for _, n := range names {
		if !valid(n) {
			return fmt.Errorf("%s %q is not spelled right", what, n)
		}
		if seen[n] {
			return fmt.Errorf("%s %s comes twice", what, n)
		}
		seen[n] = true
	}
	return nil
}

// ValidName says whether s is spelled as a tenant's name: [a-z0-9][a-z0-9_-]{0,62}.
func ValidName(s string) bool {
	return spelled(s, 63, func(c byte, first bool) bool {
		return isLower(c) || isDigit(c) || !first && (c == '_' || c == '-')
	})
}

// validAccount holds what an account is in Slurm's database, where it is lower case, and nothing
// that a Lua string or a terminal would read otherwise.
func validAccount(s string) bool {
	return spelled(s, 128, func(c byte, first bool) bool {
		return isLower(c) || isDigit(c) || c == '_' ||
			!first && (c == '-' || c == '.' || c == '@' || c == '+')
	})
}

func validPartition(s string) bool {
	return spelled(s, 64, func(c byte, first bool) bool {
		return isLower(c) || isUpper(c) || isDigit(c) || c == '_' || !first && (c == '-' || c == '.')
	})
}

// validSubtree holds for a canonical relative path below the root, in printable ASCII.
func validSubtree(s string) bool {
	return fs.ValidPath(s) && s != "." &&
		spelled(s, 4095, func(c byte, _ bool) bool { return c > ' ' && c < 0x7f && c != '\\' })
}

func spelled(s string, most int, ok func(c byte, first bool) bool) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		if !ok(s[i], i == 0) {
			return false
		}
	}
	return true
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
