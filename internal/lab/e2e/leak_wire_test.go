//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The text that every attempt sends begins so, names the attempt and is repeated: a piece of any
// packet shows whose it is.
const (
	leakPrefix = "LEAK-"
	leakName   = 8 // bytes after the prefix
)

// seen is what the switches saw in some time.
type seen struct {
	Clear   int // bytes of packets that hold the attempt's text
	Packets int // that many packets
	Outside int // bytes between the job's nodes that are neither WireGuard's nor Slurm's own
	Tunnel  int // bytes of WireGuard between the job's nodes
}

// wire counts what enters the lab's switches, of all families.
type wire struct {
	mu    sync.Mutex
	text  map[string]seen // by the attempt's name
	pairs map[bool]seen   // between enclave nodes, between plain ones
	fd    int
	done  chan struct{}
}

func startWire(t *testing.T) *wire {
	t.Helper()
	w := &wire{fd: packetSocket(t), text: map[string]seen{}, pairs: map[bool]seen{}, done: make(chan struct{})}
	go w.read()
	t.Cleanup(w.stop)
	return w
}

func (w *wire) read() {
	defer close(w.done)
	b := make([]byte, 256<<10)
	for {
		n, from, err := unix.Recvfrom(w.fd, b, 0)
		if err == unix.EBADF || err == unix.EINVAL {
			return
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if err == nil && ok && ll.Pkttype != unix.PACKET_OUTGOING {
			w.count(b[:n])
		}
	}
}

func (w *wire) count(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at := bytes.Index(b, []byte(leakPrefix)); at >= 0 && len(b) >= at+len(leakPrefix)+leakName {
		name := string(b[at+len(leakPrefix):][:leakName])
		s := w.text[name]
		s.Clear += len(b)
		s.Packets++
		w.text[name] = s
	}
	p, ok := parsePacket(b)
	if !ok || p.slurm() {
		return
	}
	for _, plain := range []bool{false, true} {
		if !p.between(plain) {
			continue
		}
		s := w.pairs[plain]
		if p.proto == unix.IPPROTO_UDP && p.target == tunnelPort {
			s.Tunnel += len(b)
		} else {
			s.Outside += len(b)
		}
		w.pairs[plain] = s
	}
}

// of is what was seen so far of an attempt and between the nodes of its side.
func (w *wire) of(name string, plain bool) seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.pairs[plain]
	s.Clear, s.Packets = w.text[name].Clear, w.text[name].Packets
	return s
}

func (s seen) since(before seen) seen {
	return seen{s.Clear - before.Clear, s.Packets - before.Packets, s.Outside - before.Outside, s.Tunnel - before.Tunnel}
}

// lost is how many packets the kernel could not hand over: one of them could have been a leak.
func (w *wire) lost(t *testing.T) uint32 {
	t.Helper()
	s, err := unix.GetsockoptTpacketStats(w.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	require.NoError(t, err)
	return s.Drops
}

func (w *wire) stop() {
	time.Sleep(150 * time.Millisecond) // what is on its way
	_ = unix.Close(w.fd)
	<-w.done
}

// passing is an IP packet's head.
type passing struct {
	src, dst       netip.Addr
	proto          byte
	source, target uint16
}

func parsePacket(b []byte) (passing, bool) {
	if len(b) < 14 {
		return passing{}, false
	}
	kind, ip := binary.BigEndian.Uint16(b[12:]), b[14:]
	var p passing
	var body []byte
	switch {
	case kind == unix.ETH_P_IP && len(ip) >= 20:
		p = passing{src: netip.AddrFrom4([4]byte(ip[12:])), dst: netip.AddrFrom4([4]byte(ip[16:])), proto: ip[9]}
		body = ip[min(int(ip[0]&15)*4, len(ip)):]
	case kind == unix.ETH_P_IPV6 && len(ip) >= 40:
		p = passing{src: netip.AddrFrom16([16]byte(ip[8:])), dst: netip.AddrFrom16([16]byte(ip[24:])), proto: ip[6]}
		body = ip[40:]
	default:
		return p, false
	}
	if p.proto == unix.IPPROTO_ICMPV6 && len(body) > 0 && body[0] >= 130 && body[0] <= 143 {
		return p, false // neighbour and listener discovery
	}
	if len(body) >= 4 {
		p.source, p.target = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
	}
	return p, true
}

// between says whether both ends are enclave nodes, or both plain ones: the last bytes of all of a
// host's addresses, of all cards and families, are the same.
func (p passing) between(plain bool) bool {
	third := byte(1)
	if plain {
		third = 2
	}
	of := func(a netip.Addr) bool {
		b := a.AsSlice()
		if a.Is4() {
			return b[0] == 10 && (b[1] == 93 || b[1] == 94) && b[2] == third
		}
		return b[0] == 0xfd && b[1] >= 0x93 && b[1] <= 0x95 && b[13] == third
	}
	return of(p.src) && of(p.dst)
}

// slurm is slurmctld's, slurmd's and srun's own traffic.
func (p passing) slurm() bool {
	return control(frame{proto: p.proto, srcPort: p.source, dstPort: p.target})
}

// leakText is what an attempt sends.
func leakText(name string) string {
	return leakPrefix + name + "-this-must-not-be-read-by-anybody-on-the-wire. "
}

// leakID names an attempt; plain is the control.
func leakID(number int, plain bool) string {
	side := "enclaved"
	if plain {
		side = "--plain-"
	}
	return fmt.Sprintf("%03d%s", number, side[:leakName-3])
}
