package tenants_test

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/tenants"
)

var update = flag.Bool("update", false, "write the golden files")

func load(t *testing.T) *tenants.Table {
	t.Helper()
	b, err := os.ReadFile("testdata/tenants.yaml")
	require.NoError(t, err)
	table, err := tenants.Load(bytes.NewReader(b))
	require.NoError(t, err)
	return table
}

func TestLookup(t *testing.T) {
	table := load(t)
	for _, c := range []struct {
		name, account, wanted string
		tenant                string
		code                  enclave.Code
	}{
		{"an account of one tenant needs no option", "digimed", "", "digimed", ""},
		{"case does not help around a table", "DigiMed", "", "digimed", ""},
		{"naming the own tenant is the same", "digimed", "digimed", "digimed", ""},
		{"an account of two tenants has its default", "clinic", "", "digimed", ""},
		{"the option selects among the tenants of the account", "clinic", "genome", "genome", ""},
		{"without a default the user has to choose", "physics", "", "", tenants.CodeAmbiguousTenant},
		{"a choice settles it", "physics", "astro", "astro", ""},
		{"the option never reaches beyond the account", "digimed", "genome", "", tenants.CodeNotEntitled},
		{"a tenant that does not exist is unknown", "digimed", "nobody", "", tenants.CodeUnknownTenant},
		{"a job without account is refused", "", "", "", tenants.CodeNoTenant},
		{"an account without tenant is refused", "chemistry", "", "", tenants.CodeNoTenant},
		{"an account without tenant can't name one", "chemistry", "digimed", "", tenants.CodeNoTenant},
		{"a path is not a tenant's name", "digimed", "../genome", "", tenants.CodeMalformedTenant},
		{"upper case is not a tenant's name", "digimed", "Digimed", "", tenants.CodeMalformedTenant},
	} {
		t.Run(c.name, func(t *testing.T) {
			tenant, err := table.Lookup(c.account, c.wanted)
			if c.code == "" {
				require.NoError(t, err)
				assert.Equal(t, c.tenant, tenant.Name)
				return
			}
			refusal, ok := enclave.AsRefusal(err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, c.code, refusal.Code)
			assert.Equal(t, enclave.FaultRequest, refusal.Fault)
			assert.Zero(t, tenant)
		})
	}
}

func TestAccount(t *testing.T) {
	table := load(t)
	t.Run("an account is required when one of its tenants is", func(t *testing.T) {
		a, ok := table.Account("clinic")
		require.True(t, ok)
		assert.Equal(t, tenants.Account{
			Tenants: []string{"digimed", "genome"}, Default: "digimed", Required: true,
		}, a)
	})
	t.Run("an unknown account has nothing", func(t *testing.T) {
		_, ok := table.Account("chemistry")
		assert.False(t, ok)
	})
}

func TestLoadDefaults(t *testing.T) {
	table, err := tenants.Load(strings.NewReader(
		"tenants: [{name: a, accounts: [a], subtree: t/a, policy: p}]"))
	require.NoError(t, err)
	assert.Equal(t, []string{"cpu-sev"}, table.Partitions)
	assert.EqualValues(t, 1000, table.UIDMin)
	t.Run("a tenant that names no policy gets the controller's", func(t *testing.T) {
		table, err := tenants.Load(strings.NewReader("tenants: [{name: a, accounts: [a], subtree: t/a}]"))
		require.NoError(t, err)
		tenant, err := table.Lookup("a", "")
		require.NoError(t, err)
		assert.Empty(t, tenant.Policy)
	})
}

