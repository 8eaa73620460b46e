package tenants

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// RenderLua writes the table as etc/enclave.lua reads it: comment lines, then one
// "return { ... }" of constants. enclave.lua refuses a parenthesis anywhere in the file, which
// makes it data and nothing else; no name that Load accepts holds one, nor a quote. The same
// table always gives the same bytes. Subtrees and policies stay out: slurmctld needs neither.
// interactive says whether the site lets salloc and srun into an enclave; nodes is how many are
// enrolled, below 0 for not known.
func (t *Table) RenderLua(interactive bool, nodes int) []byte {
	var b bytes.Buffer
	b.WriteString("-- Written by enclaved from tenants.yaml; edits are lost.\n")
	fmt.Fprintf(&b, "return {\n\tversion = 1,\n\tuid_min = %d,\n", t.UIDMin)
	fmt.Fprintf(&b, "\tinteractive = %t,\n", interactive)
	if nodes >= 0 {
		fmt.Fprintf(&b, "\tnodes = %d,\n", nodes)
	}
	fmt.Fprintf(&b, "\tpartitions = %s,\n", luaList(t.Partitions))
	names := make([]string, 0, len(t.Tenants))
	accounts := make(map[string]bool)
	for _, tenant := range t.Tenants {
		names = append(names, tenant.Name)
		for _, a := range tenant.Accounts {
			accounts[a] = true
		}
	}
	fmt.Fprintf(&b, "\ttenants = %s,\n\taccounts = {\n", luaList(names))
	for _, name := range slices.Sorted(maps.Keys(accounts)) {
		a, _ := t.Account(name)
		fmt.Fprintf(&b, "\t\t[%q] = { tenants = %s, ", name, luaList(a.Tenants))
		if a.Default != "" {
			fmt.Fprintf(&b, "default = %q, ", a.Default)
		}
		fmt.Fprintf(&b, "required = %t },\n", a.Required)
	}
	b.WriteString("\t},\n}\n")
	return b.Bytes()
}

// luaList is { "a", "b" }. Go's quoting is Lua's for the names that Load accepts.
func luaList(names []string) string {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "%q, ", n)
	}
	return "{ " + b.String() + "}"
}
