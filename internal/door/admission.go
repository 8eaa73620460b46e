package door

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/host/tunnel"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// admitted proves the tunnel to the ring's neighbours, waits at barrier 2, and stores GO. The
// neighbours' probes are answered until then: they may come up later than this node.
func (n *node) admitted(ctx context.Context) error {
	answering, stop := context.WithCancel(ctx)
	ended, listening := make(chan error, 1), make(chan struct{})
	asked := make(chan netip.Addr, 16)
	mark, token := mesh.Mark(n.job.Job), tunnel.Token(n.header.Root[:16])
	go func() {
		ended <- tunnel.Answer(answering, n.device.Link.Name, tunnel.Port, mark, token, func() { close(listening) }, asked)
	}()
	defer stop()
	select {
	case <-listening:
	case err := <-ended:
		return err
	}
	err := n.timed("probe", func() error {
		return n.unlessRefused(ctx, func(ctx context.Context) error {
			return tunnel.Probe(ctx, n.device.Link.Name, tunnel.Port, mark, token, n.device.Neighbours(n.own.Key), asked)
		})
	})
	if err != nil {
		return err
	}
	walls, err := n.walls()
	if err != nil {
		return err
	}
	var answer api.ReadyAnswer
	err = n.timed("barrier2", func() error {
		answer, err = n.client.Ready(ctx, api.ReadyRequest{
			NodeRequest: n.request(), PhasesMS: n.phases, Network: n.counted(ctx), Storage: n.storage(),
		})
		return heard(err)
	})
	if err != nil {
		return err
	}
	if err = n.timed("warm", func() error {
		return tunnel.Warm(ctx, n.device.Link.Name, tunnel.Port, mark, n.device.Pairs(n.own.Key), warmPace)
	}); err != nil {
		return err
	}
	// The keeper hears of GO when GO is there: what it then hears of the verifier may unlink it.
	g := n.admission(answer)
	if err = n.gate.WriteGo(g); err != nil {
		return err
	}
	return n.keeper.Grant(keeper.Grant{Go: g, Lifetime: answer.Lifetime, Renew: answer.Renew, Walls: walls})
}

// askAfter is how long a node waits for its neighbours before it asks whether they still come.
const askAfter = time.Second

// unlessRefused gives up what takes long when the start has been refused meanwhile: a neighbour
// whose prolog died answers no probe, and would be waited for until the deadline.
func (n *node) unlessRefused(ctx context.Context, act func(context.Context) error) error {
	acting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	late := time.AfterFunc(askAfter, func() {
		if err := n.client.Decision(acting, n.request()); err != nil && acting.Err() == nil {
			if _, ok := enclave.AsRefusal(err); ok {
				stop(heard(err))
			}
		}
	})
	defer late.Stop()
	err := act(acting)
	if err != nil && ctx.Err() == nil && acting.Err() != nil {
		return context.Cause(acting)
	}
	return err
}

// warmPace leaves a peer the time to answer a handshake before the next one of this node's.
const warmPace = 2 * time.Millisecond

func (n *node) admission(answer api.ReadyAnswer) gate.Go {
	now := uint64(boottime()) / 1e9
	env := []gate.Variable{
		{Name: "ENCLAVE_JOB", Value: n.job.Directory()},
		{Name: "ENCLAVE_TENANT", Value: n.header.Tenant},
		{Name: "ENCLAVE_VERDICT", Value: string(answer.Verdict)},
		{Name: "ENCLAVE_DATA", Value: n.config.Storage.Public},
		// PMIx servers would talk to each other on sockets of either uid, which no fence can tell apart.
		{Name: "SLURM_PMIX_DIRECT_CONN", Value: "false"},
	}
	if answer.Weak {
		env = append(env, gate.Variable{Name: "ENCLAVE_WEAK", Value: "1"})
	}
	return gate.Go{
		Job: n.job.Job, Restart: n.job.Restart, Boot: n.boot,
		Expires: min(n.until, now+uint64(answer.Lifetime)), Env: env,
	}
}

func (n *node) storage() api.Storage {
	s := n.config.Storage
	return api.Storage{
		Backend: s.Backend, Isolation: s.Isolation, Subtree: n.header.Subtree, Public: s.Public,
		Assurance: n.assurance, Transport: s.Transport, Visible: s.Visible,
	}
}

// counted is what fence and tunnel have counted. Numbers that can't be read are not zero: they
// are an error, and the report then has none from this node.
func (n *node) counted(ctx context.Context) api.Network {
	network, err := n.count(ctx)
	if err != nil {
		n.log.WithError(err).Warn("counters not read")
	}
	return network
}

func (n *node) count(ctx context.Context) (api.Network, error) {
	c, errFence := fence.ReadCounters(ctx, filter.Kernel{}, n.job.Job)
	state, errMesh := link.Kernel{}.State(ctx, mesh.Name(n.job.Job))
	if err := errors.Join(errFence, errMesh); err != nil {
		return api.Network{}, err
	}
	network := api.Network{
		Peers: uint32(len(state.Peers)), OutsideBytes: c.Unlisted().Bytes,
		Rejected: c.Rejected.Packets + c.Escaped.Packets + c.Forwarded.Packets + c.Groups.Packets, Dropped: c.Dropped.Packets + c.Injected.Packets,
	}
	for _, p := range state.Peers {
		network.TunnelBytes += uint64(max(p.Sent, 0))
	}
	return network, nil
}

// serviceError is for trouble that is neither the user's nor surely this node's.
func serviceError(code enclave.Code, err error) *enclave.Refusal {
	if r, ok := enclave.AsRefusal(err); ok {
		return r
	}
	return enclave.Refuse(code, enclave.FaultService, "%s", err)
}
