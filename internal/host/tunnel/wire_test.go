package tunnel_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/nettest"
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

// packet is the part of an IP packet that the tests look at.
type packet struct {
	src, dst     netip.Addr
	proto        byte
	sport, dport uint16
	data         []byte // from the transport header on
}

func (p packet) String() string {
	return fmt.Sprintf("%s:%d > %s:%d proto %d", p.src, p.sport, p.dst, p.dport, p.proto)
}

// parseIP reads an IP packet; ok is false for anything else.
func parseIP(b []byte) (p packet, ok bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		p.src, p.dst, p.proto, p.data = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9], b[min(len(b), int(b[0]&15)*4):]
	case len(b) >= 40 && b[0]>>4 == 6:
		p.src, p.dst, p.proto, p.data = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[6], b[40:]
	default:
		return p, false
	}
	if len(p.data) >= 4 {
		p.sport, p.dport = binary.BigEndian.Uint16(p.data), binary.BigEndian.Uint16(p.data[2:])
	}
	return p, true
}

// packets are the IP packets captured, without neighbour discovery.
func (w *wire) packets(link int) []packet {
	w.settle()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []packet
	for _, f := range w.frames {
		if len(f) < link {
			continue
		}
		if p, ok := parseIP(f[link:]); ok && p.proto != unix.IPPROTO_ICMPV6 && p.proto != 0 {
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
		if p.proto == unix.IPPROTO_UDP && p.sport == 51820 && p.dport == 51820 {
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
		if slices.Contains(of, p.src) && (p.proto != unix.IPPROTO_UDP || p.sport != 51820 || p.dport != 51820) {
			n++
		}
	}
	return n
}

func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
		if len(b)%2 == 1 {
			sum += uint32(b[len(b)-1]) << 8
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// forge sends an IPv4 packet with whatever source the attacker likes.
func forge(n *nettest.Node, src, dst netip.Addr, proto byte, transport []byte) error {
	at := map[byte]int{unix.IPPROTO_TCP: 16, unix.IPPROTO_UDP: 6}[proto]
	s, d := src.As4(), dst.As4()
	pseudo := append(append(s[:], d[:]...), 0, proto, byte(len(transport)>>8), byte(len(transport)))
	binary.BigEndian.PutUint16(transport[at:], 0)
	binary.BigEndian.PutUint16(transport[at:], checksum(pseudo, transport))
	head := make([]byte, 20)
	head[0], head[8], head[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(head[2:], uint16(20+len(transport)))
	copy(head[12:], s[:])
	copy(head[16:], d[:])
	return n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return unix.Sendto(fd, append(head, transport...), 0, &unix.SockaddrInet4{Addr: d})
	})
}

func udp(sport, dport uint16, data string) []byte {
	b := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	return append(b, data...)
}

func tcp(sport, dport uint16, seq, ack uint32, flags byte, data string) []byte {
	b := make([]byte, 20, 20+len(data))
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = 5<<4, flags
	binary.BigEndian.PutUint16(b[14:], 500)
	return append(b, data...)
}
