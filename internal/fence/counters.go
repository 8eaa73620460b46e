package fence

import (
	"context"
	"fmt"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Names of the counters. CounterOutside is the first: the kernel lists counters in this order,
// so it is read before those that it is compared with.
const (
	CounterOutside    = "outside"
	CounterRejected   = "rejected"
	CounterDropped    = "dropped_in"
	CounterInjected   = "injected"
	CounterEscaped    = "escaped"
	CounterForwarded  = "forwarded"
	CounterGroups     = "groups"
	CounterLoopback   = "loopback"
	CounterTunnel     = "tunnel"
	CounterSlurmctld  = "slurmctld"
	CounterSlurmd     = "slurmd"
	CounterSubmitHost = "submit_host"
	CounterServices   = "services"
	CounterReplies    = "replies"
	CounterWireGuard  = "wireguard"
)

func counterNames() []string {
	return []string{
		CounterOutside, CounterRejected, CounterDropped, CounterInjected, CounterEscaped, CounterForwarded, CounterGroups,
		CounterLoopback, CounterTunnel, CounterSlurmctld, CounterSlurmd, CounterSubmitHost, CounterServices,
		CounterReplies, CounterWireGuard,
	}
}

// Count is what a counter says.
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Counters are what the fence of a job has counted so far.
type Counters struct {
	Rejected   Count `json:"rejected"`    // packets of people that were not let out
	Dropped    Count `json:"dropped"`     // packets from outside that were not let in
	Injected   Count `json:"injected"`    // of them, those that claimed to belong to a flow of the tunnel
	Escaped    Count `json:"escaped"`     // packets of the tunnel's flows that would have left beside it
	Forwarded  Count `json:"forwarded"`   // packets that the node was to pass on: of network namespaces, of other hosts
	Groups     Count `json:"groups"`      // reports of multicast groups that are not the node's own
	Loopback   Count `json:"loopback"`    // let out: to the node itself
	Tunnel     Count `json:"tunnel"`      // let out: into the tunnel
	Slurmctld  Count `json:"slurmctld"`   // let out: to the controllers
	Slurmd     Count `json:"slurmd"`      // let out: to the nodes' slurmd
	SubmitHost Count `json:"submit_host"` // let out: to srun on the submit host
	Services   Count `json:"services"`    // let out: to the policy's services
	Replies    Count `json:"replies"`     // let out: answers to what came in
	WireGuard  Count `json:"wireguard"`   // the tunnel's own packets
	Outside    Count `json:"outside"`     // all packets of the job's users that left outside the tunnel
}

// Unlisted is what of the job's users left outside the tunnel and is none of the listed ways
// out. The fence is built so that it is zero; this is measured behind the fence, not assumed.
func (c Counters) Unlisted() Count {
	u := c.Outside
	for _, listed := range []Count{c.Slurmctld, c.Slurmd, c.SubmitHost, c.Services, c.Replies} {
		u.Packets -= min(u.Packets, listed.Packets)
		u.Bytes -= min(u.Bytes, listed.Bytes)
	}
	return u
}

// ReadCounters reads the counters of a job's fence. A counter that is not there is an error: a
// fence that is not there has counted nothing, and nobody may read that as "nothing happened".
func ReadCounters(ctx context.Context, k Kernel, job uint32) (Counters, error) {
	have, err := k.Counters(ctx, Name(job))
	if err != nil {
		return Counters{}, fmt.Errorf("fence: read counters of %s: %w", Name(job), err)
	}
	var c Counters
	for name, to := range map[string]*Count{
		CounterOutside: &c.Outside, CounterRejected: &c.Rejected, CounterDropped: &c.Dropped,
		CounterInjected: &c.Injected, CounterEscaped: &c.Escaped, CounterForwarded: &c.Forwarded, CounterGroups: &c.Groups,
		CounterLoopback: &c.Loopback, CounterTunnel: &c.Tunnel, CounterSlurmctld: &c.Slurmctld,
		CounterSlurmd: &c.Slurmd, CounterSubmitHost: &c.SubmitHost, CounterServices: &c.Services,
		CounterReplies: &c.Replies, CounterWireGuard: &c.WireGuard,
	} {
		count, ok := have[name]
		if !ok {
			return Counters{}, enclave.Refuse(CodeReadBack, enclave.FaultNode, "table %s has no counter %s", Name(job), name)
		}
		*to = count
	}
	return c, nil
}
