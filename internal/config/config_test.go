package config_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
)

const small = `cluster: c1
verifier: {address: "ctl:6830", key: "sha256:0101010101010101010101010101010101010101010101010101010101010101"}
slurm: {slurmctld: {addresses: [10.0.0.1]}}
storage: {source: /srv/fs}
`

func TestSmallestFileGetsTheDefaults(t *testing.T) {
	t.Parallel()
	c, err := config.Load(strings.NewReader(small))
	require.NoError(t, err)
	assert.Equal(t, []string{"cpu-sev"}, c.Partitions)
	assert.Equal(t, config.PortRange{First: 61001, Last: 61200}, c.Slurm.SrunPorts)
	assert.Equal(t, config.Size(4<<30), c.Storage.TmpSize)
	assert.Equal(t, uint32(3), c.Controller.Storm.Nodes)
	assert.False(t, c.Controller.AllowSimulated)
	d, err := c.Verifier.KeyDigest()
	require.NoError(t, err)
	assert.Equal(t, byte(1), d[31])
}

func TestSamplesParse(t *testing.T) {
	t.Parallel()
	f, err := os.Open("../../etc/enclave.yaml")
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	c, err := config.Load(f)
	require.NoError(t, err)
	want := config.Default()
	assert.Equal(t, want.Limits, c.Limits, "the sample says default where it is not")
	assert.Equal(t, want.Controller, c.Controller)
	g, err := os.Open("../../etc/inventory.yaml")
	require.NoError(t, err)
	defer func() { _ = g.Close() }()
	i, err := config.LoadInventory(g)
	require.NoError(t, err)
	n, ok := i.Find("n2")
	require.True(t, ok)
	assert.Len(t, n.Addresses, 2)
	_, ok = i.Find("n3")
	assert.False(t, ok)
}

func TestWaysToSlurmrestd(t *testing.T) {
	t.Parallel()
	c, err := config.Load(strings.NewReader(small))
	require.NoError(t, err)
	assert.Equal(t, "cli", c.Slurm.Driver, "by default")
	for _, rest := range []string{
		"{socket: /run/slurmrestd/s}", "{url: 'https://ctl:6820', token_file: /t}", "{url: 'http://127.0.0.1:6820', token_file: /t}",
		"{url: 'http://[::1]:6820/', token_file: /t}", "{url: 'http://localhost', token_file: /t}", "{url: 'http://10.0.0.1:6820', plaintext: true, token_file: /t}",
	} {
		_, err = config.Load(strings.NewReader(strings.Replace(small, "slurm: {", "slurm: {driver: rest, rest: "+rest+", ", 1)))
		require.NoError(t, err, rest)
	}
}

func TestFaultsAreNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, with, want string }{
		"a misspelled key":                  {"cluster: c1", "cluster: c1\nlimitz: {}", `line 2: unknown key "limitz", did you mean "limits"`},
		"a misspelled key deep down":        {"source: /srv/fs", "source: /srv/fs, tmpsize: 1GiB", `unknown key "tmpsize", did you mean "tmp_size"`},
		"a key like none":                   {"cluster: c1", "cluster: c1\nqqqqqqqq: 1", `unknown key "qqqqqqqq"`},
		"a key twice":                       {"cluster: c1", "cluster: c1\ncluster: c2", "line 2"},
		"no cluster":                        {"cluster: c1", "cluster: ''", "cluster"},
		"a pin that is none":                {"sha256:01", "sha256:", "verifier.key"},
		"no controller address":             {"[10.0.0.1]", "[]", "slurmctld.addresses"},
		"a loopback controller":             {"[10.0.0.1]", "[127.0.0.1]", "unicast"},
		"no source":                         {"source: /srv/fs", "backend: bind", "storage.source"},
		"a path with dots":                  {"/srv/fs", "/srv/../fs", "storage.source"},
		"a source beneath the public":       {"/srv/fs", "/lustre/fs", "lie in each other"},
		"an unknown backend":                {"source: /srv/fs", "source: /srv/fs, backend: nfs", `"nfs", want bind`},
		"a backend without its file system": {"source: /srv/fs", "backend: lustre", "storage.lustre.source"},
		"both backends":                     {"source: /srv/fs", "source: /srv/fs, backend: lustre, lustre: {source: '10.0.0.5@tcp:/fs'}", "is for storage.backend: bind"},
		"lustre's keys for bind":            {"source: /srv/fs", "source: /srv/fs, lustre: {options: [flock]}", "is for storage.backend: lustre"},
		"setuid programs as an option":      {"source: /srv/fs", "backend: lustre, lustre: {source: '10.0.0.5@tcp:/fs', options: [suid]}", "can't be one"},
		"every FID's path as an option":     {"source: /srv/fs", "backend: lustre, lustre: {source: '10.0.0.5@tcp:/fs', options: [user_fid2path]}", "can't be one"},
		"a subtree as a source":             {"source: /srv/fs", "backend: lustre, lustre: {source: '10.0.0.5@tcp:/fs/proj'}", "want MGSNID"},
		"L2 of a bind mount":                {"source: /srv/fs", "source: /srv/fs, assurance: L2", "a bind mount has L1"},
		"L2 that nothing tries":             {"source: /srv/fs", "backend: lustre, assurance: L2, lustre: {source: '10.0.0.5@tcp:/fs'}", "canary"},
		"an isolation that there is not":    {"source: /srv/fs", "source: /srv/fs, isolation: container", "storage.isolation"},
		"a mount that ends in a namespace":  {"source: /srv/fs", "backend: lustre, isolation: namespace, lustre: {source: '10.0.0.5@tcp:/fs'}", "nothing would tell what was lost"},
		"an unknown socket family":          {"cluster: c1", "cluster: c1\nnetwork: {families: [smc, alg]}", `network.families: "alg", want smc, rds, tipc, vsock`},
		"a service that is everywhere":      {"cluster: c1", "cluster: c1\nnetwork: {services: [{name: a, proto: tcp, port: 1, addresses: [0.0.0.0/0]}]}", "opens the enclave to everybody"},
		"an address without its length":     {"cluster: c1", "cluster: c1\nnetwork: {services: [{name: a, proto: tcp, port: 1, addresses: [10.0.0.1]}]}", "10.0.0.1"},
		"an IPv4 network in IPv6's clothes": {"cluster: c1", "cluster: c1\nnetwork: {inbound: [{name: a, proto: tcp, port: 1, addresses: ['::ffff:10.0.0.0/104']}]}", "service a"},
		"a tag in the place of a list":      {"cluster: c1", "cluster: c1\npartitions: !x", "not YAML that can be decoded"},
		"an unknown driver":                 {"slurm: {", "slurm: {driver: restd, ", `slurm.driver: "restd", want cli, rest`},
		"a misspelled key of a driver":      {"slurm: {", "slurm: {driver: rest, rest: {sockett: /x}, ", `unknown key "sockett", did you mean "socket"`},
		"slurmrestd nowhere":                {"slurm: {", "slurm: {driver: rest, ", "want socket or url"},
		"slurmrestd twice":                  {"slurm: {", "slurm: {driver: rest, rest: {socket: /x, url: 'https://a'}, ", "not both"},
		"slurmrestd without its driver":     {"slurm: {", "slurm: {rest: {socket: /x}, ", "is for slurm.driver: rest"},
		"a token for a socket":              {"slurm: {", "slurm: {driver: rest, rest: {socket: /x, token_file: /t}, ", "are for url"},
		"a token in the clear":              {"slurm: {", "slurm: {driver: rest, rest: {url: 'http://10.0.0.1:6820', token_file: /t}, ", "shows the token to the network"},
		"a loopback that is none":           {"slurm: {", "slurm: {driver: rest, rest: {url: 'http://127.0.0.1.example.org', token_file: /t}, ", "shows the token to the network"},
		"an address with a password":        {"slurm: {", "slurm: {driver: rest, rest: {url: 'https://a:b@c', token_file: /t}, ", "is no address"},
		"an address without a token":        {"slurm: {", "slurm: {driver: rest, rest: {url: 'https://a'}, ", "slurm.rest.token_file"},
		"a user with a space":               {"slurm: {", "slurm: {driver: rest, rest: {url: 'https://a', token_file: /t, user: 'a b'}, ", "slurm.rest.user"},
		"a size without unit":               {"source: /srv/fs", "source: /srv/fs, tmp_size: '12'", "parse size"},
		"a size that overflows":             {"source: /srv/fs", "source: /srv/fs, tmp_size: 99999999999TiB", "parse size"},
		"a lifetime of two days":            {"cluster: c1", "cluster: c1\nlimits: {lifetime_hours: 48}", "1 to 24"},
		"a barrier past Slurm's":            {"cluster: c1", "cluster: c1\nlimits: {barrier_seconds: 110}", "5 to 85"},
		"a nonce of an hour":                {"cluster: c1", "cluster: c1\nlimits: {nonce_seconds: 3600}", "5 to 60"},
		"a storm of one node":               {"cluster: c1", "cluster: c1\ncontroller: {storm: {nodes: 1, minutes: 10}}", "storm"},
		"simulation without roots":          {"cluster: c1", "cluster: c1\ncontroller: {allow_simulated: true}", "go together"},
		"a key server without TLS":          {"cluster: c1", "cluster: c1\ncontroller: {kds: {url: \"http://kds.example.org\"}}", "not https"},
		"a key server that is no address":   {"cluster: c1", "cluster: c1\ncontroller: {kds: {url: \"https://u:p@kds/?x\"}}", "is no address"},
		"roots without simulation":          {"cluster: c1", "cluster: c1\ncontroller: {simulated_roots: /x}", "go together"},
		"a file system that nothing proves": {"source: /srv/fs", "source: /srv/fs, fstype: fuse.lustre", "fuse.lustre"},
		"a submit host of no address":       {"slurm: {slurmctld: {addresses: [10.0.0.1]}}", "slurm: {slurmctld: {addresses: [10.0.0.1]}, submit_hosts: [{name: login}]}", "login: addresses: none"},
		"a submit host that is all":         {"slurm: {slurmctld: {addresses: [10.0.0.1]}}", "slurm: {slurmctld: {addresses: [10.0.0.1]}, submit_hosts: [{name: login, addresses: [0.0.0.0]}]}", "unicast"},
		"a service without address":         {"cluster: c1", "cluster: c1\nnetwork: {services: [{name: a, proto: tcp, port: 1}]}", "no address"},
		"a reversed port range":             {"slurmctld:", "srun_ports: 5-4, slurmctld:", "port range"},
		"a second document":                 {"source: /srv/fs}", "source: /srv/fs}\n---\ncluster: c2", "more than one document"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			require.Contains(t, small, c.old)
			_, err := config.Load(strings.NewReader(strings.Replace(small, c.old, c.with, 1)))
			require.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "\n", "one line")
		})
	}
	t.Run("an empty file is refused", func(t *testing.T) {
		t.Parallel()
		_, err := config.Load(strings.NewReader(""))
		assert.ErrorContains(t, err, "empty")
	})
}

