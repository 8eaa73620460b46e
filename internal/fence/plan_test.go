package fence_test

import (
	"flag"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/fence/fencetest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, string(want), got)
}

func TestPlan(t *testing.T) {
	deny := fencetest.Input()
	deny.Interactive, deny.Userspace, deny.SubUIDs, deny.Services, deny.Inbound, deny.Groups = false, true, nil, nil, nil, nil
	deny.Slurmctld.Addresses, deny.Slurmd.Addresses = fencetest.Addresses("10.0.0.100"), fencetest.Addresses("10.0.0.1", "10.0.0.2")
	for name, in := range map[string]fence.Input{"both-families": fencetest.Input(), "ipv4-batch": deny} {
		t.Run(name, func(t *testing.T) {
			table, err := fence.Plan(in)
			require.NoError(t, err)
			golden(t, "testdata/"+name+".nft", table.String())
		})
	}
	t.Run("a job that is not interactive has no way to the submit host", func(t *testing.T) {
		table, err := fence.Plan(deny)
		require.NoError(t, err)
		assert.NotContains(t, table.String(), "@submit_host")
		assert.NotContains(t, table.String(), "10.0.0.102")
	})
	t.Run("closed", func(t *testing.T) {
		table, err := fence.Closed(1000, fencetest.Input().Inbound, fencetest.Streams(), fencetest.Input().Groups...)
		require.NoError(t, err)
		golden(t, "testdata/closed.nft", table.String())
	})
}

func TestPlanRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*fence.Input){
		"job 0":                             func(i *fence.Input) { i.Key.Job = 0 },
		"a daemon's user id":                func(i *fence.Input) { i.UID = 999 },
		"root, were root a person":          func(i *fence.Input) { i.UIDMin, i.UID = 0, 0 },
		"a sub-uid range with a daemon":     func(i *fence.Input) { i.SubUIDs[0].Start = 999 },
		"an empty sub-uid range":            func(i *fence.Input) { i.SubUIDs[0].Count = 0 },
		"no device":                         func(i *fence.Input) { i.Device = "" },
		"one mark for both purposes":        func(i *fence.Input) { i.Mark = i.FwMark },
		"no mark":                           func(i *fence.Input) { i.Mark = 0 },
		"an SrunPortRange that is not set":  func(i *fence.Input) { i.SrunPorts = fence.PortRange{} },
		"an SrunPortRange that is reversed": func(i *fence.Input) { i.SrunPorts = fence.PortRange{First: 9, Last: 8} },
		"no controller":                     func(i *fence.Input) { i.Slurmctld.Addresses = nil },
		"no verifier":                       func(i *fence.Input) { i.Enclaved.Port = 0 },
		"a service that is everywhere":      func(i *fence.Input) { i.Services[0].Addresses = nil },
		"a service on every port":           func(i *fence.Input) { i.Services[0].Port = 0 },
		"a service of another protocol":     func(i *fence.Input) { i.Services[0].Proto = "sctp" },
		"a service in a /0":                 func(i *fence.Input) { i.Services[0].Addresses = fencetest.Prefixes("0.0.0.0/0") },
		"a group that is a host":            func(i *fence.Input) { i.Groups[0] = i.Slurmd.Addresses[0] },
		"a prefix that is none":             func(i *fence.Input) { i.Services[0].Addresses = []netip.Prefix{{}} },
		"an IPv4 prefix in IPv6's clothes":  func(i *fence.Input) { i.Inbound[1].Addresses = fencetest.Prefixes("::ffff:10.0.0.0/104") },
	} {
		t.Run(name, func(t *testing.T) {
			in := fencetest.Input()
			spoil(&in)
			table, err := fence.Plan(in)
			refusal, ok := enclave.AsRefusal(err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, fence.CodePlan, refusal.Code)
			assert.Empty(t, table.Chains)
		})
	}
	t.Run("a closed fence that would hold root", func(t *testing.T) {
		_, err := fence.Closed(0, nil, fence.Streams{})
		require.Error(t, err)
	})
	t.Run("a closed fence with streams to every port", func(t *testing.T) {
		_, err := fence.Closed(1000, nil, fence.Streams{Hosts: fencetest.Streams().Hosts})
		require.ErrorContains(t, err, "SrunPortRange")
	})
}

func TestUnlisted(t *testing.T) {
	c := fence.Counters{
		Outside: fence.Count{Packets: 10, Bytes: 1000}, Slurmd: fence.Count{Packets: 3, Bytes: 300},
		Services: fence.Count{Packets: 4, Bytes: 400}, Tunnel: fence.Count{Packets: 99, Bytes: 9999},
	}
	assert.Equal(t, fence.Count{Packets: 3, Bytes: 300}, c.Unlisted())
	c.Replies = fence.Count{Packets: 30, Bytes: 3000}
	assert.Zero(t, c.Unlisted(), "a counter read later never makes it negative")
}
