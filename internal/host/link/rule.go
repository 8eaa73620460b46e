package link

import (
	"context"
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// AddRule implements mesh.Rules.
func (Kernel) AddRule(ctx context.Context, r mesh.Rule) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return send(r, unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, unix.RTN_UNICAST)
}

// DeleteRule implements mesh.Rules.
func (Kernel) DeleteRule(ctx context.Context, r mesh.Rule) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return send(r, unix.RTM_DELRULE, unix.NLM_F_ACK, unix.RTN_UNSPEC)
}

// send makes one message of a rule, as rtnetlink(7) has it and <linux/fib_rules.h>: all numbers in the machine's order.
// The netlink package's own writes a protocol of four bytes, about which the kernel complains in its log each time.
func send(r mesh.Rule, what, flags int, action uint8) error {
	request := nl.NewNetlinkRequest(what, flags)
	m := nl.NewRtMsg()
	m.Family, m.Protocol, m.Table, m.Type = unix.AF_INET, unix.RTPROT_BOOT, unix.RT_TABLE_UNSPEC, action
	if r.Family == mesh.IPv6 {
		m.Family = unix.AF_INET6
	}
	request.AddData(m)
	add := func(attribute int, value ...uint32) {
		var b []byte
		for _, v := range value {
			b = binary.NativeEndian.AppendUint32(b, v)
		}
		request.AddData(nl.NewRtAttr(attribute, b))
	}
	add(nl.FRA_PRIORITY, uint32(r.Priority))
	add(nl.FRA_FWMARK, r.Mark)
	add(nl.FRA_FWMASK, r.Mask)
	add(nl.FRA_TABLE, r.Table)
	if r.UIDs.Count != 0 {
		add(nl.FRA_UID_RANGE, r.UIDs.Start, r.UIDs.Last())
	}
	if r.TCPPort != 0 {
		request.AddData(nl.NewRtAttr(nl.FRA_IP_PROTO, []byte{unix.IPPROTO_TCP}))
		port := binary.NativeEndian.AppendUint16(nil, r.TCPPort)
		request.AddData(nl.NewRtAttr(nl.FRA_DPORT_RANGE, append(port, port...)))
	}
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
