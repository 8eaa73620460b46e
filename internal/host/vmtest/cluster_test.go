//go:build vm || e2e

package vmtest_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/host/vmtest"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

func addresses(i int) []netip.Addr {
	return []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.78.0.%d", i)), netip.MustParseAddr(fmt.Sprintf("fd78::%d", i))}
}

// node is a machine that is a node of the job.
type node struct {
	*vmtest.Machine

	orders orders
	before string
	index  int      // of its Ethernet card
	disks  []string // of a site's node
}

// fleet is the machines of all tests of this program: booting is what takes long.
type fleet struct {
	once  sync.Once
	err   error
	dir   string
	image vmtest.Image
	wire  vmtest.Hub
	nodes []*node
	host  *vmtest.Machine // the one with namespaces for nodes
}

var machines fleet

// contents are the programs in the machines.
func contents(dir string) (vmtest.Contents, error) {
	agent, keeper := filepath.Join(dir, "agent"), filepath.Join(dir, "enclave-keeper")
	err := errors.Join(
		vmtest.Compile(agent, "./internal/host/vmtest", true),
		vmtest.Compile(keeper, "./cmd/enclave-keeper", false))
	return vmtest.Contents{"/agent": agent, "/bin/enclave-keeper": keeper}, err
}

// scratch makes a directory that is deleted after all tests.
func (f *fleet) scratch() (string, error) {
	if f.dir == "" {
		var err error
		if f.dir, err = os.MkdirTemp("", "vmtest"); err != nil {
			return "", err
		}
	}
	return os.MkdirTemp(f.dir, "")
}

func (f *fleet) boot() error {
	dir, err := f.scratch()
	if err != nil {
		return err
	}
	c, err := contents(dir)
	if err != nil {
		return err
	}
	if f.image, err = vmtest.Build(dir, c); err != nil {
		return err
	}
	var peers []enclave.Peer
	for i := 1; i <= size; i++ {
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		n := &node{orders: orders{Private: key.Bytes(), Lifetime: 3600, Own: enclave.Peer{
			Node: fmt.Sprintf("n%d", i), Addresses: addresses(i), Key: enclave.PublicKey(key.PublicKey().Bytes()),
			Endpoint: netip.AddrPortFrom(addresses(i)[0], 51820),
		}}}
		peers = append(peers, n.orders.Own)
		o := vmtest.Options{Name: n.orders.Own.Node, Directory: dir, Index: byte(i), Wires: []*vmtest.Hub{&f.wire}}
		if n.Machine, err = vmtest.Boot(f.image, o); err != nil {
			return err
		}
		f.nodes = append(f.nodes, n)
	}
	for _, n := range f.nodes {
		n.orders.Peers = peers
		if err := n.Await(); err != nil {
			return err
		}
		if err := n.join(); err != nil {
			return err
		}
	}
	return nil
}

// join gives a machine its addresses.
func (n *node) join() error {
	// No address of the kernel's own making: it would appear a moment later than the state is taken.
	script := "cd /proc/sys/net/ipv6/conf/eth0; echo 0 >accept_dad; echo 1 >addr_gen_mode; ip link set eth0 up"
	for i, a := range n.orders.Own.Addresses {
		script += fmt.Sprintf("; ip addr add %s/%d dev eth0", a, []int{24, 64}[i])
	}
	if out, ok := n.Try("sh", "-ec", script); !ok {
		return fmt.Errorf("%s: %s: %s", n.Name, script, out)
	}
	return nil
}

func (f *fleet) stop() {
	for _, n := range f.nodes {
		n.Stop()
	}
	if f.host != nil {
		f.host.Stop()
	}
	if f.dir != "" {
		_ = os.RemoveAll(f.dir)
	}
}

// boot gives the machines as nodes that no job has touched.
func boot(t *testing.T) *fleet {
	t.Helper()
	machines.once.Do(func() { machines.err = machines.boot() })
	require.NoError(t, machines.err)
	t.Cleanup(func() {
		for _, n := range machines.nodes {
			n.down(t)
			if t.Failed() {
				t.Logf("console of %s:\n%s", n.Name, n.Console())
			}
		}
	})
	for _, n := range machines.nodes {
		n.before = n.state(t)
	}
	return &machines
}

// enclaveUp is boot, with the mesh and the fence up on all of them and the tunnels proved.
func enclaveUp(t *testing.T) *fleet {
	t.Helper()
	f := boot(t)
	for _, n := range f.nodes {
		n.up(t)
	}
	f.prove(t)
	return f
}

// prove asks the neighbours of all nodes through the tunnel.
func (f *fleet) prove(t *testing.T) {
	t.Helper()
	var asked []*vmtest.Process
	for _, n := range f.nodes {
		a := n.act(t, "answer", 0, nil)
		a.Must(t, "answering")
	}
	for _, n := range f.nodes {
		asked = append(asked, n.act(t, "probe", 0, n.orders))
	}
	for _, p := range asked {
		p.Must(t, "answered")
	}
}

// act starts one of this program's programs in the machine; it is killed when the test ends.
func (n *node) act(t *testing.T, name string, uid uint32, in any) *vmtest.Process {
	t.Helper()
	b, err := json.Marshal(in)
	require.NoError(t, err)
	p := n.Start(vmtest.Command{Argv: []string{"/agent", name}, UID: uid, Input: string(b), Dir: "/"})
	t.Cleanup(p.Kill)
	return p
}

// do runs one of them to its end.
func (n *node) do(t *testing.T, name string, in any) string {
	t.Helper()
	out, ok := n.act(t, name, 0, in).Wait(patience)
	require.True(t, ok, "%s: %s: %s", n.Name, name, out)
	return out
}

func (n *node) up(t *testing.T) { t.Helper(); n.upWith(t, mesh.DriverKernel) }

// upWith is up, where the mesh must choose that driver.
func (n *node) upWith(t *testing.T, driver mesh.Driver) {
	t.Helper()
	require.Contains(t, n.do(t, "up", n.orders), fmt.Sprintf("up driver %s ", driver))
}

func (n *node) down(t *testing.T) { t.Helper(); n.do(t, "down", nil) }

func (n *node) counters(t *testing.T) (c fence.Counters) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(n.do(t, "counters", nil)), &c))
	return c
}

// state is all that an enclave may change on a node, as text.
func (n *node) state(t *testing.T) string {
	t.Helper()
	// Neighbours come and go by themselves; so do the kernel's own threads and modules.
	return n.Run(t, "sh", "-c", `ip rule; ip -6 rule; ip -o link show | sed 's/ state .*//'; ip -o addr | sed 's/valid_lft.*//'
ip route show table all; ip -6 route show table all; nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'; find /run /tmp /sys/fs/cgroup -type d; find /run /tmp -type f
for p in /proc/[0-9]*; do [ -e $p/exe ] && readlink $p/exe; done | grep -v busybox | grep -v /agent | sort; true`)
}

func (n *node) serve(t *testing.T, uid uint32, proto, address string) *vmtest.Process {
	t.Helper()
	p := n.act(t, "serve", uid, end{Proto: proto, Address: address})
	p.Must(t, "listening")
	return p
}

func (n *node) dial(t *testing.T, e end) *vmtest.Process {
	t.Helper()
	return n.act(t, "client", user, e)
}

// talk says whether the user's message from this node is answered.
func (n *node) talk(t *testing.T, proto, address string, atMost time.Duration) bool {
	t.Helper()
	p := n.dial(t, end{Proto: proto, Address: address, Payload: secret})
	defer p.Kill()
	return p.Says("got", atMost)
}
