package cli_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/bench"
	"github.com/slurm-enclave/slurm-enclave/internal/cli"
)

// emptyHost has no program at all.
type emptyHost struct{ asked []string }

func (h *emptyHost) Run(_ context.Context, _ string, argv ...string) (string, error) {
	h.asked = append(h.asked, argv[0])
	return "", errors.New(argv[0] + " is not here")
}

func TestBenchNetFlags(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, args ...string) (*emptyHost, error) {
		t.Helper()
		host := &emptyHost{}
		var out bytes.Buffer
		root := cli.NewRootCommand(&out, &out, "1", nil, cli.NewBenchCommand(cli.Benchmarks{
			Here: host, Lab: func() (bench.Shell, error) { return nil, errors.New("no lab here") },
		}))
		root.SetArgs(append([]string{"bench", "net"}, args...))
		return host, root.ExecuteContext(t.Context())
	}
	for name, args := range map[string][]string{
		"no repetitions":                         {"--repeat", "0"},
		"an hour of stream":                      {"--seconds", "3600"},
		"another baseline":                       {"--baseline", "ipsec"},
		"a baseline without its network":         {"--baseline", "openvpn"},
		"a network that is none":                 {"--baseline", "openvpn", "--baseline-net", "10.8.0.1"},
		"the lab with a network of the site's":   {"--lab", "--baseline", "openvpn", "--baseline-net", "10.8.0.0/24"},
		"the lab with a directory of the site's": {"--lab", "--directory", "/shared"},
		"an argument":                            {"n1"},
	} {
		t.Run(name+" is bad usage", func(t *testing.T) {
			t.Parallel()
			host, err := run(t, args...)
			exit, ok := errors.AsType[*cli.ExitError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, cli.ExitUsage, exit.Code)
			assert.Empty(t, host.asked)
		})
	}
	t.Run("without Slurm the error names what was asked for", func(t *testing.T) {
		t.Parallel()
		_, err := run(t)
		require.ErrorContains(t, err, "list partitions: sinfo is not here")
	})
	t.Run("without the lab's program nothing is asked", func(t *testing.T) {
		t.Parallel()
		host, err := run(t, "--lab")
		require.ErrorContains(t, err, "no lab here")
		assert.Empty(t, host.asked)
	})
}
