//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
)

// leakRole is one attempt to send, as a program of a user would make it.
type leakRole struct {
	Proto   string   `json:"proto"`             // tcp, mptcp, udp, udplite, sctp, ping, raw, frame, join4, join6, ring or segments
	To      string   `json:"to"`                // address and port
	From    string   `json:"from,omitempty"`    // address, port or both to bind to
	Device  string   `json:"device,omitempty"`  // SO_BINDTODEVICE
	Mark    int      `json:"mark,omitempty"`    // SO_MARK
	Option  string   `json:"option,omitempty"`  // another way of asking for a way out, see options
	Held    string   `json:"held,omitempty"`    // take the socket from the one who listens at this path
	Via     []string `json:"via,omitempty"`     // words of a program that runs the rest, such as unshare
	Size    int      `json:"size,omitempty"`    // bytes to send, 1024 by default
	Payload string   `json:"payload,omitempty"` // is repeated to Size bytes
}

// leakResult is what became of it, as its program sees it.
type leakResult struct {
	Echo bool   `json:"echo"` // all that was sent came back
	Err  string `json:"err,omitempty"`
}

const leakPatience = 600 * time.Millisecond

func (r leakRole) data() []byte {
	size := r.Size
	if size == 0 {
		size = 1024
	}
	return []byte(strings.Repeat(r.Payload, size/len(r.Payload)+1)[:size])
}

// act does it; with Via another program starts it anew with other rights.
func (r leakRole) act() leakResult {
	if len(r.Via) > 0 {
		return r.viaOther()
	}
	var err error
	echo := false
	switch {
	case r.Held != "":
		echo, err = r.throughHeld()
	case r.Proto == "frame":
		err = r.frame()
	case r.Proto == "join4" || r.Proto == "join6":
		err = r.join()
	case r.Proto == "ring":
		err = r.ring()
	case r.Proto == "segments":
		err = r.segments()
	case r.Proto == "ping" || r.Proto == "raw" || r.Proto == "udplite" || r.Proto == "sctp":
		err = r.datagram()
	default:
		echo, err = r.dialed()
	}
	if err != nil {
		return leakResult{Echo: echo, Err: err.Error()}
	}
	return leakResult{Echo: echo}
}

func (r leakRole) viaOther() leakResult {
	self, err := os.Executable()
	if err != nil {
		return leakResult{Err: err.Error()}
	}
	inner := r
	inner.Via = nil
	b, _ := json.Marshal(inner) // strings and numbers always can be
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, r.Via[0], append(r.Via[1:], self)...)
	c.Env = append(os.Environ(), leakAgent+"=act")
	c.Stdin = strings.NewReader(string(b)) // arguments could be seen
	out, err := c.CombinedOutput()
	var result leakResult
	if json.Unmarshal(out, &result) != nil {
		return leakResult{Err: fmt.Sprintf("%v: %s", err, out)}
	}
	return result
}

func (r leakRole) dialed() (bool, error) {
	d := net.Dialer{Timeout: leakPatience, Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = r.options(int(fd)) })
		if err == nil {
			err = failed
		}
		return err
	}}
	network := strings.TrimPrefix(r.Proto, "mp")
	d.SetMultipathTCP(r.Proto == "mptcp")
	if r.From != "" {
		var err error
		if network == "udp" {
			d.LocalAddr, err = net.ResolveUDPAddr("udp", r.From)
		} else {
			d.LocalAddr, err = net.ResolveTCPAddr("tcp", r.From)
		}
		if err != nil {
			return false, err
		}
	}
	c, err := d.Dial(network, r.To)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }()
	return r.converse(c)
}

// converse sends and waits for the echo.
func (r leakRole) converse(c net.Conn) (bool, error) {
	data := r.data()
	if r.Option == "abandon" {
		_, err := c.Write(data)
		return false, errors.Join(err, errors.New("closed without waiting"))
	}
	_ = c.SetDeadline(time.Now().Add(leakPatience + time.Duration(len(data)>>16)*100*time.Millisecond))
	sent := make(chan error, 1)
	go func() {
		_, err := r.write(c, data)
		sent <- err
	}()
	got := make([]byte, len(data))
	_, errRead := io.ReadFull(c, got)
	if err := <-sent; err != nil {
		return false, err
	}
	return errRead == nil && string(got) == string(data), errRead
}

func (r leakRole) write(c net.Conn, data []byte) (int, error) {
	if r.Option != "pktinfo" {
		return c.Write(data)
	}
	device, err := net.InterfaceByName("eth0")
	if err != nil {
		return 0, err
	}
	oob := unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(device.Index)})
	n, _, err := c.(*net.UDPConn).WriteMsgUDP(data, oob, nil)
	return n, err
}

// options asks the kernel for another way out than the usual one.
func (r leakRole) options(fd int) error {
	if r.Device != "" {
		if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, r.Device); err != nil {
			return fmt.Errorf("SO_BINDTODEVICE: %w", err)
		}
	}
	if r.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, r.Mark); err != nil {
			return fmt.Errorf("SO_MARK: %w", err)
		}
	}
	switch r.Option {
	case "dontroute":
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DONTROUTE, 1)
	case "broadcast":
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
	case "fastopen":
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
	case "unicast-if":
		device, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_UNICAST_IF, int(htonl(uint32(device.Index))))
	case "multicast-if":
		device, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(device.Index)})
	}
	if hop, ok := strings.CutPrefix(r.Option, "source-route:"); ok {
		a, err := netip.ParseAddr(hop)
		if err != nil {
			return err
		}
		four := a.As4()
		return unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, string(append([]byte{131, 7, 4}, append(four[:], 0)...)))
	}
	return nil
}

func htonl(v uint32) uint32 { return v<<24 | v<<8&0xff0000 | v>>8&0xff00 | v>>24 }

// datagram sends without waiting for an answer, over protocols that package net does not know.
func (r leakRole) datagram() error {
	to, err := netip.ParseAddrPort(r.To)
	if err != nil {
		return err
	}
	kind, proto := unix.SOCK_DGRAM, unix.IPPROTO_ICMP
	data := r.data()
	switch r.Proto {
	case "ping":
		data = append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, data...)
	case "raw":
		kind, proto = unix.SOCK_RAW, 253
	case "udplite":
		proto = unix.IPPROTO_UDPLITE
	case "sctp":
		kind, proto = unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP
	}
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err = r.options(fd); err != nil {
		return err
	}
	port := int(to.Port())
	if r.Proto == "raw" {
		port = 0
	}
	return os.NewSyscallError("sendto", unix.Sendto(fd, data, 0, &unix.SockaddrInet4{Port: port, Addr: to.Addr().As4()}))
}

// frame puts a UDP datagram on the card itself.
func (r leakRole) frame() error {
	to, err := netip.ParseAddrPort(r.To)
	if err != nil {
		return err
	}
	card, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	frame := append([]byte{255, 255, 255, 255, 255, 255}, card.HardwareAddr...)
	frame = append(append(frame, 8, 0), packettest.IP(netip.AddrFrom4([4]byte{10, 93, 9, 9}), to.Addr(), 253, r.data())...)
	return os.NewSyscallError("sendto", unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: card.Index}))
}
