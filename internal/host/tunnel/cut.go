package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The header that the kernel puts before each packet of a TUN device, virtio_net_hdr in
// linux/virtio_net.h, in the machine's own byte order:
//
//	0 flags, 1 kind of large packet, 2 length of the headers, 4 size of a segment,
//	6 where the checksum starts, 8 where it stands from there
const headerSize = 10

// Sizes and places in the headers of IP and TCP (RFC 791, 8200, 9293).
const (
	ipv4Size = 20
	ipv6Size = 40
	tcpSize  = 20

	ipv4Length   = 2
	ipv4ID       = 4
	ipv4Sum      = 10
	ipv6Length   = 4
	tcpSequence  = 4
	tcpFlags     = 13
	tcpSum       = 16
	flagFIN      = 0x01
	flagPSH      = 0x08
	flagCWR      = 0x80
	protocolTCP  = 6
	fragmentMask = 0x3fff // more fragments, and the offset
)

var errMalformed = errors.New("malformed packet from the kernel")

// cut takes one packet from the kernel, header first, and cuts it into packets that fit the
// device, with checksums. Each gets a buffer of its own and lies behind offset bytes.
func cut(in []byte, bufs [][]byte, sizes []int, offset int) (int, error) {
	if len(in) < headerSize {
		return 0, errMalformed
	}
	flags, kind := in[0], in[1]
	segment := int(binary.NativeEndian.Uint16(in[4:]))
	start, place := int(binary.NativeEndian.Uint16(in[6:])), int(binary.NativeEndian.Uint16(in[8:]))
	in = in[headerSize:]
	switch kind {
	case unix.VIRTIO_NET_HDR_GSO_NONE:
		if flags&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 {
			if start+place+2 > len(in) {
				return 0, errMalformed
			}
			// The kernel has put the pseudo header's sum there.
			binary.BigEndian.PutUint16(in[start+place:], final(sum(in[start:], 0)))
		}
		if len(in) > len(bufs[0])-offset {
			return 0, errMalformed
		}
		sizes[0] = copy(bufs[0][offset:], in)
		return 1, nil
	case unix.VIRTIO_NET_HDR_GSO_TCPV4, unix.VIRTIO_NET_HDR_GSO_TCPV6:
		return cutTCP(in, start, segment, bufs, sizes, offset)
	}
	return 0, fmt.Errorf("large packet of kind %d, which was not asked for", kind)
}

// cutTCP cuts a large TCP packet into segments. The length of its headers is read from them: the kernel's
// word of it is that of the whole packet where it was forwarded.
func cutTCP(in []byte, start, segment int, bufs [][]byte, sizes []int, offset int) (int, error) {
	if len(in) < ipv4Size || segment == 0 || start+tcpSize > len(in) || start < ipv4Size {
		return 0, errMalformed
	}
	six := in[0]>>4 == 6
	if six && start < ipv6Size {
		return 0, errMalformed
	}
	heads := start + int(in[start+12]>>4)*4
	if heads < start+tcpSize || heads > len(in) {
		return 0, errMalformed
	}
	payload := in[heads:]
	count := 0
	for at := 0; at < len(payload); at += segment {
		part := payload[at:min(at+segment, len(payload))]
		if count == len(bufs) || heads+len(part) > len(bufs[count])-offset {
			return count, errMalformed
		}
		out := bufs[count][offset : offset+heads+len(part)]
		copy(out, in[:heads])
		copy(out[heads:], part)
		if !six {
			id := binary.BigEndian.Uint16(out[ipv4ID:])
			binary.BigEndian.PutUint16(out[ipv4ID:], id+uint16(count))
		}
		tcp := out[start:]
		sequence := binary.BigEndian.Uint32(tcp[tcpSequence:])
		binary.BigEndian.PutUint32(tcp[tcpSequence:], sequence+uint32(at))
		if at+segment < len(payload) {
			tcp[tcpFlags] &^= flagFIN | flagPSH
		}
		finish(out, start)
		sizes[count] = len(out)
		count++
	}
	return count, nil
}

// finish puts lengths and checksums into a whole TCP packet whose TCP header begins at start.
func finish(packet []byte, start int) {
	lengths(packet, start)
	tcp := packet[start:]
	binary.BigEndian.PutUint16(tcp[tcpSum:], 0)
	binary.BigEndian.PutUint16(tcp[tcpSum:], ^fold(sum(tcp, pseudo(packet, len(tcp)))))
}

// lengths puts the IP header's length, and IPv4's checksum, into a whole packet.
func lengths(packet []byte, start int) {
	if packet[0]>>4 == 6 {
		binary.BigEndian.PutUint16(packet[ipv6Length:], uint16(len(packet)-ipv6Size))
		return
	}
	binary.BigEndian.PutUint16(packet[ipv4Length:], uint16(len(packet)))
	binary.BigEndian.PutUint16(packet[ipv4Sum:], 0)
	binary.BigEndian.PutUint16(packet[ipv4Sum:], ^fold(sum(packet[:start], 0)))
}

// pseudo is the sum of what TCP's checksum covers beside its own bytes.
func pseudo(packet []byte, length int) uint64 {
	addresses := packet[12:20]
	if packet[0]>>4 == 6 {
		addresses = packet[8:40]
	}
	return sum(addresses, uint64(length)+protocolTCP)
}

// sum adds the words of b to s, in 32 bits at a time: carries gather in the upper half (RFC 1071).
func sum(b []byte, s uint64) uint64 {
	for len(b) >= 32 {
		s += uint64(binary.BigEndian.Uint32(b)) + uint64(binary.BigEndian.Uint32(b[4:])) +
			uint64(binary.BigEndian.Uint32(b[8:])) + uint64(binary.BigEndian.Uint32(b[12:])) +
			uint64(binary.BigEndian.Uint32(b[16:])) + uint64(binary.BigEndian.Uint32(b[20:])) +
			uint64(binary.BigEndian.Uint32(b[24:])) + uint64(binary.BigEndian.Uint32(b[28:]))
		b = b[32:]
	}
	for len(b) >= 2 {
		s += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

// fold makes 16 bits of a sum.
func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// final is a checksum as it stands in a packet. Zero would mean in UDP that there is none.
func final(s uint64) uint16 {
	if c := ^fold(s); c != 0 {
		return c
	}
	return 0xffff
}
