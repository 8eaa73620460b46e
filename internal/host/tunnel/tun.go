package tunnel

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// card is the job's side of the tunnel: wireguard-go's own TUN device, but for reading and writing,
// which Go's scheduler does not hear of, as in bind. It hands large TCP packets to the kernel and
// takes them from it, and cuts and joins them here.
type card struct {
	tun.Device

	raw syscall.RawConn

	in    []byte // one packet of the kernel's, with its header
	n     int
	errno syscall.Errno
	read  func(fd uintptr) bool

	mu     sync.Mutex // protects what follows: each peer has a writer of its own
	joiner joiner
	out    []byte
	failed syscall.Errno
	write  func(fd uintptr) bool
}

// maxPacket is the largest packet of IP.
const maxPacket = 65535

func openCard(name string, mtu int) (*card, error) {
	d, err := tun.CreateTUN(name, mtu)
	if err != nil {
		return nil, err
	}
	c := &card{Device: d, in: make([]byte, headerSize+maxPacket)}
	if c.raw, err = d.File().SyscallConn(); err == nil {
		err = c.offload()
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	c.read = func(fd uintptr) bool {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&c.in[0])), uintptr(len(c.in))) // #nosec G103 -- the kernel is given memory of this struct, which lives as long as the call
		c.n, c.errno = int(n), errno
		return errno != unix.EAGAIN
	}
	c.write = func(fd uintptr) bool {
		_, _, c.failed = unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&c.out[0])), uintptr(len(c.out))) // #nosec G103 -- the kernel is given memory of this struct, which lives as long as the call
		return c.failed != unix.EAGAIN
	}
	return c, nil
}

// offload asks for TCP packets larger than the MTU, and for no others: cutting those of UDP is left to the kernel.
func (c *card) offload() error {
	var err error
	control := c.raw.Control(func(fd uintptr) {
		request, failed := unix.NewIfreq("")
		if failed != nil {
			err = failed
			return
		}
		if err = unix.IoctlIfreq(int(fd), unix.TUNGETIFF, request); err != nil {
			return
		}
		if request.Uint16()&unix.IFF_VNET_HDR == 0 {
			err = errors.New("the kernel's TUN devices have no header for large packets")
			return
		}
		err = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6)
	})
	if err = errors.Join(control, err); err != nil {
		return fmt.Errorf("set up offload: %w", err)
	}
	return nil
}

// Read implements tun.Device: packets of the job's, each into a buffer of its own behind offset bytes.
func (c *card) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if err := c.raw.Read(c.read); err != nil || c.errno == unix.EBADFD {
		return 0, os.ErrClosed
	}
	if c.errno != 0 {
		return 0, c.errno
	}
	return cut(c.in[:c.n], bufs, sizes, offset)
}

// Write implements tun.Device: packets for the job, each behind offset bytes, of which the last ones become
// the kernel's header.
func (c *card) Write(bufs [][]byte, offset int) (int, error) {
	if offset < headerSize {
		return 0, fmt.Errorf("write packets: %d bytes before them, %d are needed", offset, headerSize)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	written := 0
	var errs error
	for _, packet := range c.joiner.join(bufs, offset) {
		c.out = packet
		if err := c.raw.Write(c.write); err != nil || c.failed == unix.EBADFD {
			return written, os.ErrClosed
		}
		if c.failed != 0 {
			errs = errors.Join(errs, c.failed)
			continue
		}
		written++
	}
	c.out = nil
	return written, errs
}
