package tunnel

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// joiner joins TCP packets of one flow that follow each other to a large one, which costs the
// kernel as much as a small one. Their order within a flow stays.
type joiner struct {
	large []large
	open  []int // of large: flows that may go on
	out   [][]byte
}

// large is a packet that others may be joined to.
type large struct {
	buf     []byte // from the kernel's header on
	start   int    // of the TCP header in the packet
	heads   int    // length of the headers
	segment int    // payload of each packet that was joined
	next    uint32 // sequence number of what would follow
	count   int
	tcp     bool // could be joined at all
}

// mostOpen is how many flows are looked at for one packet.
const mostOpen = 8

// join returns what to write, each with the kernel's header. The packets lie behind offset bytes
// in their buffers; what is joined to the first one is copied into its buffer.
func (j *joiner) join(bufs [][]byte, offset int) [][]byte {
	j.large, j.open, j.out = j.large[:0], j.open[:0], j.out[:0]
	for _, b := range bufs {
		p := look(b[offset-headerSize:])
		if p.tcp && j.append(p) {
			continue
		}
		j.large = append(j.large, p)
		if p.tcp {
			j.begin(len(j.large) - 1)
		}
	}
	for i := range j.large {
		j.large[i].close()
		j.out = append(j.out, j.large[i].buf)
	}
	return j.out
}

// begin has the flow of a packet go on there, and nowhere else.
func (j *joiner) begin(i int) {
	kept := j.open[:0]
	for _, k := range j.open {
		if !sameFlow(&j.large[k], &j.large[i]) {
			kept = append(kept, k)
		}
	}
	j.open = append(kept, i)
	if len(j.open) > mostOpen {
		j.open = j.open[1:]
	}
}

// append joins a packet to that of its flow, if it may be.
func (j *joiner) append(p large) bool {
	for _, k := range j.open {
		l := &j.large[k]
		if sameFlow(l, &p) {
			return l.append(&p)
		}
	}
	return false
}

// look reads the headers of a packet. Only a plain TCP packet with payload and a good checksum, and
// without anything that must be seen by itself, can be joined.
func look(buf []byte) large {
	l := large{buf: buf}
	packet := buf[headerSize:]
	switch {
	case len(packet) >= ipv4Size+tcpSize && packet[0] == 0x45 && packet[9] == protocolTCP:
		if binary.BigEndian.Uint16(packet[6:])&fragmentMask != 0 || int(binary.BigEndian.Uint16(packet[ipv4Length:])) != len(packet) {
			return l
		}
		l.start = ipv4Size
	case len(packet) >= ipv6Size+tcpSize && packet[0]>>4 == 6 && packet[6] == protocolTCP:
		if int(binary.BigEndian.Uint16(packet[ipv6Length:])) != len(packet)-ipv6Size {
			return l
		}
		l.start = ipv6Size
	default:
		return l
	}
	tcp := packet[l.start:]
	l.heads = l.start + int(tcp[12]>>4)*4
	if l.heads < l.start+tcpSize || l.heads >= len(packet) {
		return l
	}
	const ack = 0x10
	if tcp[tcpFlags]&^flagPSH != ack || tcp[12]&0x0f != 0 {
		return l
	}
	if l.start == ipv4Size && fold(sum(packet[:ipv4Size], 0)) != 0xffff {
		return l
	}
	if fold(sum(tcp, pseudo(packet, len(tcp)))) != 0xffff {
		return l
	}
	l.segment, l.count, l.tcp = len(packet)-l.heads, 1, true
	l.next = binary.BigEndian.Uint32(tcp[tcpSequence:]) + uint32(l.segment)
	return l
}

// sameFlow says whether two packets are between the same ports of the same addresses.
func sameFlow(a, b *large) bool {
	if a.start != b.start {
		return false
	}
	x, y := a.buf[headerSize:], b.buf[headerSize:]
	from, to := 12, 20
	if a.start == ipv6Size {
		from, to = 8, 40
	}
	return bytes.Equal(x[from:to], y[from:to]) && bytes.Equal(x[a.start:a.start+4], y[a.start:a.start+4])
}

// append joins p, if it follows at once and its headers are the same but for what tells packets apart.
func (l *large) append(p *large) bool {
	x, y := l.buf[headerSize:], p.buf[headerSize:]
	payload := y[p.heads:]
	switch {
	case l.heads != p.heads, binary.BigEndian.Uint32(y[p.start+tcpSequence:]) != l.next,
		len(payload) > l.segment, (len(x)-l.heads)%l.segment != 0, x[l.start+tcpFlags]&flagPSH != 0,
		len(l.buf)+len(payload) > cap(l.buf), len(x)+len(payload) > maxPacket, l.count == segments,
		!bytes.Equal(x[l.start+8:l.start+12], y[l.start+8:l.start+12]),   // acknowledgement
		!bytes.Equal(x[l.start+14:l.start+16], y[l.start+14:l.start+16]), // window
		!bytes.Equal(x[l.start+tcpSize:l.heads], y[l.start+tcpSize:l.heads]):
		return false
	}
	if l.start == ipv4Size {
		if x[1] != y[1] || x[6] != y[6] || x[8] != y[8] { // type of service, flags, time to live
			return false
		}
	} else if !bytes.Equal(x[:4], y[:4]) || x[7] != y[7] { // traffic class and flow label, hop limit
		return false
	}
	l.buf = append(l.buf, payload...)
	l.buf[headerSize+l.start+tcpFlags] |= y[p.start+tcpFlags] & flagPSH
	l.next += uint32(len(payload))
	l.count++
	return true
}

// close writes the kernel's header, and makes one packet of what was joined.
func (l *large) close() {
	header := l.buf[:headerSize]
	clear(header)
	if l.count < 2 {
		return
	}
	packet := l.buf[headerSize:]
	header[0], header[1] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, unix.VIRTIO_NET_HDR_GSO_TCPV4
	if l.start == ipv6Size {
		header[1] = unix.VIRTIO_NET_HDR_GSO_TCPV6
	}
	binary.NativeEndian.PutUint16(header[2:], uint16(l.heads))
	binary.NativeEndian.PutUint16(header[4:], uint16(l.segment))
	binary.NativeEndian.PutUint16(header[6:], uint16(l.start))
	binary.NativeEndian.PutUint16(header[8:], tcpSum)
	lengths(packet, l.start)
	// The kernel goes on from the pseudo header's sum.
	binary.BigEndian.PutUint16(packet[l.start+tcpSum:], fold(pseudo(packet, len(packet)-l.start)))
}
