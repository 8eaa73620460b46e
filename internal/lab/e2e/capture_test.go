//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// frame is what the switch saw of one IPv4 packet.
type frame struct {
	src, dst         netip.Addr
	proto            byte
	srcPort, dstPort uint16
	payload          []byte
	at               time.Time // when the program saw it, a little after the switch
}

func (f frame) String() string {
	return fmt.Sprintf("proto %d %s:%d > %s:%d, %d bytes", f.proto, f.src, f.srcPort, f.dst, f.dstPort, len(f.payload))
}

// capture records every IPv4 packet that enters the lab's switch.
type capture struct {
	mu     sync.Mutex
	frames []frame
	fd     int
	done   chan struct{}
}

// startCapture opens a packet socket in the lab's own network namespace. A frame is taken
// where it comes in from a host, so each is seen once.
func startCapture(t *testing.T) *capture {
	t.Helper()
	fd := packetSocket(t)
	c := &capture{fd: fd, done: make(chan struct{})}
	go c.read(fd)
	t.Cleanup(func() { c.stop() })
	return c
}

func packetSocket(t *testing.T) int {
	t.Helper()
	var fd int
	inLab(t, func() error {
		var err error
		// ETH_P_ALL: a socket for one protocol comes after the switch has taken the frame.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		// Room for bursts: a dropped frame would make a leak invisible.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	})
	return fd
}

// inLab runs f in the lab's network namespace, which holds the switch.
func inLab(t *testing.T, f func() error) {
	t.Helper()
	inNamespace(t, fmt.Sprintf("/proc/%d/ns/net", state(t).Supervisor), f)
}

// inNamespace runs f on a thread of its own, which ends with it.
func inNamespace(t *testing.T, path string, f func() error) {
	t.Helper()
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		ns, err := os.Open(path)
		if err != nil {
			errs <- err
			return
		}
		defer func() { _ = ns.Close() }()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			errs <- err
			return
		}
		errs <- f()
	}()
	require.NoError(t, <-errs)
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (c *capture) read(fd int) {
	defer close(c.done)
	buffer := make([]byte, 128<<10)
	for {
		n, from, err := unix.Recvfrom(fd, buffer, 0)
		if err == unix.EBADF || err == unix.EINVAL {
			return
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if err != nil || !ok || ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if f, ok := parseFrame(buffer[:n]); ok {
			f.at = time.Now()
			c.mu.Lock()
			c.frames = append(c.frames, f)
			c.mu.Unlock()
		}
	}
}

func parseFrame(b []byte) (frame, bool) {
	if len(b) < 34 || b[12] != 8 || b[13] != 0 || b[14]>>4 != 4 {
		return frame{}, false
	}
	ip := b[14:]
	head := int(ip[0]&15) * 4
	total := int(binary.BigEndian.Uint16(ip[2:]))
	if total == 0 || total > len(ip) {
		total = len(ip) // a segmentation-offloaded packet
	}
	f := frame{proto: ip[9], src: netip.AddrFrom4([4]byte(ip[12:16])), dst: netip.AddrFrom4([4]byte(ip[16:20]))}
	if total < head+8 {
		return f, true
	}
	body := ip[head:total]
	switch f.proto {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		f.srcPort, f.dstPort = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
	}
	skip := 8
	if f.proto == unix.IPPROTO_TCP && len(body) >= 20 {
		skip = int(body[12]>>4) * 4
	}
	f.payload = bytes.Clone(body[min(skip, len(body)):])
	return f, true
}

// stop ends the capture and says whether the kernel had to drop frames.
func (c *capture) stop() []frame {
	c.mu.Lock()
	fd := c.fd
	c.fd = -1
	c.mu.Unlock()
	if fd >= 0 {
		time.Sleep(150 * time.Millisecond) // what is on its way
		_ = unix.Close(fd)
		<-c.done
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frames
}

const tunnelPort = 51820

// outside are the frames between enclave nodes that are neither WireGuard's nor Slurm's own.
func outside(frames []frame) []frame {
	var out []frame
	for _, f := range frames {
		if enclaveNode(f.src) && enclaveNode(f.dst) && !control(f) && !wireguard(f) {
			out = append(out, f)
		}
	}
	return out
}

func enclaveNode(a netip.Addr) bool { return netip.MustParsePrefix("10.93.1.0/24").Contains(a) }

// wireguard is WireGuard's, or the kernel's word that nobody takes it any more, which quotes it: a
// node that has ended its part of a job may get a packet of one that has not.
func wireguard(f frame) bool {
	if q := f.payload; f.proto == unix.IPPROTO_ICMP && len(q) >= 28 && q[0] == 0x45 && q[9] == unix.IPPROTO_UDP {
		return binary.BigEndian.Uint16(q[22:]) == tunnelPort
	}
	return f.proto == unix.IPPROTO_UDP && f.dstPort == tunnelPort
}

// control is Slurm's own traffic: slurmctld, slurmd, srun's ports.
func control(f frame) bool {
	slurm := func(p uint16) bool { return p == 6817 || p == 6818 || p >= 61001 && p <= 61200 }
	return f.proto == unix.IPPROTO_TCP && (slurm(f.srcPort) || slurm(f.dstPort))
}

// holding are the frames whose payload shows the text.
func holding(frames []frame, text string) []frame {
	var out []frame
	for _, f := range frames {
		if bytes.Contains(f.payload, []byte(text)) {
			out = append(out, f)
		}
	}
	return out
}

func list(frames []frame) string {
	b := strings.Builder{}
	for i, f := range frames {
		if i == 10 {
			fmt.Fprintf(&b, "and %d more\n", len(frames)-10)
			break
		}
		fmt.Fprintln(&b, f)
	}
	return b.String()
}
