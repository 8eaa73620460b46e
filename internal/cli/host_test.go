package cli_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// closable is a node with a prepared answer.
type closable struct {
	closed int
	err    error
	checks []enclave.Check
}

func (c *closable) Close(context.Context) error { c.closed++; return c.err }

func (c *closable) Check(context.Context) []enclave.Check { return c.checks }

func host(t *testing.T, node *closable, openErr error, args ...string) (out string, status int, err error) {
	t.Helper()
	var b bytes.Buffer
	command := cli.NewHostCommand(func(string) (cli.Closable, error) { return node, openErr })
	command.SetOut(&b)
	command.SetArgs(args)
	err = command.ExecuteContext(t.Context())
	var exit *cli.ExitError
	switch {
	case errors.As(err, &exit):
		status = exit.Code
	case err != nil:
		status = cli.ExitFailure
	}
	return b.String(), status, err
}

func TestHost(t *testing.T) {
	t.Parallel()
	pass := enclave.Check{Name: "closed.links", Result: enclave.CheckPass}
	fail := enclave.Check{Name: "closed.mounts", Result: enclave.CheckFail, Reason: "+ /tmp"}
	unknown := enclave.Check{Name: "closed.rules", Result: enclave.CheckUnknown, Reason: "netlink"}
	cases := map[string]struct {
		checks []enclave.Check
		status int
		out    string
	}{
		"a closed node":                             {[]enclave.Check{pass}, cli.ExitOK, "pass    closed.links\n"},
		"a difference":                              {[]enclave.Check{pass, fail, unknown}, cli.ExitBelow, "pass    closed.links\nfail    closed.mounts: + /tmp\nunknown closed.rules: netlink\n"},
		"something that could not be looked at":     {[]enclave.Check{pass, unknown}, cli.ExitUnknown, "pass    closed.links\nunknown closed.rules: netlink\n"},
		"nothing looked at is not a node in order":  {nil, cli.ExitUnknown, ""},
		"a result that nobody knows is no pass yet": {[]enclave.Check{{Name: "x", Result: "fine"}}, cli.ExitUnknown, "fine    x\n"},
	}
	for name, c := range cases {
		t.Run("check: "+name, func(t *testing.T) {
			t.Parallel()
			out, status, _ := host(t, &closable{checks: c.checks}, nil, "check")
			assert.Equal(t, c.out, out)
			assert.Equal(t, c.status, status)
		})
	}
	t.Run("check as JSON", func(t *testing.T) {
		t.Parallel()
		out, status, _ := host(t, &closable{checks: []enclave.Check{fail}}, nil, "check", "--json")
		assert.JSONEq(t, `{"closed":false,"checks":[{"name":"closed.mounts","result":"fail","reason":"+ /tmp"}]}`, out)
		assert.Equal(t, cli.ExitBelow, status)
	})
	t.Run("close", func(t *testing.T) {
		t.Parallel()
		node := &closable{}
		_, status, err := host(t, node, nil, "close")
		require.NoError(t, err)
		assert.Equal(t, cli.ExitOK, status)
		assert.Equal(t, 1, node.closed)
		node.err = errors.New("table stays")
		_, status, err = host(t, node, nil, "close")
		require.ErrorContains(t, err, "table stays")
		assert.Equal(t, cli.ExitFailure, status)
	})
	t.Run("without a configuration", func(t *testing.T) {
		t.Parallel()
		_, status, _ := host(t, nil, errors.New("no file"), "check")
		assert.Equal(t, cli.ExitUnknown, status)
		_, status, _ = host(t, nil, errors.New("no file"), "close")
		assert.Equal(t, cli.ExitFailure, status)
		_, status, _ = host(t, nil, nil)
		assert.Equal(t, cli.ExitUsage, status)
		_, status, _ = host(t, nil, nil, "check", "n1")
		assert.Equal(t, cli.ExitUsage, status)
	})
}
