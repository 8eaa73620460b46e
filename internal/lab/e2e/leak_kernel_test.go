//go:build e2e

package e2e_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ways in which the kernel sends what a user has chosen: for a socket that is closed, from a
// thread of its own, or from a socket of its own, which has no user.

// throughKernel are the attempts.
func throughKernel() []leakAttempt {
	return []leakAttempt{
		at("IPv6 groups that are joined: listener discovery tells the network", refusal, leakRole{Proto: "join6"}),
		at("sources of an IPv4 group: IGMP tells the network", refusal, leakRole{Proto: "join4"}),
		at("UDP to an unlisted host by the kernel's thread (io_uring)", refusal, proto("ring", "{outsider}:7700")),
		at("UDP to a peer by the kernel's thread (io_uring)", silent, proto("ring", "{peer}:7700")),
		at("TCP to a peer, data of a socket that is closed at once", silent, tcp("{peer}:7700").of(64<<10).with("abandon")),
		at("TCP fast open to an unlisted host", refusal, tcp("{outsider}:7700").with("fastopen")),
		at("ping to a peer", silent, proto("ping", "{peer}:0")),
		at("ping to an unlisted host", refusal, proto("ping", "{outsider}:0")),
		at("UDP to a peer without gateways (SO_DONTROUTE)", tunnelled, udp("{peer}:7700").with("dontroute")),
		at("UDP to a peer's WireGuard", silent, udp("{peer}:51820")),
		at("UDP on IPv6 to a peer by way of another host (routing header)", refusal, proto("segments", "{peer6}:7700").with("{outsider6}")),
		at("UDP on IPv6 to an unlisted host by way of a peer (routing header)", silent, proto("segments", "{outsider6}:7700").with("{peer6}")),
	}
}

// join has the kernel report groups, or their sources, that are the text.
func (r leakRole) join() error {
	card, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	if r.Proto == "join4" {
		return r.join4(card)
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	m := unix.IPv6Mreq{Multiaddr: [16]byte{0xff, 2}, Interface: uint32(card.Index)}
	copy(m.Multiaddr[2:], r.data())
	if err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &m); err != nil {
		return fmt.Errorf("IPV6_JOIN_GROUP: %w", err)
	}
	time.Sleep(leakPatience) // the report is sent at some moment of the next second, and the goodbye after it
	return errors.New("nobody answers to a report")
}

func (r leakRole) join4(card *net.Interface) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	group := [4]byte{239, 77, 0, 1}
	if err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group, Ifindex: int32(card.Index)}); err != nil {
		return fmt.Errorf("IP_ADD_MEMBERSHIP: %w", err)
	}
	addrs, err := card.Addrs()
	if err != nil {
		return err
	}
	// struct ip_msfilter
	filter := struct {
		group, card [4]byte
		mode, n     uint32
		sources     [16]byte
	}{group: group, mode: 1, n: 4} // MCAST_INCLUDE
	for _, a := range addrs {
		if p, parseErr := netip.ParsePrefix(a.String()); parseErr == nil && p.Addr().Is4() {
			filter.card = p.Addr().As4()
		}
	}
	copy(filter.sources[:], r.data())
	const ipMSFilter = 41
	if _, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, ipMSFilter,
		uintptr(unsafe.Pointer(&filter)), unsafe.Sizeof(filter), 0); e != 0 {
		return fmt.Errorf("IP_MSFILTER: %w", e)
	}
	time.Sleep(leakPatience)
	return errors.New("nobody answers to a report")
}

// segments sends through a host that the user names (RFC 8754): the packet is addressed to it.
func (r leakRole) segments() error {
	to, errTo := netip.ParseAddrPort(r.To)
	hop, errHop := netip.ParseAddr(r.Option[1 : len(r.Option)-1]) // in brackets
	if err := errors.Join(errTo, errHop); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	last, first := to.Addr().As16(), hop.As16()
	header := append([]byte{0, 4, 4, 1, 1, 0, 0, 0}, last[:]...) // type 4, two segments, the second is next
	header = append(header, first[:]...)
	if err = unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_RTHDR, string(header)); err != nil {
		return fmt.Errorf("IPV6_RTHDR: %w", err)
	}
	err = unix.Sendto(fd, r.data(), 0, &unix.SockaddrInet6{Port: int(to.Port()), Addr: last})
	if err == nil {
		err = errors.New("nobody answers")
	}
	return os.NewSyscallError("sendto", err)
}
