package tunnel_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/host/nettest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/spawn"
	"github.com/slurm-enclave/slurm-enclave/internal/host/tunnel"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

const (
	job     = 4711
	user    = 2001
	subUser = 165540
	srun    = 61005
	device  = "enc4711"
)

// node is a node of the job.
type node struct {
	*nettest.Node

	own    enclave.Peer
	key    enclave.Secret
	mesh   mesh.Device
	fence  fence.Table
	before string
	pid    int // of its keeper
	// grant tells the keeper of GO; nil leaves it without.
	grant func(*spawn.Handle) error
	peers []enclave.Peer // the roster, for a keeper that watches
	// lifetime is the job's own end from the keeper's start on; 0 is an hour.
	lifetime time.Duration
}

// lab is three nodes of a job, and x: the controller, and whoever else is on the same network.
type lab struct {
	t     *testing.T
	sw    *nettest.Node
	x     *nettest.Node
	nodes []*node
	wire  *wire
	// driver is what the mesh chooses on this kernel, unless the environment names the other one.
	driver mesh.Driver
}

// driverEnv names a driver, so that the keeper's is tested on kernels with WireGuard, too.
const driverEnv = "TUNNEL_TEST_DRIVER"

func (l *lab) choose() {
	l.driver = mesh.Driver(os.Getenv(driverEnv))
	if l.driver != "" {
		return
	}
	l.sw.Must(func() (err error) {
		l.driver, err = mesh.Mode(l.t.Context(), link.Kernel{}.Mesh())
		return err
	})
}

func addresses(i int) []netip.Addr {
	return []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", i)), netip.MustParseAddr(fmt.Sprintf("fd77::%d", i))}
}

// build makes the nodes and plans; nothing of the enclave is up. WireGuard's packets go over
// IPv4, or IPv6 where the test says so.
func build(t *testing.T, over6 ...bool) *lab { t.Helper(); return buildOf(t, 3, over6...) }

// buildOf is build with another number of nodes, at most 40.
func buildOf(t *testing.T, nodes int, over6 ...bool) *lab {
	t.Helper()
	l := &lab{t: t, sw: nettest.New(t, "sw"), x: nettest.New(t, "x")}
	l.choose()
	l.x.Join(l.sw, 1500, "10.77.0.100/24", "fd77::100/64")
	for i := 1; i <= nodes; i++ {
		n := &node{Node: nettest.New(t, fmt.Sprintf("n%d", i))}
		n.Join(l.sw, 1500, fmt.Sprintf("10.77.0.%d/24", i), fmt.Sprintf("fd77::%d/64", i))
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		require.NoError(t, err)
		n.key = enclave.NewSecret(key.Bytes())
		n.own = enclave.Peer{
			Node: n.Name, Addresses: addresses(i), Key: enclave.PublicKey(key.PublicKey().Bytes()),
			Endpoint: netip.AddrPortFrom(addresses(i)[len(over6)], 51820),
		}
		l.nodes = append(l.nodes, n)
	}
	for _, n := range l.nodes {
		n.plan(t, l)
		n.before = n.state()
	}
	l.wire = listenWire(t, l.sw)
	return l
}

func (n *node) plan(t *testing.T, l *lab) {
	t.Helper()
	in := mesh.Input{
		Key: enclave.JobKey{Cluster: "c", Job: job}, UID: user, SubUIDs: []enclave.UIDRange{{Start: 165536, Count: 65536}},
		Own: n.own, PrivateKey: n.key, ListenPort: 51820, SlurmdPort: 6818, MTU: 1420, Driver: l.driver,
	}
	var all []netip.Addr
	for _, p := range l.nodes {
		all = append(all, p.own.Addresses...)
		pair := [][]byte{n.own.Key[:], p.own.Key[:]}
		if bytes.Compare(pair[0], pair[1]) > 0 {
			pair[0], pair[1] = pair[1], pair[0]
		}
		psk := sha256.Sum256(bytes.Join(pair, nil))
		in.Peers = append(in.Peers, mesh.Peer{Peer: p.own, PSK: enclave.NewSecret(psk[:])})
	}
	var err error
	n.mesh, err = mesh.Plan(in)
	require.NoError(t, err)
	n.fence, err = fence.Plan(fence.Input{
		Key: in.Key, UID: user, SubUIDs: in.SubUIDs, UIDMin: 1000, Device: device,
		FwMark: mesh.FwMark(job), Mark: mesh.Mark(job), WireGuardPort: 51820, Userspace: l.driver == mesh.DriverKeeper,
		Slurmctld: fence.Server{Addresses: addresses(100), Port: 6817},
		Slurmd:    fence.Server{Addresses: all, Port: 6818},
		Enclaved:  fence.Server{Addresses: addresses(100), Port: 6830},
		SrunPorts: fence.PortRange{First: 61001, Last: 61200},
		Groups:    []netip.Addr{netip.MustParseAddr("239.2.11.71"), netip.MustParseAddr("239.2.11.72"), netip.MustParseAddr("ff05::1:3")},
		Inbound:   []fence.Service{{Name: "ssh", Proto: "tcp", Port: 22}, {Name: "exporter", Proto: "tcp", Port: 9100}, {Name: "snmp", Proto: "udp", Port: 161}},
	})
	require.NoError(t, err)
}

// up brings a node into the mesh and behind its fence.
func (n *node) up(t *testing.T) {
	t.Helper()
	if err := n.raise(t); err != nil {
		t.Fatalf("%s: %s", n.Name, err)
	}
}

