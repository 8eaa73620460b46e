package tunnel

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// bind is WireGuard's way to the network below: two UDP sockets of one port.
//
// It differs from wireguard-go's own in one thing that counts: Go's scheduler does not hear of its
// system calls. None of them waits, and a thread that watches over long ones is woken by every
// one that it hears of; that took longer than all else for a small packet.
type bind struct {
	mu      sync.Mutex // protects the sockets
	sockets [2]*socket // IPv4, IPv6
	calls   sync.Pool  // of *sending
	single  atomic.Bool
}

func newBind() *bind {
	b := &bind{}
	b.calls.New = func() any {
		m := &sending{}
		m.write = func(fd uintptr) bool {
			_, _, m.errno = unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&m.header)), unix.MSG_DONTWAIT) // #nosec G103 -- the kernel is given memory of this struct, which lives as long as the call
			return m.errno != unix.EAGAIN
		}
		return m
	}
	return b
}

// segments is how many packets the kernel takes as one, mostBytes how large that may be.
const (
	segments  = 64
	mostBytes = 65000
)

// BatchSize implements conn.Bind.
func (*bind) BatchSize() int { return conn.IdealBatchSize }

// Open implements conn.Bind.
func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sockets[0] != nil || b.sockets[1] != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	var receive []conn.ReceiveFunc
	for i, network := range []string{"udp4", "udp6"} {
		s, err := listenUDP(network, port)
		if errors.Is(err, syscall.EAFNOSUPPORT) {
			continue
		}
		if err != nil {
			return nil, 0, errors.Join(err, b.close())
		}
		b.sockets[i], port = s, s.port
		receive = append(receive, s.receive)
	}
	if len(receive) == 0 {
		return nil, 0, syscall.EAFNOSUPPORT
	}
	return receive, port, nil
}

// Close implements conn.Bind.
func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.close()
}

func (b *bind) close() error {
	var errs error
	for i, s := range b.sockets {
		if s != nil {
			errs = errors.Join(errs, s.conn.Close())
			b.sockets[i] = nil
		}
	}
	return errs
}

// SetMark implements conn.Bind.
func (b *bind) SetMark(mark uint32) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs error
	for _, s := range b.sockets {
		if s == nil {
			continue
		}
		err := s.raw.Control(func(fd uintptr) {
			errs = errors.Join(errs, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)))
		})
		errs = errors.Join(errs, err)
	}
	return errs
}

// ParseEndpoint implements conn.Bind.
func (*bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return newEndpoint(a), nil
}

// Send implements conn.Bind. Packets of one size go to the kernel as one, which cuts it up as late
// as it can.
func (b *bind) Send(bufs [][]byte, to conn.Endpoint) error {
	e, ok := to.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	b.mu.Lock()
	s := b.sockets[0]
	if e.length == unix.SizeofSockaddrInet6 {
		s = b.sockets[1]
	}
	b.mu.Unlock()
	if s == nil {
		return syscall.EAFNOSUPPORT
	}
	m, _ := b.calls.Get().(*sending)
	defer b.calls.Put(m)
	for len(bufs) > 0 {
		n := 1
		if !b.single.Load() {
			n = alike(bufs)
		}
		err := m.send(s, bufs[:n], e)
		if n > 1 && refused(err) {
			b.single.Store(true) // one by one from here on
			continue
		}
		if err != nil {
			return err
		}
		bufs = bufs[n:]
	}
	return nil
}

// refused says that the kernel does not cut up what it was given: the device below computes no
// checksums, or the pieces don't fit its MTU and would have to be fragmented (below 1360, since IPv6
// wants 1280 inside the tunnel).
func refused(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EINVAL)
}

// alike is how many packets from the first one on can go as one: all of one size, but for a last
// one that may be smaller.
func alike(bufs [][]byte) int {
	size, sum := len(bufs[0]), 0
	for i, b := range bufs {
		if i == segments || len(b) > size || sum+len(b) > mostBytes {
			return max(i, 1)
		}
		sum += len(b)
		if len(b) < size {
			return i + 1
		}
	}
	return len(bufs)
}

// sending is what one call of Send needs.
type sending struct {
	header  unix.Msghdr
	vectors [segments]unix.Iovec
	control [96]byte
	errno   syscall.Errno
	write   func(fd uintptr) bool
}

func (m *sending) send(s *socket, bufs [][]byte, e *endpoint) error {
	m.header = unix.Msghdr{Name: &e.raw[0], Namelen: e.length, Iov: &m.vectors[0]}
	m.header.SetIovlen(len(bufs))
	for i, b := range bufs {
		m.vectors[i].Base = &b[0]
		m.vectors[i].SetLen(len(b))
	}
	used := aligned(copy(m.control[:], e.control()))
	if len(bufs) > 1 {
		b := m.control[used:]
		binary.NativeEndian.PutUint64(b, unix.SizeofCmsghdr+2)
		binary.NativeEndian.PutUint32(b[8:], unix.IPPROTO_UDP)
		binary.NativeEndian.PutUint32(b[12:], unix.UDP_SEGMENT)
		binary.NativeEndian.PutUint16(b[16:], uint16(len(bufs[0])))
		used += unix.SizeofCmsghdr + 8
	}
	if used > 0 {
		m.header.Control = &m.control[0]
		m.header.SetControllen(used)
	}
	if err := s.raw.Write(m.write); err != nil {
		return err
	}
	if m.errno != 0 {
		return m.errno
	}
	return nil
}
