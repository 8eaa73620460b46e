//go:build vm || e2e

package vmtest_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/vmtest"
)

const (
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	etherIPv4   = 0x0800
	etherIPv6   = 0x86dd
)

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

// parse reads an Ethernet frame; ok is false for what is not IP, and for neighbour discovery.
func parse(frame []byte) (p packet, ok bool) {
	if len(frame) < 14 {
		return p, false
	}
	switch kind := binary.BigEndian.Uint16(frame[12:]); kind {
	case etherIPv4, etherIPv6:
		p, ok = parseIP(frame[14:])
	}
	return p, ok && p.proto != protoICMPv6 && p.proto != 0
}

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

func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// forge is an Ethernet frame to a machine with whatever IPv4 source the attacker likes.
func forge(to byte, src, dst netip.Addr, proto byte, transport []byte) []byte {
	at := map[byte]int{protoTCP: 16, protoUDP: 6}[proto]
	s, d := src.As4(), dst.As4()
	pseudo := slices.Concat(s[:], d[:], []byte{0, proto, byte(len(transport) >> 8), byte(len(transport))}, transport)
	binary.BigEndian.PutUint16(transport[at:], checksum(pseudo))
	head := make([]byte, 20)
	head[0], head[8], head[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(head[2:], uint16(20+len(transport)))
	copy(head[12:], s[:])
	copy(head[16:], d[:])
	binary.BigEndian.PutUint16(head[10:], checksum(head))
	return slices.Concat(vmtest.Ethernet(0, to), vmtest.Ethernet(0, 0xee), []byte{etherIPv4 >> 8, etherIPv4 & 0xff}, head, transport)
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

// onlyWireGuard says that of all IP packets on the wire those between two nodes were WireGuard's.
func onlyWireGuard(t *testing.T, wire *vmtest.Hub, a, b *node) {
	t.Helper()
	seen := 0
	ends := slices.Concat(a.orders.Own.Addresses, b.orders.Own.Addresses)
	for _, frame := range wire.Frames() {
		p, ok := parse(frame)
		switch {
		case !ok, !slices.Contains(ends, p.src), !slices.Contains(ends, p.dst):
		case p.proto == protoUDP && p.sport == 51820 && p.dport == 51820:
			seen++
		default:
			t.Errorf("on the wire: %s", p)
		}
	}
	require.Positive(t, seen, "nothing was captured")
}
