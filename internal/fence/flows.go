package fence

import (
	"context"
	"fmt"
)

// MarkOutside is the connection mark of the flows that a job's users begin outside the tunnel, on the loopback device or
// to a listed service. It is the mark of WireGuard's own packets without a job: where a rule of the
// site's restores a packet's mark from the connection's, no packet becomes one of WireGuard's.
const MarkOutside = 0xa8000000

// marked are MarkOutside and MarkFamily under one mask.
const (
	marked     = MarkOutside
	markedMask = 0xf8000000
)

// Flow is one that conntrack knows of.
type Flow struct {
	Mark     uint32
	Protocol uint8 // IANA's number
	TCPState uint8 // enum tcp_conntrack of linux/netfilter/nf_conntrack_tcp.h; 0 where it is not TCP
}

// Flows is the node's conntrack.
type Flows interface {
	// Count says how many flows it knows of, and how many it takes; 0 is no limit.
	Count(ctx context.Context) (flows, most int, err error)
	// Forget deletes the flows whose mark is mark in the bits of mask, and of which over says yes. It says how many
	// they were. One that ends meanwhile is no error.
	Forget(ctx context.Context, mark, mask uint32, over func(Flow) bool) (int, error)
}

// crowded is the part of the table, one in so many, up to which flows are left to end by themselves: to look through the
// table takes a tenth of the time that a node has for its teardown.
const crowded = 8

// Forget has conntrack forget what a job has left, when its processes are gone and the closed fence stands. A user could
// else leave the table full, and the node without new connections until the kernel forgets by itself: two minutes, or
// what the site sets. Of a table with much room nothing is deleted.
func Forget(ctx context.Context, k Flows) (int, error) {
	flows, most, err := k.Count(ctx)
	if err != nil {
		return 0, fmt.Errorf("fence: count flows: %w", err)
	}
	if flows < most/crowded {
		return 0, nil
	}
	n, err := k.Forget(ctx, marked, markedMask, over)
	if err != nil {
		return n, fmt.Errorf("fence: forget the job's flows: %w", err)
	}
	return n, nil
}

// States of a TCP flow that end it.
const (
	tcpTimeWait = 7
	tcpClose    = 8
)

// over says that nothing is sent of a flow any more, and that it may go. A connection of the tunnel's never may: the kernel goes
// on to send what a killed process has left in its socket, and the closed fence drops it by the flow's mark. The
// flow's state is no proof that there is nothing left: conntrack believes any acknowledgement and any reset. One outside
// the tunnel may be forgotten when it is over; before that, its service gets the rest.
func over(f Flow) bool {
	if f.Protocol != protoTCP {
		return true
	}
	return f.Mark == MarkOutside && (f.TCPState == tcpTimeWait || f.TCPState == tcpClose)
}
