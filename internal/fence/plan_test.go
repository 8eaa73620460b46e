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
)

var update = flag.Bool("update", false, "write the golden files anew")

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func input() fence.Input {
	return fence.Input{
		Key: enclave.JobKey{Cluster: "c", Job: 4711}, UID: 2001, UIDMin: 1000,
		SubUIDs: []enclave.UIDRange{{Start: 165536, Count: 65536}},
		Device:  "enc4711", FwMark: 0xa8001267, Mark: 0xac001267, WireGuardPort: 51820,
		Slurmctld:   fence.Server{Addresses: addrs("10.0.0.100", "fd00::100"), Port: 6817},
		Slurmd:      fence.Server{Addresses: addrs("10.0.0.2", "10.0.0.1", "fd00::1", "fd00::2"), Port: 6818},
		Enclaved:    fence.Server{Addresses: addrs("10.0.0.101"), Port: 6830},
		SubmitHost:  addrs("10.0.0.102", "fd00::102"),
		SrunPorts:   fence.PortRange{First: 61001, Last: 61200},
		Interactive: true,
		Services: []fence.Service{
			{Name: "dns", Proto: "udp", Port: 53, Addresses: prefixes("10.0.0.53/32", "fd00::53/128")},
			{Name: "licence", Proto: "tcp", Port: 27000, Addresses: prefixes("10.0.0.64/26", "10.0.0.54/32", "fd00:1::/32", "10.0.0.70/32", "10.0.0.128/25", "fd00:1:2::/48")},
		},
		Inbound: []fence.Service{
			{Name: "ssh", Proto: "tcp", Port: 22},
			{Name: "all", Proto: "tcp", Port: 80, Addresses: prefixes("0.0.0.0/0", "10.1.0.0/16", "::/0")},
			{Name: "monitoring", Proto: "tcp", Port: 9100, Addresses: prefixes("10.0.0.103/24", "255.255.255.0/24", "fd00::/8")},
		},
	}
}

func streams() fence.Streams {
	return fence.Streams{Hosts: input().SubmitHost, Ports: input().SrunPorts}
}

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
	deny := input()
	deny.Interactive, deny.SubUIDs, deny.Services, deny.Inbound = false, nil, nil, nil
	deny.Slurmctld.Addresses, deny.Slurmd.Addresses = addrs("10.0.0.100"), addrs("10.0.0.1", "10.0.0.2")
	for name, in := range map[string]fence.Input{"both-families": input(), "ipv4-batch": deny} {
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
		table, err := fence.Closed(1000, input().Inbound, streams())
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
		"a service in a /0":                 func(i *fence.Input) { i.Services[0].Addresses = prefixes("0.0.0.0/0") },
		"a prefix that is none":             func(i *fence.Input) { i.Services[0].Addresses = []netip.Prefix{{}} },
		"an IPv4 prefix in IPv6's clothes":  func(i *fence.Input) { i.Inbound[1].Addresses = prefixes("::ffff:10.0.0.0/104") },
	} {
		t.Run(name, func(t *testing.T) {
			in := input()
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
		_, err := fence.Closed(1000, nil, fence.Streams{Hosts: streams().Hosts})
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