func TestInventoryHoldsEachAddressToOneNode(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ yaml, want string }{
		"no node":           {"nodes: []", "empty"},
		"a name twice":      {"nodes: [{name: a, addresses: [10.0.0.1], tunnel: 10.0.0.1}, {name: a, addresses: [10.0.0.2], tunnel: 10.0.0.2}]", "twice"},
		"an address twice":  {"nodes: [{name: a, addresses: [10.0.0.1], tunnel: 10.0.0.1}, {name: b, addresses: [10.0.0.1], tunnel: 10.0.0.1}]", "is a's"},
		"a foreign tunnel":  {"nodes: [{name: a, addresses: [10.0.0.1], tunnel: 10.0.0.2}]", "tunnel"},
		"a scoped address":  {"nodes: [{name: a, addresses: ['fe80::1%eth0'], tunnel: 'fe80::1%eth0'}]", "unicast"},
		"an unknown key":    {"nodes: [{name: a, adresses: [10.0.0.1]}]", "addresses"},
		"a multicast group": {"nodes: [{name: a, addresses: [224.0.0.1], tunnel: 224.0.0.1}]", "unicast"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			_, err := config.LoadInventory(strings.NewReader(c.yaml))
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestSizesReadBack(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"1B", "512MiB", "4GiB", "3TiB", "1025B"} {
		var v config.Size
		require.NoError(t, v.UnmarshalText([]byte(s)))
		b, err := v.MarshalText()
		require.NoError(t, err)
		assert.Equal(t, s, string(b))
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(small)
	f.Add("a: &a [*a]")
	f.Add("network: {families: [smc, vsock], services: !x}")
	f.Add("storage:\n  visible: !x\n")
	f.Add("partitions: !x")
	f.Add("storage: !!map")
	f.Add("limits: {lifetime_hours: -1}")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := config.Load(strings.NewReader(s))
		if err != nil {
			assert.Empty(t, c.Cluster)
			return
		}
		assert.NotEmpty(t, c.Cluster)
		assert.LessOrEqual(t, c.Limits.LifetimeHours, uint32(24))
	})
}

