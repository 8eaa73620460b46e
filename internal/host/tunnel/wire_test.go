package tunnel_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/nettest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
)

// wire is what passes an interface, or all of a node's.
type wire struct {
	mu     sync.Mutex
	frames [][]byte
	fd     int
}

func htons(n uint16) int { return int(n<<8 | n>>8) }

// listenWire captures everything that passes the switch, or one interface of a node.
func listenWire(t *testing.T, n *nettest.Node, name ...string) *wire {
	t.Helper()
	w := &wire{}
	n.Must(func() error {
		kind := unix.SOCK_RAW
		var err error
		if w.fd, err = unix.Socket(unix.AF_PACKET, kind, htons(unix.ETH_P_ALL)); err != nil {
			return err
		}
		if err = unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20); err != nil {
			return err
		}
		tv := unix.Timeval{Usec: 50000}
		if err = unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		if len(name) == 0 {
			return nil
		}
		index, err := ifIndex(name[0])
		if err != nil {
			return err
		}
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: uint16(htons(unix.ETH_P_ALL)), Ifindex: index})
	})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<17)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, _, err := unix.Recvfrom(w.fd, b, 0)
			if err != nil {
				continue
			}
			w.mu.Lock()
			w.frames = append(w.frames, bytes.Clone(b[:n]))
			w.mu.Unlock()
		}
	}()
	t.Cleanup(func() { close(stop); <-done; _ = unix.Close(w.fd) })
	return w
}

func ifIndex(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, fmt.Errorf("index of %s: %w", name, err)
	}
	return int(req.Uint32()), nil
}

// settle gives frames under way the time to be captured.
func (w *wire) settle() { time.Sleep(150 * time.Millisecond) }

func (w *wire) clear() {
	w.settle()
	w.mu.Lock()
	w.frames = nil
	w.mu.Unlock()
}

// holds says how many frames hold these bytes, all of them, in clear.
func (w *wire) holds(payloads ...string) int {
	w.settle()
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, f := range w.frames {
		if !slices.ContainsFunc(payloads, func(p string) bool { return !bytes.Contains(f, []byte(p)) }) {
			n++
		}
	}
	return n
}

// packets are the IP packets captured, without neighbour discovery.
func (w *wire) packets(link int) []packettest.Packet {
	w.settle()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []packettest.Packet
	for _, f := range w.frames {
		if len(f) < link {
			continue
		}
		if p, ok := packettest.Parse(f[link:]); ok && p.Proto != unix.IPPROTO_ICMPV6 && p.Proto != 0 {
			out = append(out, p)
		}
	}
	return out
}

// onlyWireGuard says that all IP packets between nodes of the job were WireGuard's.
func (w *wire) onlyWireGuard(t *testing.T) {
	t.Helper()
	seen := 0
	for _, p := range w.packets(14) {
		if p.Proto == unix.IPPROTO_UDP && p.SPort == 51820 && p.DPort == 51820 {
			seen++
			continue
		}
		t.Errorf("on the wire: %s", p)
	}
	require.Positive(t, seen, "nothing was captured")
}

// outside says how many IP packets of a node's are not WireGuard's, payload or not.
func (w *wire) outside(of []netip.Addr) int {
	n := 0
	for _, p := range w.packets(14) {
		if slices.Contains(of, p.Src) && (p.Proto != unix.IPPROTO_UDP || p.SPort != 51820 || p.DPort != 51820) {
			n++
		}
	}
	return n
}

// forge sends an IPv4 packet with whatever source the attacker likes.
func forge(n *nettest.Node, src, dst netip.Addr, proto byte, transport []byte) error {
	return n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return unix.Sendto(fd, packettest.IP(src, dst, proto, transport), 0, &unix.SockaddrInet4{Addr: dst.As4()})
	})
}
