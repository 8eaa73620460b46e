package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// routesAtOnce is how many routes go to the kernel in one write. All of them may be answered with an
// error, and the answers must fit into the socket.
const routesAtOnce = 256

// AddRoutes implements mesh.Routes. A call for each of a thousand routes would be a socket, a look for
// the interface, a write and a read for each; the kernel takes a whole page of them in one write, and
// answers the last one, and those that fail.
func (Kernel) AddRoutes(ctx context.Context, routes []mesh.Route) error {
	index := map[string]int{}
	s, err := openRoute()
	if err != nil {
		return err
	}
	defer s.close()
	for some := range slices.Chunk(routes, routesAtOnce) {
		for _, r := range some {
			if index[r.Device] != 0 {
				continue
			}
			l, err := find(ctx, r.Device)
			if err != nil {
				return err
			}
			if l == nil {
				return fmt.Errorf("add %v: no interface %s", r, r.Device)
			}
			index[r.Device] = l.Attrs().Index
		}
		if err := s.add(some, index); err != nil {
			return err
		}
	}
	return nil
}

// message is one RTM_NEWROUTE (rtnetlink(7)). The route is one address on a link, in the job's table.
func message(r mesh.Route, index, flags int) *nl.NetlinkRequest {
	out := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|flags)
	m := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: unix.AF_INET6, Dst_len: uint8(r.To.BitLen()), // 32 or 128
		Protocol: unix.RTPROT_STATIC, Scope: unix.RT_SCOPE_UNIVERSE, Type: unix.RTN_UNICAST,
	}}
	if r.To.Is4() {
		m.Family, m.Scope = unix.AF_INET, unix.RT_SCOPE_LINK
	}
	out.AddData(m)
	out.AddData(nl.NewRtAttr(unix.RTA_DST, r.To.AsSlice()))
	if r.Source.IsValid() {
		out.AddData(nl.NewRtAttr(unix.RTA_PREFSRC, r.Source.AsSlice()))
	}
	out.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index)))) // #nosec G115 -- the kernel's number
	out.AddData(nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(r.Table)))
	return out
}

// routeSocket speaks rtnetlink in the network of the thread that opened it.
type routeSocket struct{ fd int }

func openRoute() (routeSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return routeSocket{}, fmt.Errorf("open rtnetlink: %w", err)
	}
	s := routeSocket{fd}
	const answers = 1 << 20
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, answers); err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	}
	if err != nil {
		s.close()
		return routeSocket{}, fmt.Errorf("open rtnetlink: %w", err)
	}
	return s, nil
}

func (s routeSocket) close() { _ = unix.Close(s.fd) }

// add gives the first route's error.
func (s routeSocket) add(routes []mesh.Route, index map[string]int) error {
	var all []byte
	of := map[uint32]mesh.Route{}
	var last uint32
	for i, r := range routes {
		flags := 0
		if i == len(routes)-1 {
			flags = unix.NLM_F_ACK
		}
		m := message(r, index[r.Device], flags)
		last = m.Seq
		of[last] = r
		all = append(all, m.Serialize()...)
	}
	if err := unix.Sendto(s.fd, all, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("add %d routes: %w", len(routes), err)
	}
	var first error
	b := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(s.fd, b, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return errors.Join(first, fmt.Errorf("add %d routes: read answer: %w", len(routes), err))
		}
		answers, err := syscall.ParseNetlinkMessage(b[:n])
		if err != nil {
			return errors.Join(first, fmt.Errorf("add %d routes: parse answer: %w", len(routes), err))
		}
		for _, m := range answers {
			r, ours := of[m.Header.Seq]
			if !ours || m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
				continue
			}
			if code := int32(nl.NativeEndian().Uint32(m.Data)); code != 0 && first == nil { // #nosec G115 -- it is a signed number
				first = fmt.Errorf("add %v: %w", r, unix.Errno(-code))
			}
			if m.Header.Seq == last {
				return first
			}
		}
	}
}