func FuzzInventory(f *testing.F) {
	f.Add("nodes: [{name: n1, addresses: [10.0.0.1], tunnel: 10.0.0.1}]")
	f.Add("nodes: [{name: n1, addresses: [10.0.0.1, \"fd00::1\"], tunnel: \"fd00::1\"}, {name: n2, addresses: [10.0.0.1], tunnel: 10.0.0.1}]")
	f.Add("nodes: [{name: n1, addresses: [\"::ffff:10.0.0.1\"], tunnel: \"fe80::1%eth0\"}]")
	f.Add("nodes: !x")
	f.Add("nodes: [&a {name: *a}]")
	f.Fuzz(func(t *testing.T, s string) {
		i, err := config.LoadInventory(strings.NewReader(s))
		if err != nil {
			assert.Empty(t, i.Nodes)
			return
		}
		names, owners := map[string]bool{}, map[netip.Addr]bool{}
		for _, n := range i.Nodes {
			assert.False(t, n.Name == "" || names[n.Name], "%q", n.Name)
			names[n.Name] = true
			assert.Contains(t, n.Addresses, n.Tunnel)
			for _, a := range n.Addresses {
				assert.False(t, !a.IsValid() || a.Is4In6() || a.Zone() != "" || owners[a], "%s", a)
				owners[a] = true
			}
		}
		assert.NotEmpty(t, i.Nodes)
	})
}

func TestKeyServers(t *testing.T) {
	for in, want := range map[string]string{
		"https://kdsintf.amd.com": "https://kdsintf.amd.com", "https://mirror.example.org:8443/kds/": "https://mirror.example.org:8443/kds",
		"http://127.0.0.1:1": "http://127.0.0.1:1", "http://[::1]:1/": "http://[::1]:1", "http://localhost": "http://localhost",
		"http://10.0.0.1": "", "ftp://x": "", "kdsintf.amd.com": "", "": "", "https://": "", "https://x#y": "", "http://localhost.example.org": "",
	} {
		got, err := config.ParseKeyServer(in)
		assert.Equal(t, want, got, in)
		assert.Equal(t, want == "", err != nil, in)
	}
}

// With the addresses decoded by their own UnmarshalText this took minutes.
func TestAnInventoryOfTenThousandNodesIsRead(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("nodes:\n")
	for i := range 10000 {
		fmt.Fprintf(&b, "  - {name: n%d, addresses: [10.1.%d.%d], tunnel: 10.1.%d.%d}\n", i, 1+i>>8, i&255, 1+i>>8, i&255)
	}
	i, err := config.LoadInventory(strings.NewReader(b.String()))
	require.NoError(t, err)
	require.Len(t, i.Nodes, 10000)
	assert.Equal(t, "10.1.40.15", i.Nodes[9999].Tunnel.String())
}
