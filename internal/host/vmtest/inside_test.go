//go:build vm || e2e

package vmtest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/host/spawn"
	"github.com/slurm-enclave/slurm-enclave/internal/host/tunnel"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

const (
	job       = 4711
	user      = 2001
	device    = "enc4711"
	directory = "/run/slurm-enclave/4711.0"
)

// orders are what a node of the job is told: what the roster holds, and its own key.
type orders struct {
	Own      enclave.Peer
	Peers    []enclave.Peer // all nodes, this one too
	Private  []byte
	Lifetime uint64 // seconds until the job's own end
}

// up does what the prolog's mesh and fence do, with the same rooms and the real keeper.
func up() error {
	var o orders
	if err := input(&o); err != nil {
		return err
	}
	ctx := context.Background()
	driver, err := mesh.Mode(ctx, link.Kernel{}.Mesh())
	if err != nil {
		return err
	}
	m, f, err := o.plans(driver)
	if err != nil {
		return err
	}
	pid, err := o.keep(ctx, driver)
	if err != nil {
		return err
	}
	if err := mesh.Up(ctx, link.Kernel{}.Mesh(), m); err != nil {
		return err
	}
	if err := fence.Up(ctx, filter.Kernel{}, f); err != nil {
		return err
	}
	fmt.Printf("up driver %s keeper %d\n", driver, pid)
	return nil
}

func (o orders) plans(driver mesh.Driver) (mesh.Device, fence.Table, error) {
	in := mesh.Input{
		Key: enclave.JobKey{Cluster: "c", Job: job}, UID: user, Own: o.Own, PrivateKey: enclave.NewSecret(slices.Clone(o.Private)),
		ListenPort: 51820, SlurmdPort: 6818, MTU: 1420, Driver: driver,
	}
	var all []netip.Addr
	for _, p := range o.Peers {
		all = append(all, p.Addresses...)
		pair := [][]byte{o.Own.Key[:], p.Key[:]}
		slices.SortFunc(pair, bytes.Compare)
		psk := sha256.Sum256(bytes.Join(pair, nil))
		in.Peers = append(in.Peers, mesh.Peer{Peer: p, PSK: enclave.NewSecret(psk[:])})
	}
	m, err := mesh.Plan(in)
	if err != nil {
		return m, fence.Table{}, err
	}
	controller := addresses(100)
	f, err := fence.Plan(fence.Input{
		Key: in.Key, UID: user, UIDMin: 1000, Device: device, FwMark: mesh.FwMark(job), Mark: mesh.Mark(job), WireGuardPort: 51820,
		Slurmctld: fence.Server{Addresses: controller, Port: 6817}, Slurmd: fence.Server{Addresses: all, Port: 6818},
		Enclaved: fence.Server{Addresses: controller, Port: 6830}, SrunPorts: fence.PortRange{First: 61001, Last: 61200},
		Inbound: []fence.Service{{Name: "ssh", Proto: "tcp", Port: 22}},
	})
	return m, f, err
}

// keep starts the keeper, which is not granted: it holds what is there until the job's own end.
func (o orders) keep(ctx context.Context, driver mesh.Driver) (int, error) {
	for _, dir := range []string{directory, "/run/slurm-enclave/gate"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return 0, err
		}
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, err
	}
	h, err := spawn.Keeper(ctx, "/bin/enclave-keeper", keeper.Config{
		Key: enclave.JobKey{Cluster: "c", Job: job}, Node: o.Own.Node, Device: device, MTU: 1420, Userspace: driver == mesh.DriverKeeper,
		Directory: directory, Gate: gate.Directory{Path: "/run/slurm-enclave/gate"}, Expires: uint64(now.Sec) + o.Lifetime,
		Verifier: "192.0.2.1:6830", Epoch: 1, Peers: o.Peers, Keys: enclave.NewSecret(slices.Concat(o.Private, make([]byte, 64))),
	})
	if err != nil {
		return 0, err
	}
	return h.PID, h.Leave()
}

