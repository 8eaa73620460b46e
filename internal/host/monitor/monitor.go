// Package monitor tells when the packet filter or the network of a node changes where a job's
// enclave may be concerned. It looks at nothing and judges nothing: who is told reads back.
//
// The kernel sends word of every change in the network namespace. What is surely none of the
// enclave's (another table of nftables, another table of routes, another interface) is left out,
// so that a node with a busy firewall is not read back all day.
package monitor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of names what belongs to the enclave.
type Of struct {
	Filter string // the table of nftables, family inet
	Routes uint32 // the table of routes
	Device string // the interface
}

// groups is a table of constants: the kernel's senders of news. A kernel without IPv6 has its
// groups all the same.
var groups = map[int][]uint32{
	unix.NETLINK_NETFILTER: {unix.NFNLGRP_NFTABLES},
	unix.NETLINK_ROUTE: {
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF,
	},
}

// Changes listens in the network namespace of the calling thread until ctx ends. The channel
// holds one word at most, however much happened since it was taken. It is closed when the kernel
// can't be listened to any more.
func Changes(ctx context.Context, of Of) (<-chan struct{}, error) {
	out, ended := make(chan struct{}, 1), make(chan struct{}, len(groups))
	var sockets []*netlink.Conn
	for family, list := range groups {
		c, err := join(family, list)
		if err != nil {
			for _, open := range sockets {
				err = errors.Join(err, open.Close())
			}
			return nil, err
		}
		sockets = append(sockets, c)
	}
	for _, c := range sockets {
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		go func() {
			defer func() { stop(); ended <- struct{}{} }()
			listen(c, of, out)
		}()
	}
	go func() {
		<-ended // one that is deaf is enough
		for _, c := range sockets {
			_ = c.Close() // ends the other one, too
		}
		for range len(sockets) - 1 {
			<-ended
		}
		close(out)
	}()
	return out, nil
}

func join(family int, list []uint32) (*netlink.Conn, error) {
	c, err := netlink.Dial(family, nil)
	if err != nil {
		return nil, fmt.Errorf("listen to the kernel: %w", err)
	}
	for _, g := range list {
		if err = c.JoinGroup(g); err != nil {
			return nil, errors.Join(fmt.Errorf("listen to the kernel: group %d: %w", g, err), c.Close())
		}
	}
	return c, nil
}

// listen returns when the socket is closed or broken. News that were lost are news.
func listen(c *netlink.Conn, of Of, out chan<- struct{}) {
	for {
		list, err := c.Receive()
		concerned := errors.Is(err, unix.ENOBUFS)
		if err != nil && !concerned {
			return
		}
		for _, m := range list {
			concerned = concerned || of.Concerned(m)
		}
		if !concerned {
			continue
		}
		select {
		case out <- struct{}{}:
		default:
		}
	}
}

// Concerned says whether a message may be about the enclave. What is not understood may be.
func (of Of) Concerned(m netlink.Message) bool {
	switch kind := uint16(m.Header.Type); {
	case kind>>8 == unix.NFNL_SUBSYS_NFTABLES:
		return of.filter(kind&0xff, m.Data)
	case kind == unix.RTM_NEWROUTE || kind == unix.RTM_DELROUTE:
		table, ok := attribute(m.Data, unix.SizeofRtMsg, unix.RTA_TABLE)
		return !ok || len(table) != 4 || binary.NativeEndian.Uint32(table) == of.Routes
	case kind == unix.RTM_NEWLINK || kind == unix.RTM_DELLINK:
		name, ok := attribute(m.Data, unix.SizeofIfInfomsg, unix.IFLA_IFNAME)
		return !ok || string(bytes.TrimRight(name, "\x00")) == of.Device
	}
	return true
}

// Every message about nftables names its table in the first attribute, but for the one that ends
// a transaction.
const (
	sizeofNfgenmsg = 4
	nameOfTable    = 1
)

func (of Of) filter(kind uint16, data []byte) bool {
	if kind == unix.NFT_MSG_NEWGEN {
		return false
	}
	table, ok := attribute(data, sizeofNfgenmsg, nameOfTable)
	if !ok {
		return true
	}
	return data[0] == unix.NFPROTO_INET && string(bytes.TrimRight(table, "\x00")) == of.Filter
}

// attribute finds one behind a header of that size.
func attribute(data []byte, header int, kind uint16) ([]byte, bool) {
	if len(data) < header {
		return nil, false
	}
	list, err := netlink.UnmarshalAttributes(data[header:])
	if err != nil {
		return nil, false
	}
	const typeMask = 0x3fff
	for _, a := range list {
		if a.Type&typeMask == kind {
			return a.Data, true
		}
	}
	return nil, false
}
