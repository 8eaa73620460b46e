// Package packettest writes the IP packets of an attacker and reads those that a test has captured. It is for tests only.
package packettest

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Packet is the part of an IP packet that tests look at.
type Packet struct {
	Src, Dst     netip.Addr
	Proto        byte
	SPort, DPort uint16
	Data         []byte // from the transport header on
}

// String is one line.
func (p Packet) String() string {
	return fmt.Sprintf("%s:%d > %s:%d proto %d", p.Src, p.SPort, p.Dst, p.DPort, p.Proto)
}

// Parse reads an IP packet; ok is false for anything else.
func Parse(b []byte) (p Packet, ok bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		p.Src, p.Dst, p.Proto, p.Data = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9], b[min(len(b), int(b[0]&15)*4):]
	case len(b) >= 40 && b[0]>>4 == 6:
		p.Src, p.Dst, p.Proto, p.Data = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[6], b[40:]
	default:
		return p, false
	}
	if len(p.Data) >= 4 {
		p.SPort, p.DPort = binary.BigEndian.Uint16(p.Data), binary.BigEndian.Uint16(p.Data[2:])
	}
	return p, true
}

// IP is a packet of either family, with whatever source the attacker likes, and checksums that are right.
func IP(src, dst netip.Addr, proto byte, transport []byte) []byte {
	transport = append([]byte{}, transport...)
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = append(pseudo, 0, proto, byte(len(transport)>>8), byte(len(transport)))
	switch proto {
	case unix.IPPROTO_TCP:
		setSum(transport[16:18], pseudo, transport)
	case unix.IPPROTO_UDP:
		setSum(transport[6:8], pseudo, transport)
	case unix.IPPROTO_ICMP:
		setSum(transport[2:4], transport)
	case unix.IPPROTO_ICMPV6:
		setSum(transport[2:4], pseudo, transport)
	}
	if src.Is6() {
		head := make([]byte, 40)
		head[0], head[6], head[7] = 0x60, proto, 255
		binary.BigEndian.PutUint16(head[4:], uint16(len(transport)))
		copy(head[8:], src.AsSlice())
		copy(head[24:], dst.AsSlice())
		return append(head, transport...)
	}
	return append(Head4(src, dst, proto, len(transport), 0), transport...)
}

// Head4 is the header of an IPv4 packet with so many bytes behind it; fragment is the field of that name, flags and all.
func Head4(src, dst netip.Addr, proto byte, size int, fragment uint16) []byte {
	head := make([]byte, 20)
	head[0], head[8], head[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(head[2:], uint16(20+size))
	binary.BigEndian.PutUint16(head[4:], 0x4711)
	binary.BigEndian.PutUint16(head[6:], fragment)
	copy(head[12:], src.AsSlice())
	copy(head[16:], dst.AsSlice())
	setSum(head[10:12], head)
	return head
}

// UDP is a datagram; its checksum is 0, which IPv4 takes and IP writes.
func UDP(sport, dport uint16, data string) []byte {
	b := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	return append(b, data...)
}

// TCP is a segment; its checksum is for IP to write.
func TCP(sport, dport uint16, seq, ack uint32, flags byte, data string) []byte {
	b := make([]byte, 20, 20+len(data))
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = 5<<4, flags
	binary.BigEndian.PutUint16(b[14:], 500)
	return append(b, data...)
}

// Checksum is the internet checksum of the parts, each but the last of an even length (RFC 1071).
func Checksum(parts ...[]byte) uint16 {
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

func setSum(at []byte, parts ...[]byte) {
	clear(at)
	binary.BigEndian.PutUint16(at, Checksum(parts...))
}

// Next is what a TCP flow's next segment has for its sequence number and its acknowledgement, going by the segments seen; found is
// false where there is none. The last segment need not be the one that says it: one that asks whether the other end is
// still there (RFC 1122, 4.2.3.6) has a number of before.
func Next(seen []Packet, src, dst netip.AddrPort) (seq, ack uint32, found bool) {
	answered := false
	for _, p := range seen {
		if p.Proto != unix.IPPROTO_TCP || len(p.Data) < 20 {
			continue
		}
		next := binary.BigEndian.Uint32(p.Data[4:]) + uint32(len(p.Data)) - uint32(p.Data[12]>>4)*4
		if p.Data[13]&(syn|fin) != 0 {
			next++
		}
		switch from, to := netip.AddrPortFrom(p.Src, p.SPort), netip.AddrPortFrom(p.Dst, p.DPort); {
		case from == src && to == dst:
			seq, found = later(found, seq, next), true
		case from == dst && to == src:
			ack, answered = later(answered, ack, next), true
		}
	}
	return seq, ack, found
}

const (
	fin = 0x01
	syn = 0x02
)

// later is the later of two sequence numbers.
func later(known bool, have, is uint32) uint32 {
	if known && int32(is-have) < 0 {
		return have
	}
	return is
}