// down does what the epilog does.
func down() error {
	ctx := context.Background()
	return errors.Join(
		fence.Down(ctx, filter.Kernel{}, job), mesh.Down(ctx, link.Kernel{}.Mesh(), job), spawn.StopKeeper(ctx, directory),
		os.RemoveAll("/run/slurm-enclave"))
}

func fenceDown() error { return fence.Down(context.Background(), filter.Kernel{}, job) }

func show(v any, err error) error {
	if err != nil {
		return err
	}
	b, err := json.Marshal(v)
	fmt.Println(string(b))
	return err
}

func counters() error {
	return show(fence.ReadCounters(context.Background(), filter.Kernel{}, job))
}

// tunnelState prints one line a peer that has shaken hands, and the bytes of all.
func tunnelState() error {
	s, err := link.Kernel{}.State(context.Background(), device)
	if err != nil {
		return err
	}
	shaken := 0
	for _, p := range s.Peers {
		if !p.Handshake.IsZero() {
			shaken++
		}
	}
	received, sent := s.Bytes()
	fmt.Printf("peers %d shaken %d received %t sent %t\n", len(s.Peers), shaken, received > 0, sent > 0)
	return nil
}

// answer and probe are the prolog's proof of the tunnel.
func answer() error {
	fmt.Println("answering")
	return tunnel.Answer(context.Background(), device, tunnel.Port, mesh.Mark(job), tunnel.Token{1}, nil, nil)
}

func probe() error {
	var o orders
	if err := input(&o); err != nil {
		return err
	}
	m, _, err := o.plans(mesh.DriverKernel)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err = tunnel.Probe(ctx, device, tunnel.Port, mesh.Mark(job), tunnel.Token{1}, m.Neighbours(o.Own.Key), nil)
	if err == nil {
		fmt.Println("answered")
	}
	return err
}

// end is one end of a flow.
type end struct {
	Proto, Address, Local, Payload string
	Times                          int
}

// serve is an echo server.
func serve() error {
	var e end
	if err := input(&e); err != nil {
		return err
	}
	if e.Proto == "udp" {
		c, err := net.ListenPacket("udp", e.Address)
		if err != nil {
			return err
		}
		fmt.Println("listening")
		for b := make([]byte, 65536); ; {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return err
			}
			fmt.Printf("heard %q\n", b[:n])
			if _, err := c.WriteTo(append([]byte("echo:"), b[:n]...), from); err != nil {
				fmt.Println("no answer", err)
			}
		}
	}
	l, err := net.Listen("tcp", e.Address)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			total := 0
			for b := make([]byte, 1<<20); ; {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				total += n
				fmt.Printf("heard %q total %d\n", b[:min(n, 100)], total)
				if _, err := c.Write(append([]byte("echo:"), b[:n]...)); err != nil {
					return
				}
			}
		}()
	}
}

// client sends its payload and prints what comes back, until it is killed.
func client() error {
	var e end
	if err := input(&e); err != nil {
		return err
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	if e.Local != "" {
		at := netip.MustParseAddrPort(e.Local)
		d.LocalAddr = net.TCPAddrFromAddrPort(at)
		if e.Proto == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(at)
		}
	}
	c, err := d.Dial(e.Proto, e.Address)
	if err != nil {
		return err
	}
	go func() { // what comes back is read meanwhile, or both ends would wait for each other
		_, err := c.Write(bytes.Repeat([]byte(e.Payload), max(1, e.Times)))
		fmt.Println("sent", err)
	}()
	for b := make([]byte, 1<<20); ; {
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		fmt.Printf("got %q\n", b[:min(n, 200)])
	}
}

// sniff prints the packets of the tunnel's inner side. Its attacker is generous to itself: the
// tunnel hides the sequence numbers from the wire.
func sniff() error {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(all))
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}); err != nil {
		return err
	}
	fmt.Println("sniffing")
	for b := make([]byte, 65536); ; {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return err
		}
		fmt.Println("packet", hex.EncodeToString(b[:n]))
	}
}

// gateOpen stores a GO, as the prolog does at its end.
func gateOpen() error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	return gate.Directory{Path: "/run/slurm-enclave/gate"}.WriteGo(gate.Go{Job: job, Boot: string(bytes.TrimSpace(boot)), Expires: 1 << 31})
}
