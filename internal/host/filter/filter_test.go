package filter_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/fence/fencetest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
	"github.com/slurm-enclave/slurm-enclave/internal/host/nettest"
)

func plan(t *testing.T) fence.Table {
	t.Helper()
	table, err := fence.Plan(fencetest.Input())
	require.NoError(t, err)
	return table
}

func up(ctx context.Context, n *nettest.Node, t fence.Table, instead ...string) error {
	return n.Do(func() error { return fence.Up(ctx, filter.Kernel{}, t, instead...) })
}

func TestKernelHoldsTheGoldenText(t *testing.T) {
	golden, err := filepath.Glob("../../fence/testdata/*.nft")
	require.NoError(t, err)
	require.NotEmpty(t, golden)
	closed, err := fence.Closed(1000, fencetest.Input().Inbound, fencetest.Streams(), fencetest.Input().Groups...)
	require.NoError(t, err)
	for file, table := range map[string]fence.Table{"both-families.nft": plan(t), "closed.nft": closed} {
		t.Run(file, func(t *testing.T) {
			text, err := os.ReadFile("../../fence/testdata/" + file)
			require.NoError(t, err)
			byNft, byUs := nettest.New(t, "nft"), nettest.New(t, "us")
			out, err := byNft.Try(string(text), "nft", "-f", "-")
			require.NoError(t, err, out)
			require.NoError(t, up(t.Context(), byUs, table))
			assert.Equal(t, byNft.Run("nft", "list", "ruleset"), byUs.Run("nft", "list", "ruleset"))
		})
	}
}

func TestReadBack(t *testing.T) {
	n := nettest.New(t, "n")
	table := plan(t)
	read := func() error {
		return n.Do(func() error { return filter.Kernel{}.Read(t.Context(), table) })
	}
	require.ErrorIs(t, read(), fence.ErrAbsent)
	for name, spoil := range map[string][]string{
		"a rule in front of the others":     {"insert", "rule", "inet", "enclave_4711", "out", "accept"},
		"a rule behind the others":          {"add", "rule", "inet", "enclave_4711", "in", "accept"},
		"a flushed chain":                   {"flush", "chain", "inet", "enclave_4711", "pre"},
		"a further chain":                   {"add", "chain", "inet", "enclave_4711", "more"},
		"an address too many":               {"add", "element", "inet", "enclave_4711", "slurmd4", "{ 10.9.9.9 }"},
		"an address too few":                {"delete", "element", "inet", "enclave_4711", "slurmd6", "{ fd00::2 }"},
		"a network too many":                {"add", "element", "inet", "enclave_4711", "inbound_34", "{ 10.9.0.0/16 }"},
		"a network too few":                 {"delete", "element", "inet", "enclave_4711", "inbound_36", "{ fd00::/8 }"},
		"a further set":                     {"add", "set", "inet", "enclave_4711", "more", "{ type ipv4_addr ; }"},
		"a table that sleeps":               {"add", "table", "inet", "enclave_4711", "{ flags dormant ; }"},
		"a chain that drops what it passes": {"chain", "inet", "enclave_4711", "out", "{ policy drop ; }"},
	} {
		t.Run(name+" is found", func(t *testing.T) {
			require.NoError(t, up(t.Context(), n, table))
			require.NoError(t, read())
			n.Run(append([]string{"nft"}, spoil...)...)
			err := read()
			require.Error(t, err)
			require.NotErrorIs(t, err, fence.ErrAbsent)
		})
	}
	t.Run("a rule whose value differs is found", func(t *testing.T) {
		text := strings.Replace(table.String(), "meta skuid >= 1000", "meta skuid >= 3000", 1)
		require.NotEqual(t, table.String(), text)
		n.Run("nft", "delete", "table", "inet", "enclave_4711")
		out, err := n.Try(text, "nft", "-f", "-")
		require.NoError(t, err, out)
		require.ErrorContains(t, read(), "meta skuid >= 1000")
	})
}

func TestReplace(t *testing.T) {
	n := nettest.New(t, "n")
	closed, err := fence.Closed(1000, nil, fence.Streams{})
	require.NoError(t, err)
	list := func() string { return n.Run("nft", "list", "ruleset") }
	empty := list()
	t.Run("down works on a node where nothing ever was", func(t *testing.T) {
		n.Must(func() error { return fence.Down(t.Context(), filter.Kernel{}, 4711) })
		assert.Equal(t, empty, list())
	})
	t.Run("twice is as once", func(t *testing.T) {
		require.NoError(t, up(t.Context(), n, plan(t)))
		once := list()
		require.NoError(t, up(t.Context(), n, plan(t)))
		assert.Equal(t, once, list())
	})
	t.Run("the job's fence and the closed one replace each other", func(t *testing.T) {
		require.NoError(t, up(t.Context(), n, closed, fence.Name(4711)))
		closedText := list()
		assert.NotContains(t, closedText, "enclave_4711")
		require.NoError(t, up(t.Context(), n, plan(t), fence.ClosedName))
		assert.NotContains(t, list(), fence.ClosedName)
		require.NoError(t, up(t.Context(), n, closed, fence.Name(4711)))
		assert.Equal(t, closedText, list(), "the closed state is the same text every time")
	})
	t.Run("another's table is not touched", func(t *testing.T) {
		n.Run("nft", "add", "table", "inet", "admin")
		n.Must(func() error { return fence.Down(t.Context(), filter.Kernel{}, 4711) })
		assert.Contains(t, list(), "table inet admin")
	})
	t.Run("a large job fits", func(t *testing.T) {
		in := fencetest.Input()
		for i := range 5000 {
			in.Slurmd.Addresses = append(in.Slurmd.Addresses, netip.MustParseAddr(fmt.Sprintf("10.7.%d.%d", i/250, i%250+1)))
		}
		table, err := fence.Plan(in)
		require.NoError(t, err)
		require.NoError(t, up(t.Context(), n, table))
		n.Must(func() error { return fence.Down(t.Context(), filter.Kernel{}, 4711) })
	})
	t.Run("counters of a fence that is not there are an error", func(t *testing.T) {
		err := n.Do(func() error {
			_, err := fence.ReadCounters(t.Context(), filter.Kernel{}, 4711)
			return err
		})
		require.Error(t, err)
	})
	t.Run("counters of a new fence are zero", func(t *testing.T) {
		require.NoError(t, up(t.Context(), n, plan(t)))
		n.Must(func() error {
			c, err := fence.ReadCounters(t.Context(), filter.Kernel{}, 4711)
			if err == nil && c != (fence.Counters{}) {
				err = fmt.Errorf("%+v", c)
			}
			return err
		})
	})
}
