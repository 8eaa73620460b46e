package filter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
)

var _ fence.Flows = Kernel{}

const ctaMarkMask = 21 // CTA_MARK_MASK of linux/netfilter/nfnetlink_conntrack.h

// Count implements fence.Flows.
func (Kernel) Count(context.Context) (flows, most int, err error) {
	for name, to := range map[string]*int{"count": &flows, "max": &most} {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_" + name)
		if err != nil {
			return 0, 0, err
		}
		if *to, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			return 0, 0, fmt.Errorf("read nf_conntrack_%s: %w", name, err)
		}
	}
	return flows, most, nil
}

// Forget implements fence.Flows. The kernel looks for the marks and gives a page of flows at a time, each of which is deleted
// before the next: a table can hold millions. A flow's message, sent back as it came, names what
// is to be deleted; its id is in it, so that a flow that has taken its addresses meanwhile stays [ctnetlink_del_conntrack
// of linux/net/netfilter/nf_conntrack_netlink.c].
func (Kernel) Forget(ctx context.Context, mark, mask uint32, over func(fence.Flow) bool) (int, error) {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, fmt.Errorf("open ctnetlink: %w", err)
	}
	defer s.Close()
	if err = s.SetReceiveTimeout(&nl.SocketTimeoutTv); err != nil {
		return 0, fmt.Errorf("open ctnetlink: %w", err)
	}
	list := conntrack(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	list.AddData(nl.NewRtAttr(nl.CTA_MARK, binary.BigEndian.AppendUint32(nil, mark)))
	list.AddData(nl.NewRtAttr(ctaMarkMask, binary.BigEndian.AppendUint32(nil, mask)))
	gone, failed := 0, error(nil)
	err = list.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(message []byte) bool {
		var f fence.Flow
		if f, failed = parseFlow(message); failed == nil && f.Mark&mask == mark && over(f) {
			if failed = deleteFlow(s, message); failed == nil {
				gone++
			}
		}
		failed = errors.Join(failed, ctx.Err())
		return failed == nil
	})
	if err != nil {
		return gone, errors.Join(fmt.Errorf("list conntrack: %w", err), failed)
	}
	return gone, failed
}

// deleteFlow deletes the flow of a message, if it is still there.
func deleteFlow(s *nl.NetlinkSocket, message []byte) error {
	r := conntrack(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: s}}
	r.Data, r.RawData = nil, message
	if _, err := r.Execute(unix.NETLINK_NETFILTER, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete flow: %w", err)
	}
	return nil
}

// conntrack is a message to ctnetlink about flows of either family.
func conntrack(what, flags int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|what, flags)
	r.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	return r
}

// parseFlow reads a message about a flow: a struct nfgenmsg and attributes, numbers in the network's byte order
// [linux/netfilter/nfnetlink_conntrack.h].
func parseFlow(message []byte) (fence.Flow, error) {
	var f fence.Flow
	if len(message) < nl.SizeofNfgenmsg {
		return f, fmt.Errorf("read flow: message of %d bytes", len(message))
	}
	d, err := netlink.NewAttributeDecoder(message[nl.SizeofNfgenmsg:])
	if err != nil {
		return f, fmt.Errorf("read flow: %w", err)
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		switch d.Type() {
		case nl.CTA_MARK:
			f.Mark = d.Uint32()
		case nl.CTA_TUPLE_ORIG:
			d.Nested(byteAt(&f.Protocol, nl.CTA_TUPLE_PROTO, nl.CTA_PROTO_NUM))
		case nl.CTA_PROTOINFO:
			d.Nested(byteAt(&f.TCPState, nl.CTA_PROTOINFO_TCP, nl.CTA_PROTOINFO_TCP_STATE))
		}
	}
	if err := d.Err(); err != nil {
		return f, fmt.Errorf("read flow: %w", err)
	}
	return f, nil
}

// byteAt reads the byte at the end of a path of nested attributes.
func byteAt(to *uint8, path ...uint16) func(*netlink.AttributeDecoder) error {
	return func(d *netlink.AttributeDecoder) error {
		for d.Next() {
			switch {
			case d.Type() != path[0]:
			case len(path) == 1:
				*to = d.Uint8()
			default:
				d.Nested(byteAt(to, path[1:]...))
			}
		}
		return nil
	}
}
