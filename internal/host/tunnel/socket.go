package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

const bufferSize = 7 << 20 // of a socket, each way, as far as the kernel allows it

// socket is one UDP socket, with what its only reader needs for one call.
type socket struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	port uint16

	header  unix.Msghdr
	vector  unix.Iovec
	from    [unix.SizeofSockaddrInet6]byte
	control [96]byte
	n       int
	errno   syscall.Errno
	read    func(fd uintptr) bool
	last    *endpoint // of the last packet: mostly the next one's, too
}

func listenUDP(network string, port uint16) (*socket, error) {
	lc := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) error {
		var err error
		control := c.Control(func(fd uintptr) { err = prepare(int(fd), network) })
		return errors.Join(control, err)
	}}
	c, err := lc.ListenPacket(context.Background(), network, fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, err
	}
	s := &socket{conn: c.(*net.UDPConn)} //nolint:forcetypeassert // "udp" gives no other
	s.port = s.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	s.read = func(fd uintptr) bool {
		s.header.Name, s.header.Namelen = &s.from[0], uint32(len(s.from))
		s.header.Iov, s.header.Iovlen = &s.vector, 1
		s.header.Control = &s.control[0]
		s.header.SetControllen(len(s.control))
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&s.header)), unix.MSG_DONTWAIT) // #nosec G103 -- the kernel is given memory of this struct, which lives as long as the call
		s.n, s.errno = int(n), errno
		return errno != unix.EAGAIN
	}
	return s, nil
}

// prepare sets what wireguard-go's own sockets have: large buffers, packets joined by the kernel,
// and word of the address at which a packet arrived.
func prepare(fd int, network string) error {
	for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF, unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, bufferSize) // less is slower, and no error
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) // since Linux 5.0
	if network == "udp4" {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
}

// receive implements conn.ReceiveFunc. What the kernel has joined arrives in the first buffer;
// the packets after the first are copied out of it.
func (s *socket) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	s.vector.Base = &bufs[0][0]
	s.vector.SetLen(len(bufs[0]))
	if err := s.raw.Read(s.read); err != nil {
		return 0, err
	}
	if s.errno != 0 {
		return 0, s.errno
	}
	size, source := s.announced()
	from := s.sender(source)
	if size <= 0 || size >= s.n {
		sizes[0], eps[0] = s.n, from
		return 1, nil
	}
	whole := bufs[0][:s.n]
	count := 0
	for at := 0; at < len(whole) && count < len(bufs); at += size {
		part := whole[at:min(at+size, len(whole))]
		if count > 0 {
			copy(bufs[count], part)
		}
		sizes[count], eps[count] = len(part), from
		count++
	}
	return count, nil
}

// announced reads the control messages: the size of the packets that the kernel has joined, 0 for
// a single one, and where they arrived, as a control message for the answer.
func (s *socket) announced() (size int, source []byte) {
	b := s.control[:min(int(s.header.Controllen), len(s.control))]
	for len(b) >= unix.SizeofCmsghdr {
		length := int(binary.NativeEndian.Uint64(b))
		if length < unix.SizeofCmsghdr || length > len(b) {
			break
		}
		level, kind := binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[12:])
		switch {
		case level == unix.IPPROTO_UDP && kind == unix.UDP_GRO && length >= unix.SizeofCmsghdr+4:
			size = int(int32(binary.NativeEndian.Uint32(b[16:])))
		case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO, level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO:
			source = b[:length]
		}
		b = b[min(len(b), aligned(length)):]
	}
	return size, source
}

// aligned is where the next control message begins.
func aligned(length int) int { return (length + 7) &^ 7 }

// sender is the endpoint of the packet that was just read.
func (s *socket) sender(source []byte) *endpoint {
	raw := s.from[:min(int(s.header.Namelen), len(s.from))]
	if s.last != nil && s.last.is(raw, source) {
		return s.last
	}
	port := binary.BigEndian.Uint16(raw[2:])
	var a netip.Addr
	if len(raw) == unix.SizeofSockaddrInet4 {
		a = netip.AddrFrom4([4]byte(raw[4:8]))
	} else {
		a = netip.AddrFrom16([16]byte(raw[8:24]))
		if zone := binary.NativeEndian.Uint32(raw[24:]); zone != 0 {
			a = a.WithZone(fmt.Sprint(zone))
		}
	}
	s.last = newEndpoint(netip.AddrPortFrom(a, port))
	copy(s.last.raw[:], raw)
	s.last.setSource(source)
	return s.last
}