// raise is up, for nodes of which it is not wanted.
func (n *node) raise(t *testing.T) error {
	t.Helper()
	t.Cleanup(func() { n.down(t) })
	return n.Do(func() error {
		dir := "/run/slurm-enclave/4711.0"
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
			return err
		}
		if n.lifetime == 0 {
			n.lifetime = time.Hour
		}
		keeperKeys := slices.Concat(n.key.Bytes(), make([]byte, 64)) // it only holds the device here
		h, err := spawn.Keeper(t.Context(), "/proc/self/exe", keeper.Config{
			Key: enclave.JobKey{Cluster: "c", Job: job}, Node: "n", Device: device, MTU: 1420, Userspace: n.mesh.Link.Driver == mesh.DriverKeeper,
			Directory: dir, Gate: gate.Directory{Path: "/run/slurm-enclave/gate"}, Expires: uint64(now.Sec) + uint64(n.lifetime.Seconds()),
			Verifier: "192.0.2.1:6830", Epoch: 1, Peers: append([]enclave.Peer{{Node: "n"}}, n.peers...), Keys: enclave.NewSecret(keeperKeys),
		})
		if err != nil {
			return err
		}
		n.pid = h.PID
		if err := mesh.Up(t.Context(), link.Kernel{}.Mesh(), n.mesh); err != nil {
			return errors.Join(err, h.Leave())
		}
		if err := fence.Up(t.Context(), filter.Kernel{}, n.fence); err != nil {
			return errors.Join(err, h.Leave())
		}
		if n.grant == nil {
			return h.Leave()
		}
		return n.grant(h)
	})
}

// down takes all of it away; it may run twice.
func (n *node) down(t *testing.T) {
	t.Helper()
	err := n.Do(func() error {
		ctx := context.Background()
		if err := fence.Down(ctx, filter.Kernel{}, job); err != nil {
			return err
		}
		if err := mesh.Down(ctx, link.Kernel{}.Mesh(), job); err != nil {
			return err
		}
		return spawn.StopKeeper(ctx, "/run/slurm-enclave/4711.0")
	})
	if err != nil {
		t.Errorf("%s: down: %s", n.Name, err)
	}
}

// cut takes the tunnel away in the middle of a job: the keeper's by its death, the kernel's as
// a keeper does that is not renewed.
func (n *node) cut(t *testing.T) {
	t.Helper()
	if n.mesh.Link.Driver == mesh.DriverKeeper {
		require.NoError(t, unix.Kill(n.pid, unix.SIGKILL))
	} else {
		n.Must(func() error { return mesh.Cut(t.Context(), link.Kernel{}.Mesh(), job) })
	}
	require.Eventually(t, func() bool { return !n.hasDevice() }, seconds(), 10*time.Millisecond)
}

func (n *node) hasDevice() bool {
	return n.Do(func() error { _, err := ifIndex(device); return err }) == nil
}

// probe asks the neighbours of all nodes, all nodes at once.
func (l *lab) probe(atMost time.Duration) error {
	ctx, cancel := context.WithTimeout(l.t.Context(), atMost)
	defer cancel()
	errs := make(chan error, len(l.nodes))
	var answers sync.WaitGroup
	defer answers.Wait()
	serving, stop := context.WithCancel(ctx)
	defer stop()
	for _, n := range l.nodes {
		answers.Go(func() { _ = n.answer(serving) })
		go func() { errs <- n.ask(ctx) }()
	}
	var first error
	for range l.nodes {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// answer and ask run on threads of their own in the node's namespaces: the node's own thread
// must stay free.
func (n *node) answer(ctx context.Context) error {
	return n.Beside(func() error {
		return tunnel.Answer(ctx, device, tunnel.Port, mesh.Mark(job), tunnel.Token{1}, nil, nil)
	})
}

func (n *node) ask(ctx context.Context) error {
	return n.Beside(func() error {
		return tunnel.Probe(ctx, device, tunnel.Port, mesh.Mark(job), tunnel.Token{1}, n.mesh.Neighbours(n.own.Key), nil)
	})
}

// enclaveUp brings up all nodes and waits for the tunnels.
func enclaveUp(t *testing.T, over6 ...bool) *lab {
	t.Helper()
	l := build(t, over6...)
	for _, n := range l.nodes {
		n.up(t)
	}
	require.NoError(t, l.probe(20*time.Second))
	return l
}

// state is all that an enclave may change on a node, as text.
func (n *node) state() string {
	return n.Run("sh", "-c", `ip rule; ip -6 rule; ip -o link show | sed 's/ state .*//'; ip -o addr | sed 's/valid_lft.*//'; ip route show table all; ip -6 route show table all; nft list ruleset; ls -A /run /run/wireguard 2>/dev/null | grep -v slurm-enclave; ls -A /run/slurm-enclave/4711.0 2>/dev/null; true`)
}

func (n *node) counters(t *testing.T) fence.Counters {
	t.Helper()
	var c fence.Counters
	n.Must(func() error {
		var err error
		c, err = fence.ReadCounters(t.Context(), filter.Kernel{}, job)
		return err
	})
	return c
}

// dropFence takes a node's protection away, for the control run of an attack.
func (n *node) dropFence(t *testing.T) {
	t.Helper()
	n.Must(func() error { return fence.Down(t.Context(), filter.Kernel{}, job) })
}
