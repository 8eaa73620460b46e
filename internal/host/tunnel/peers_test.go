package tunnel_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/host/tunnel"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// wide is the plan of a job with so many peers, on the userspace device.
func wide(tb testing.TB, job uint32, peers int) mesh.Device {
	tb.Helper()
	at := func(i int) netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 10<<24|78<<16+uint32(i)+1)
		return netip.AddrFrom4(b)
	}
	peer := func(i int) enclave.Peer {
		p := enclave.Peer{Node: fmt.Sprintf("n%05d", i), Addresses: []netip.Addr{at(i)}, Endpoint: netip.AddrPortFrom(at(i), 51820)}
		_, err := rand.Read(p.Key[:])
		require.NoError(tb, err)
		return p
	}
	key := sha256.Sum256([]byte("a private key"))
	in := mesh.Input{
		Key: enclave.JobKey{Cluster: "c", Job: job}, UID: user, Own: peer(0), PrivateKey: enclave.NewSecret(key[:]),
		ListenPort: 51999, SlurmdPort: 6818, MTU: 1420, Driver: mesh.DriverKeeper,
	}
	for i := 1; i <= peers; i++ {
		p := peer(i)
		psk := sha256.Sum256(p.Key[:])
		in.Peers = append(in.Peers, mesh.Peer{Peer: p, PSK: enclave.NewSecret(psk[:])})
	}
	d, err := mesh.Plan(in)
	require.NoError(tb, err)
	return d
}

// alone runs f on a thread with a network of its own. Its mounts are everybody's: wireguard-go watches
// its control socket from any thread. (Its UDP socket is opened on any thread, too; nothing is sent.)
func alone(tb testing.TB, f func() error) {
	tb.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = underlay("10.78.0.1/16")
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	require.NoError(tb, <-done)
}

// underlay gives the network the node's own address, on a bridge that leads nowhere.
func underlay(address string) error {
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	l := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}
	return errors.Join(netlink.LinkAdd(l), netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
}

// BenchmarkPeers brings up the mesh of a job with many peers on the userspace device, and deletes
// it. peers_ms is what installing the peers and reading them back takes, up_ms the whole with
// routes and rules, down_ms the end: the link goes and takes all its peers along.
func BenchmarkPeers(b *testing.B) {
	for _, peers := range []int{1000, 4000} {
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			const job = 4712
			d := wide(b, job, peers)
			k := link.Kernel{}.Mesh()
			var installed, up, down time.Duration
			for b.Loop() {
				alone(b, func() error {
					device, err := tunnel.Open(d.Link.Name, d.Link.MTU)
					if err != nil {
						return err
					}
					defer func() { _ = device.Close() }()
					began := time.Now()
					if err = k.WireGuard.Configure(b.Context(), d.Link.Name, d.Tunnel); err != nil {
						return err
					}
					if _, err = k.WireGuard.State(b.Context(), d.Link.Name); err != nil {
						return err
					}
					installed += time.Since(began)
					return nil
				})
				alone(b, func() error {
					device, err := tunnel.Open(d.Link.Name, d.Link.MTU)
					if err != nil {
						return err
					}
					began := time.Now()
					if err = mesh.Up(b.Context(), k, d); err != nil {
						return err
					}
					up += time.Since(began)
					began = time.Now()
					if err = device.Close(); err == nil {
						err = mesh.Down(b.Context(), k, job)
					}
					down += time.Since(began)
					return err
				})
			}
			for unit, took := range map[string]time.Duration{"peers_ms": installed, "up_ms": up, "down_ms": down} {
				b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), unit)
			}
		})
	}
}

// TestAWideMeshIsUpAndGone is what the benchmark does, once, for whoever runs no benchmarks.
func TestAWideMeshIsUpAndGone(t *testing.T) {
	const job, peers = 4712, 1000
	d := wide(t, job, peers)
	k := link.Kernel{}.Mesh()
	alone(t, func() error {
		device, err := tunnel.Open(d.Link.Name, d.Link.MTU)
		if err != nil {
			return err
		}
		if err = mesh.Up(t.Context(), k, d); err != nil {
			return errors.Join(err, device.Close())
		}
		s, err := k.WireGuard.State(t.Context(), d.Link.Name)
		assert.Len(t, s.Peers, peers)
		if err = errors.Join(err, device.Close(), mesh.Down(t.Context(), k, job)); err != nil {
			return err
		}
		assert.NoFileExists(t, "/var/run/wireguard/"+d.Link.Name+".sock")
		return mesh.Absent(t.Context(), k, job)
	})
}
