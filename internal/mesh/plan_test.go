package mesh_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

var update = flag.Bool("update", false, "write the golden files anew")

func secret(b byte) enclave.Secret {
	raw := make([]byte, 32)
	for i := range raw {
		raw[i] = b
	}
	return enclave.NewSecret(raw)
}

func peer(n byte, addrs ...string) mesh.Peer {
	p := mesh.Peer{Peer: enclave.Peer{Node: fmt.Sprintf("n%d", n), Key: enclave.PublicKey{n, n}}, PSK: secret(0x50 + n)}
	for _, a := range addrs {
		p.Addresses = append(p.Addresses, netip.MustParseAddr(a))
	}
	p.Endpoint = netip.AddrPortFrom(p.Addresses[0], 51820)
	return p
}

func input() mesh.Input {
	own := peer(2, "10.0.0.2", "fd00::2")
	return mesh.Input{
		Key: enclave.JobKey{Cluster: "c", Job: 4711, Restart: 1}, UID: 2001,
		SubUIDs: []enclave.UIDRange{{Start: 165536, Count: 65536}},
		Own:     own.Peer,
		Peers: []mesh.Peer{
			peer(3, "10.0.0.3", "10.1.0.3", "fd00::3"), own, peer(1, "10.0.0.1", "fd00::1"),
		},
		PrivateKey: secret(0x77), ListenPort: 51820, SlurmdPort: 6818, MTU: 1420, Driver: mesh.DriverKernel,
	}
}

func TestPlan(t *testing.T) {
	v4 := input()
	v4.SubUIDs, v4.Driver = nil, mesh.DriverKeeper
	v4.Own = peer(2, "10.0.0.2").Peer
	v4.Peers = []mesh.Peer{peer(1, "10.0.0.1", "fd00::1"), peer(3, "10.0.0.3")}
	alone := input()
	alone.Peers = nil
	for name, in := range map[string]mesh.Input{"both-families": input(), "ipv4-userspace": v4, "alone": alone} {
		t.Run(name, func(t *testing.T) {
			d, err := mesh.Plan(in)
			require.NoError(t, err)
			file := "testdata/" + name + ".golden"
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(d.String()), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Equal(t, string(want), d.String())
		})
	}
}

func TestSource(t *testing.T) {
	in := input()
	in.Own = peer(2, "10.0.0.2", "10.1.0.2", "fd00::2", "fd01::2").Peer
	in.Peers = []mesh.Peer{peer(3, "10.0.0.3", "10.1.0.3", "fd01::3", "192.0.2.3")}
	d, err := mesh.Plan(in)
	require.NoError(t, err)
	from := map[string]string{}
	for _, r := range d.Routes {
		from[r.To.String()] = r.Source.String()
	}
	assert.Equal(t, map[string]string{
		"10.0.0.3": "10.0.0.2", "10.1.0.3": "10.1.0.2", "fd01::3": "fd01::2",
		"192.0.2.3": "10.0.0.2", // of no network of this node's: the tunnel's address
	}, from, "a packet comes from the address on the peer's own network")
}

func TestPlanRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*mesh.Input)
		code  enclave.Code
	}{
		"root's traffic":                         {func(i *mesh.Input) { i.UID = 0 }, mesh.CodePlan},
		"a sub-uid range that holds root":        {func(i *mesh.Input) { i.SubUIDs = []enclave.UIDRange{{Start: 0, Count: 9}} }, mesh.CodePlan},
		"a sub-uid range beyond the last":        {func(i *mesh.Input) { i.SubUIDs = []enclave.UIDRange{{Start: 1 << 31, Count: 1 << 31}} }, mesh.CodePlan},
		"job 0":                                  {func(i *mesh.Input) { i.Key.Job = 0 }, mesh.CodePlan},
		"a short private key":                    {func(i *mesh.Input) { i.PrivateKey = enclave.NewSecret(make([]byte, 31)) }, mesh.CodePlan},
		"a peer without a pre-shared key":        {func(i *mesh.Input) { i.Peers[0].PSK = enclave.Secret{} }, mesh.CodePlan},
		"an unknown driver":                      {func(i *mesh.Input) { i.Driver = "" }, mesh.CodePlan},
		"an MTU that IPv6 can't use":             {func(i *mesh.Input) { i.MTU = 1279 }, mesh.CodePlan},
		"port 0":                                 {func(i *mesh.Input) { i.ListenPort = 0 }, mesh.CodePlan},
		"a peer without addresses":               {func(i *mesh.Input) { i.Peers[0].Addresses = nil }, mesh.CodePlan},
		"two peers with one address":             {func(i *mesh.Input) { i.Peers[0].Addresses[1] = i.Peers[2].Addresses[0] }, mesh.CodeAddress},
		"a peer with this node's address":        {func(i *mesh.Input) { i.Peers[0].Addresses[1] = i.Own.Addresses[0] }, mesh.CodeAddress},
		"two peers with one key":                 {func(i *mesh.Input) { i.Peers[0].Key = i.Peers[2].Key }, mesh.CodeAddress},
		"a peer with this node's key":            {func(i *mesh.Input) { i.Peers[0].Key = i.Own.Key }, mesh.CodeAddress},
		"an endpoint that is no address of it":   {func(i *mesh.Input) { i.Peers[0].Endpoint = netip.MustParseAddrPort("10.0.0.9:51820") }, mesh.CodeAddress},
		"a loopback address":                     {func(i *mesh.Input) { i.Peers[0].Addresses[1] = netip.MustParseAddr("127.0.0.1") }, mesh.CodeAddress},
		"a link-local address":                   {func(i *mesh.Input) { i.Peers[0].Addresses[1] = netip.MustParseAddr("fe80::1") }, mesh.CodeAddress},
		"a multicast address":                    {func(i *mesh.Input) { i.Peers[0].Addresses[1] = netip.MustParseAddr("224.0.0.1") }, mesh.CodeAddress},
		"the broadcast address":                  {func(i *mesh.Input) { i.Peers[0].Addresses[1] = netip.MustParseAddr("255.255.255.255") }, mesh.CodeAddress},
		"an IPv4 address in an IPv6 one's dress": {func(i *mesh.Input) { i.Peers[0].Addresses[1] = netip.MustParseAddr("::ffff:10.0.0.9") }, mesh.CodeAddress},
	} {
		t.Run(name, func(t *testing.T) {
			in := input()
			tc.spoil(&in)
			_, err := mesh.Plan(in)
			refusal, ok := enclave.AsRefusal(err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, tc.code, refusal.Code)
			assert.NotEqual(t, enclave.FaultNode, refusal.Fault, "a wrong plan drains no node")
		})
	}
}