func TestLoadRefuses(t *testing.T) {
	const good = "tenants: [{name: a, accounts: [a], subtree: t/a, policy: p}]\n"
	tenant := func(fields string) string { return "tenants: [{" + fields + "}]\n" }
	for _, c := range []struct{ name, text, want string }{
		{"an empty file", "", "file is empty"},
		{"a table without tenants", "uid_min: 1000\n", "no tenants"},
		{"an unknown key", good + "tennants: []\n", "tennants"},
		{"an unknown key of a tenant", tenant("name: a, accounts: [a], subtree: t, policy: p, requird: true"), "requird"},
		{"a doubled key", good + good, "tenants"},
		{"a second document", good + "---\n" + good, "more than one document"},
		{"a tenant that comes twice", "tenants: [{name: a, accounts: [a], subtree: t, policy: p}, {name: a, accounts: [b], subtree: u, policy: p}]", "tenant a comes twice"},
		{"a name with a capital", tenant("name: A, accounts: [a], subtree: t, policy: p"), `tenant "A"`},
		{"a tenant without accounts", tenant("name: a, subtree: t, policy: p"), "no accounts"},
		{"an account with a quote", tenant(`name: a, accounts: ["a\"b"], subtree: t, policy: p`), "account"},
		{"an account with a capital", tenant("name: a, accounts: [A], subtree: t, policy: p"), "account"},
		{"an account with a parenthesis", tenant(`name: a, accounts: ["a(b"], subtree: t, policy: p`), "account"},
		{"a subtree that climbs", tenant("name: a, accounts: [a], subtree: t/../u, policy: p"), "subtree"},
		{"an absolute subtree", tenant("name: a, accounts: [a], subtree: /t, policy: p"), "subtree"},
		{"the root as a subtree", tenant("name: a, accounts: [a], subtree: ., policy: p"), "subtree"},
		{"no subtree", tenant("name: a, accounts: [a], policy: p"), "subtree"},
		{"a subtree with a line feed", tenant(`name: a, accounts: [a], subtree: "t\nu", policy: p`), "subtree"},
		{"a policy that is a path", tenant("name: a, accounts: [a], subtree: t, policy: ../p"), "policy"},
		{"a tag in the place of a list", "tenants: !x\n", "not YAML"},
		{"uid_min 0", good + "uid_min: 0\n", "uid_min"},
		{"a negative uid_min", good + "uid_min: -1\n", "line 2"},
		{"a partition list in one word", good + `partitions: ["cpu,cpu-sev"]`, "partition"},
		{"a default of an unknown account", good + "defaults: {b: a}\n", "default of account"},
		{"a default beyond the account", good + "defaults: {a: b}\n", "not entitled"},
		{"a file beyond all measure", good + strings.Repeat("#", 1<<20), "more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := tenants.Load(strings.NewReader(c.text))
			assert.ErrorContains(t, err, c.want)
		})
	}
}

func TestRenderLua(t *testing.T) {
	got := load(t).RenderLua(true, 12)
	if *update {
		require.NoError(t, os.WriteFile("testdata/tenants.lua", got, 0o600))
	}
	want, err := os.ReadFile("testdata/tenants.lua")
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got))
}

func FuzzLoad(f *testing.F) {
	seed, err := os.ReadFile("testdata/tenants.yaml")
	require.NoError(f, err)
	f.Add(seed)
	f.Add([]byte("tenants: [{name: a, accounts: [a], subtree: t/a, policy: p}]"))
	f.Add([]byte("tenants: [{name: a, accounts: ['a\"]=(x']}]"))
	f.Add([]byte("tenants: !x\n"))
	f.Add([]byte("tenants:\n- name: a\n  accounts: !x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := tenants.Load(bytes.NewReader(b))
		if err != nil {
			return
		}
		lua := string(table.RenderLua(false, -1))
		assert.NotContains(t, lua, "(", "enclave.lua takes data only")
		assert.NotContains(t, lua, "\\", "no name needs an escape")
		for _, tenant := range table.Tenants {
			for _, account := range tenant.Accounts {
				got, err := table.Lookup(account, tenant.Name)
				require.NoError(t, err)
				assert.Equal(t, tenant.Name, got.Name)
			}
		}
	})
}
