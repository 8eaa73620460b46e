package cli_test

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

var fid = enclave.FID{Sequence: 0x200000401, Object: 0x2a}

// lustre is a simulated file system.
type lustre map[string]enclave.FID

func (l lustre) FID(mount, subtree string) (enclave.FID, error) {
	f, ok := l[mount+"/"+subtree]
	if !ok {
		return f, errors.New(mount + "/" + subtree + ": no such directory")
	}
	return f, nil
}

func storage(t *testing.T, in string, args ...string) (string, error) {
	t.Helper()
	estate := func(string) (cli.Estate, error) {
		return cli.Estate{
			Tenants: []enclave.Tenant{
				{Name: "acme", Subtree: "proj/acme"},
				{Name: "pinned", Subtree: "proj/pinned", RootFID: fid},
				{Name: "all", Subtree: "all"},
				{Name: "moved", Subtree: "proj/acme", RootFID: enclave.FID{Sequence: 1, Object: 1}},
			},
			Nodes: []enclave.Node{
				{Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("10.9.7.2")}}, {Name: "n2", Addresses: []netip.Addr{netip.MustParseAddr("10.9.7.3")}},
			},
		}, nil
	}
	tree := lustre{"/mnt/proj/acme": fid, "/mnt/proj/pinned": fid, "/mnt/all": enclave.RootFID()}
	var out bytes.Buffer
	root := cli.NewRootCommand(&out, &out, "test", nil, cli.NewStorageCommand(tree, estate))
	root.SetArgs(append([]string{"storage"}, args...))
	root.SetIn(strings.NewReader(in))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func exits(t *testing.T, err error, code int) {
	t.Helper()
	exit, ok := errors.AsType[*cli.ExitError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, code, exit.Code, "%v", err)
}

func TestStorageRegister(t *testing.T) {
	t.Run("an unregistered directory gets its line", func(t *testing.T) {
		out, err := storage(t, "", "register", "acme", "--mount", "/mnt")
		exits(t, err, cli.ExitBelow)
		assert.Contains(t, out, `root_fid: "[0x200000401:0x2a:0x0]"`)
	})
	t.Run("a registered one stands", func(t *testing.T) {
		out, err := storage(t, "", "register", "pinned", "--mount", "/mnt")
		require.NoError(t, err)
		assert.Equal(t, "pinned: proj/pinned is registered as [0x200000401:0x2a:0x0]\n", out)
		out, err = storage(t, "", "register", "pinned", "--mount", "/mnt", "--json")
		require.NoError(t, err)
		assert.Contains(t, out, `"same": true`)
	})
	t.Run("one that was exchanged is told", func(t *testing.T) {
		out, err := storage(t, "", "register", "moved", "--mount", "/mnt")
		exits(t, err, cli.ExitBelow)
		assert.Contains(t, out, "another directory now")
	})
	for name, c := range map[string]struct {
		args []string
		code int
	}{
		"the whole file system":  {[]string{"register", "all", "--mount", "/mnt"}, cli.ExitBelow},
		"a tenant that is none":  {[]string{"register", "x", "--mount", "/mnt"}, cli.ExitMissing},
		"no mount":               {[]string{"register", "acme"}, cli.ExitUsage},
		"a directory not there":  {[]string{"register", "acme", "--mount", "/none"}, cli.ExitUnknown},
		"nothing":                {nil, cli.ExitUsage},
		"users that nobody maps": {[]string{"nodemap", "acme"}, cli.ExitUsage},
		"half an offset":         {[]string{"nodemap", "acme", "--offset", "5"}, cli.ExitUsage},
		"an id map of root":      {[]string{"nodemap", "acme", "--idmap", "uid:0:1"}, cli.ExitUsage},
		"a node that is none":    {[]string{"nodemap", "acme", "--idmap", "uid:1:1", "--nodes", "n9"}, cli.ExitMissing},
		"a file not there":       {[]string{"nodemap", "acme", "--idmap", "uid:1:1", "--check", "/none"}, cli.ExitUnknown},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			_, err := storage(t, "", c.args...)
			exits(t, err, c.code)
		})
	}
}

func TestStorageNodemap(t *testing.T) {
	args := []string{"nodemap", "acme", "--network", "tcp7", "--nodes", "n2", "--offset", "61000", "--limit", "1000"}
	t.Run("the stanza names the nodes and the subtree", func(t *testing.T) {
		out, err := storage(t, "", args...)
		require.NoError(t, err)
		assert.Contains(t, out, "lctl nodemap_add_range --name t_acme --range 10.9.7.3@tcp7\n")
		assert.NotContains(t, out, "10.9.7.2")
		assert.Contains(t, out, "--fileset /proj/acme\n")
	})
	const held = "nodemap.active=1\nnodemap.t_acme.admin=0\nnodemap.t_acme.trusted=0\nnodemap.t_acme.deny_unknown=1\nnodemap.t_acme.rbac=file_perms\n" +
		"nodemap.t_acme.fileset=/proj/acme\nnodemap.t_acme.ranges=\n[\n { id: 1, start_nid: 10.9.7.3@tcp7, end_nid: 10.9.7.3@tcp7 }\n]\nnodemap.default.deny_mount=1\n"
	t.Run("servers that hold it pass", func(t *testing.T) {
		out, err := storage(t, held, append(args, "--check", "-")...)
		require.NoError(t, err, out)
		out, err = storage(t, held, append(args, "--check", "-", "--json")...)
		require.NoError(t, err)
		assert.Contains(t, out, `"held": true`)
	})
	t.Run("servers that let root in are below", func(t *testing.T) {
		out, err := storage(t, strings.Replace(held, "admin=0", "admin=1", 1), append(args, "--check", "-")...)
		exits(t, err, cli.ExitBelow)
		assert.Contains(t, out, "squashed")
	})
	t.Run("what was not printed can't be determined", func(t *testing.T) {
		_, err := storage(t, "", append(args, "--check", "-")...)
		exits(t, err, cli.ExitUnknown)
	})
}