func TestNumbers(t *testing.T) {
	t.Run("two jobs on one node have nothing in common", func(t *testing.T) {
		assert.NotEqual(t, mesh.Name(1), mesh.Name(2))
		assert.NotEqual(t, mesh.Table(1), mesh.Table(2))
		assert.NotEqual(t, mesh.Mark(1), mesh.Mark(2))
		assert.NotEqual(t, mesh.FwMark(1), mesh.FwMark(2))
	})
	t.Run("the two marks of a job differ", func(t *testing.T) {
		assert.NotEqual(t, mesh.FwMark(1<<26-1), mesh.Mark(1<<26-1))
	})
	t.Run("the greatest job id fits into an interface name", func(t *testing.T) {
		assert.LessOrEqual(t, len(mesh.Name(1<<32-1)), 15)
	})
	t.Run("the tunnel's MTU leaves room for IPv6 underneath", func(t *testing.T) {
		assert.Equal(t, 1420, mesh.TunnelMTU(1500))
		assert.Equal(t, 8920, mesh.TunnelMTU(9000))
		assert.Equal(t, 1280, mesh.TunnelMTU(1300))
	})
}

func TestNeighbours(t *testing.T) {
	plan := func(n int) map[byte]mesh.Device {
		var all []mesh.Peer
		for i := range n {
			all = append(all, peer(byte(i+1), fmt.Sprintf("10.0.0.%d", i+1)))
		}
		out := map[byte]mesh.Device{}
		for _, own := range all {
			in := input()
			in.Own, in.Peers = own.Peer, all
			d, err := mesh.Plan(in)
			require.NoError(t, err)
			out[own.Key[0]] = d
		}
		return out
	}
	for n, count := range map[int]int{1: 0, 2: 1, 3: 2, 4: 2, 9: 2} {
		t.Run(fmt.Sprintf("%d nodes: each is the neighbour of its %d neighbours and one of each pair is first", n, count), func(t *testing.T) {
			first := map[string]bool{}
			for own, d := range plan(n) {
				next := d.Neighbours(enclave.PublicKey{own, own})
				require.Len(t, next, count)
				for _, x := range next {
					assert.NotEqual(t, fmt.Sprintf("n%d", own), x.Node)
					first[fmt.Sprintf("n%d>%s", own, x.Node)] = x.First
				}
			}
			for pair, f := range first {
				var a, b string
				_, err := fmt.Sscanf(pair, "%2s>%s", &a, &b)
				require.NoError(t, err)
				back, ok := first[b+">"+a]
				assert.True(t, ok, "%s has no way back", pair)
				assert.NotEqual(t, f, back, pair)
			}
		})
	}
}

func TestPairs(t *testing.T) {
	in := input()
	d, err := mesh.Plan(in)
	require.NoError(t, err)
	pairs := d.Pairs(in.Own.Key)
	require.Len(t, pairs, 2)
	assert.Equal(t, []string{"n3", "n1"}, []string{pairs[0].Node, pairs[1].Node}, "behind this node first")
	assert.Equal(t, []bool{true, false}, []bool{pairs[0].First, pairs[1].First})
	t.Run("a job of one node has none", func(t *testing.T) {
		in.Peers = nil
		d, err := mesh.Plan(in)
		require.NoError(t, err)
		assert.Empty(t, d.Pairs(in.Own.Key))
		assert.Empty(t, d.Neighbours(in.Own.Key))
	})
}
