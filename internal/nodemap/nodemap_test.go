package nodemap_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/nodemap"
)

func acme() nodemap.Tenant {
	return nodemap.Tenant{
		Name: "acme", Subtree: "proj/acme", NIDs: []string{"10.9.7.2@tcp7", "10.9.7.3@tcp7"},
		IDs: []nodemap.IDMap{{Kind: "uid", Client: 1001, Server: 61001}},
	}
}

func TestStanza(t *testing.T) {
	assert.Equal(t, `lctl nodemap_activate 1
lctl nodemap_add t_acme
lctl nodemap_add_range --name t_acme --range 10.9.7.2@tcp7
lctl nodemap_add_range --name t_acme --range 10.9.7.3@tcp7
lctl nodemap_fileset_add --name t_acme --fileset /proj/acme
lctl nodemap_modify --name t_acme --property admin=0
lctl nodemap_modify --name t_acme --property trusted=0
lctl nodemap_modify --name t_acme --property deny_unknown=1
lctl nodemap_modify --name t_acme --property rbac=file_perms
lctl nodemap_add_idmap --name t_acme --idtype uid --idmap 1001:61001
lctl nodemap_set_cap --name t_acme --caps 0 --type mask
lctl nodemap_modify --name default --property deny_mount=1`, strings.Join(nodemap.Stanza(acme()), "\n"))
	t.Run("ids in a block have an offset", func(t *testing.T) {
		tenant := acme()
		tenant.Offset, tenant.Limit = 61000, 1000
		assert.Contains(t, nodemap.Stanza(tenant), "lctl nodemap_add_offset --name t_acme --offset 61000 --limit 1000")
	})
	t.Run("a nodemap's name is short", func(t *testing.T) {
		assert.Equal(t, "t_a_tenant_of_lo", nodemap.Tenant{Name: "a-tenant-of-long-name"}.ID())
	})
}

// printed is what lctl get_param prints, after the manual page: no server was asked for it.
const printed = `nodemap.active=1
nodemap.t_acme.admin_nodemap=0
nodemap.t_acme.trusted_nodemap=0
nodemap.t_acme.deny_unknown=1
nodemap.t_acme.rbac=file_perms
nodemap.t_acme.fileset=/proj/acme
nodemap.t_acme.idmap=[
 { idtype: uid, client_id: 1001, fs_id: 61001 }
]
nodemap.t_acme.ranges=
[
 { id: 1, start_nid: 10.9.7.2@tcp7, end_nid: 10.9.7.2@tcp7 },
 { id: 2, start_nid: 10.9.7.3@tcp7, end_nid: 10.9.7.3@tcp7 }
]
nodemap.default.deny_mount=1
`

func worst(t *testing.T, text string) (enclave.CheckResult, string) {
	t.Helper()
	checks, err := nodemap.Check(acme(), strings.NewReader(text))
	require.NoError(t, err)
	for _, c := range checks {
		if c.Result != enclave.CheckPass {
			return c.Result, c.Reason
		}
	}
	return enclave.CheckPass, ""
}

func TestCheck(t *testing.T) {
	result, reason := worst(t, printed)
	require.Equal(t, enclave.CheckPass, result, reason)
	for name, c := range map[string]struct{ old, with, want string }{
		"no nodemap is active":            {"active=1", "active=0", "holds anybody"},
		"root is not squashed":            {"admin_nodemap=0", "admin_nodemap=1", "root"},
		"clients' ids are believed":       {"trusted_nodemap=0", "trusted_nodemap=1", "mapped"},
		"unknown ids have access":         {"deny_unknown=1", "deny_unknown=0", "not mapped"},
		"files can be had by FID":         {"rbac=file_perms", "rbac=file_perms,byfid_ops", "FID"},
		"another tenant's fileset":        {"fileset=/proj/acme", "fileset=/proj/other", "/proj/other"},
		"a second fileset":                {"fileset=/proj/acme", "fileset=[ { primary: /proj/acme }, { alternate: / } ]", "fileset /"},
		"a node that is in no range":      {"10.9.7.3@tcp7, end", "10.9.8.3@tcp7, end", "10.9.7.3@tcp7"},
		"a user mapped to another's":      {"fs_id: 61001", "fs_id: 61002", "uid 1001"},
		"strangers may mount":             {"default.deny_mount=1", "default.deny_mount=0", "strangers"},
		"a nodemap of a name but similar": {"nodemap.t_acme.rbac", "nodemap.t_acme2.rbac", "not printed"},
	} {
		t.Run(name+" is told", func(t *testing.T) {
			require.Contains(t, printed, c.old)
			result, reason := worst(t, strings.Replace(printed, c.old, c.with, 1))
			assert.NotEqual(t, enclave.CheckPass, result)
			assert.Contains(t, reason, c.want)
		})
	}
	t.Run("what was not printed is unknown", func(t *testing.T) {
		result, _ := worst(t, "")
		assert.Equal(t, enclave.CheckUnknown, result)
	})
	t.Run("another text is refused", func(t *testing.T) {
		_, err := nodemap.Check(acme(), strings.NewReader("error: get_param: param_path 'nodemap': No such file or directory\n"))
		require.Error(t, err)
	})
}

func TestParseIDMap(t *testing.T) {
	m, err := nodemap.ParseIDMap("gid:1001:61001")
	require.NoError(t, err)
	assert.Equal(t, nodemap.IDMap{Kind: "gid", Client: 1001, Server: 61001}, m)
	for _, bad := range []string{"", "uid:1", "uid:0:5", "uid:5:0", "id:1:2", "uid:1:2:3", "uid:-1:2"} {
		_, err := nodemap.ParseIDMap(bad)
		require.Error(t, err, bad)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(printed)
	f.Fuzz(func(_ *testing.T, text string) { _, _ = nodemap.Check(acme(), strings.NewReader(text)) })
}
