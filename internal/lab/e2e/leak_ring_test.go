//go:build e2e

package e2e_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is an io_uring whose calls a thread of the kernel's makes (include/uapi/linux/io_uring.h).
type ring struct {
	fd                 int
	sqes, rings        []byte
	sqTail, sqFlags    uint32 // where in rings
	sqArray, cqHead    uint32
	cqTail, cqes, mask uint32
	sqMask             uint32
}

const (
	ringPoll, ringWakeup             = 2, 2 // IORING_SETUP_SQPOLL; IORING_ENTER_SQ_WAKEUP
	ringSocket, ringConnect, ringOut = 45, 16, 26
	ringFixed                        = 1 // IOSQE_FIXED_FILE
)

func newRing() (*ring, error) {
	var p [120]byte
	binary.NativeEndian.PutUint32(p[8:], ringPoll)
	binary.NativeEndian.PutUint32(p[16:], 1000) // ms until the thread sleeps
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", e)
	}
	at := func(i int) uint32 { return binary.NativeEndian.Uint32(p[i:]) }
	size := max(at(64)+4*at(0), at(100)+16*at(4))
	r := &ring{fd: int(fd), sqTail: at(44), sqFlags: at(56), sqArray: at(64), cqHead: at(80), cqTail: at(84), cqes: at(100)}
	var err error
	if r.rings, err = unix.Mmap(r.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("map rings: %w", err)
	}
	if r.sqes, err = unix.Mmap(r.fd, 0x10000000, int(64*at(0)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("map entries: %w", err)
	}
	r.sqMask, r.mask = *r.word(at(48)), *r.word(at(88))
	// One place for a socket that this process has no descriptor of.
	files := [4]uint64{1 | 1<<32} // one, sparse
	const registerFiles2 = 13
	if _, _, e = unix.Syscall6(unix.SYS_IO_URING_REGISTER, fd, registerFiles2, uintptr(unsafe.Pointer(&files)), 32, 0, 0); e != 0 {
		return nil, fmt.Errorf("io_uring_register: %w", e)
	}
	return r, nil
}

func (r *ring) word(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[at])) }

// call has the kernel's thread make one call and returns its result.
func (r *ring) call(op, flags byte, fd int32, off, addr uint64, length, fileIndex uint32) error {
	tail := atomic.LoadUint32(r.word(r.sqTail))
	i := tail & r.sqMask
	e := r.sqes[64*i : 64*i+64]
	clear(e)
	e[0], e[1] = op, flags
	binary.NativeEndian.PutUint32(e[4:], uint32(fd))
	binary.NativeEndian.PutUint64(e[8:], off)
	binary.NativeEndian.PutUint64(e[16:], addr)
	binary.NativeEndian.PutUint32(e[24:], length)
	binary.NativeEndian.PutUint32(e[44:], fileIndex)
	*r.word(r.sqArray + 4*i) = i
	atomic.StoreUint32(r.word(r.sqTail), tail+1)
	const getEvents = 1
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, 1, ringWakeup|getEvents, 0, 0); errno != 0 {
		return fmt.Errorf("io_uring_enter: %w", errno)
	}
	head := atomic.LoadUint32(r.word(r.cqHead))
	if head == atomic.LoadUint32(r.word(r.cqTail)) {
		return errors.New("io_uring: no completion")
	}
	result := int32(*r.word(r.cqes + 16*(head&r.mask) + 8))
	atomic.StoreUint32(r.word(r.cqHead), head+1)
	if result < 0 {
		return unix.Errno(-result)
	}
	return nil
}

// ring sends UDP by a thread of the kernel's, on a socket that only the ring has.
func (r leakRole) ring() error {
	to, err := netip.ParseAddrPort(r.To)
	if err != nil {
		return err
	}
	g, err := newRing()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(g.fd) }()
	address := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&address.Port))[:], to.Port())
	data := r.data()
	var pin runtime.Pinner
	pin.Pin(&address)
	pin.Pin(&data[0])
	defer pin.Unpin()
	if err = g.call(ringSocket, 0, unix.AF_INET, unix.SOCK_DGRAM, 0, 0, 1); err != nil {
		return os.NewSyscallError("ring socket", err)
	}
	if err = g.call(ringConnect, ringFixed, 0, uint64(unsafe.Sizeof(address)), uint64(uintptr(unsafe.Pointer(&address))), 0, 0); err != nil {
		return os.NewSyscallError("ring connect", err)
	}
	if err = g.call(ringOut, ringFixed, 0, 0, uint64(uintptr(unsafe.Pointer(&data[0]))), uint32(len(data)), 0); err != nil {
		return os.NewSyscallError("ring send", err)
	}
	return errors.New("sent, and nobody waits for an answer")
}
