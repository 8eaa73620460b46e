package door

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/host/spawn"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/stage"
)

// rooms is the order of an enclave on a node, for both directions: the prolog opens them from
// the top, the epilog closes them from the bottom. The job's processes go first, for each room
// above would be held open by them. The fence goes before the mesh and the closed fence takes
// its place in the same moment, so that no packet of a process that was missed leaves in clear.
// Files are looked for when the view no longer covers the node's own directories.
func (n *node) rooms() []stage.Stage {
	return []stage.Stage{
		n.journaled("mesh", n.meshUp, n.meshDown),
		n.journaled("fence", n.fenceUp, n.fenceDown),
		n.journaled("files", nil, n.filesDown),
		n.journaled("subtree", n.subtreeUp, n.subtreeDown),
		n.journaled("ipc", n.ipcUp, n.ipcDown),
		n.journaled("processes", nil, n.processesDown),
	}
}

// journaled writes the intent before the act. Going down needs no journal: one that can't be
// written must not keep the room open.
func (n *node) journaled(name string, up, down func(context.Context) error) stage.Stage {
	return stage.Stage{
		Name: name,
		Up: func(ctx context.Context) error {
			if err := n.journal.Intent(name, ""); err != nil {
				return nodeError("E249", "check space and permissions of "+RunDir, "%s", err)
			}
			if up != nil {
				if err := n.timed(name, func() error { return up(ctx) }); err != nil {
					return err
				}
			}
			return n.journal.Done(name)
		},
		Down: func(ctx context.Context) error {
			err := n.timed(name+"_down", func() error { return down(ctx) })
			if err != nil || n.journal == nil {
				return err
			}
			if note := n.journal.Undone(name); note != nil {
				n.log.WithError(note).Warn("journal not written")
			}
			return nil
		},
	}
}

// meshUp starts the keeper first: it holds the key, and the device where the kernel has none.
func (n *node) meshUp(ctx context.Context) error {
	kernel := link.Kernel{}.Mesh()
	var endpoints []netip.Addr
	for _, p := range n.peers {
		endpoints = append(endpoints, p.Endpoint.Addr())
	}
	mtu := ethernetMTU // of a job that has no peers
	if len(endpoints) > 0 {
		var err error
		if mtu, err = link.UnderlayMTU(endpoints); err != nil {
			return err
		}
	}
	driver, err := mesh.Mode(ctx, kernel)
	if err != nil {
		return err
	}
	n.device, err = mesh.Plan(mesh.Input{
		Key: n.job.JobKey, UID: n.job.UID, SubUIDs: n.subuids, Own: n.own, Peers: n.peers, PrivateKey: n.keys.WireGuard(),
		ListenPort: n.own.Endpoint.Port(), SlurmdPort: n.config.Slurm.SlurmdPort, MTU: mesh.TunnelMTU(mtu), Driver: driver,
	})
	if err != nil {
		return err
	}
	if err = n.keep(ctx, driver); err != nil {
		return err
	}
	return mesh.Up(ctx, kernel, n.device)
}

// keep starts the keeper with all it needs until the job's end; it gets its own copy of the keys.
func (n *node) keep(ctx context.Context, driver mesh.Driver) error {
	pin, err := n.config.Verifier.KeyDigest()
	if err != nil {
		return err
	}
	keys, err := n.keys.Secret()
	if err != nil {
		return err
	}
	defer keys.Wipe()
	n.keeper, err = spawn.Keeper(ctx, KeeperPath, keeper.Config{
		Key: n.job.JobKey, Node: n.name, Device: n.device.Link.Name, MTU: n.device.Link.MTU, Userspace: driver == mesh.DriverKeeper,
		Directory: n.directory(), Gate: n.gate, Expires: n.until, Keys: keys,
		Verifier: n.config.Verifier.Address, Pin: pin, Epoch: n.header.Epoch, Peers: n.leaves,
	})
	return err
}

const ethernetMTU = 1500

func (n *node) meshDown(ctx context.Context) error {
	return errors.Join(
		spawn.StopKeeper(ctx, n.directory()),
		mesh.Down(ctx, link.Kernel{}.Mesh(), n.job.Job))
}

// fenceUp replaces the closed fence, which stands between jobs, in one transaction.
func (n *node) fenceUp(ctx context.Context) error {
	in, err := n.fenceInput()
	if err != nil {
		return err
	}
	if n.table, err = fence.Plan(in); err != nil {
		return err
	}
	return fence.Up(ctx, filter.Kernel{}, n.table, fence.ClosedName)
}

// walls are what the keeper watches for as long as the job runs.
func (n *node) walls() (keeper.Walls, error) {
	closed, err := ClosedFence(n.config)
	return keeper.Walls{Mesh: n.device.Held(), Fence: n.table, Closed: closed}, err
}

// forgetPatience is what a user's flows may take of the epilog's time. On the lab's machine, with two nodes at it, 220,000 of
// them took 5 s.
const forgetPatience = 15 * time.Second

func (n *node) fenceDown(ctx context.Context) error {
	closed, err := ClosedFence(n.config)
	if err != nil {
		return err
	}
	// It reads back that the job's is gone.
	if err = fence.Up(ctx, filter.Kernel{}, closed, fence.Name(n.job.Job)); err != nil {
		return errors.Join(err, fence.Down(ctx, filter.Kernel{}, n.job.Job))
	}
	ctx, cancel := context.WithTimeout(ctx, forgetPatience)
	defer cancel()
	if _, err = fence.Forget(ctx, filter.Kernel{}); err != nil {
		n.log.WithError(err).Warn("conntrack keeps the job's flows until it forgets them by itself")
	}
	return nil
}

func (n *node) subtreeUp(ctx context.Context) error {
	plan, err := n.view()
	if err != nil {
		return err
	}
	if n.config.Storage.Namespaced() {
		return n.namespaceUp(ctx, plan)
	}
	if err = subtreeRoom().Up(ctx, plan); err != nil {
		return err
	}
	n.assurance, err = subtreeRoom().Assurance(ctx, plan)
	return err
}

// subtreeDown takes down what is mounted, whoever's plan it was.
func (n *node) subtreeDown(ctx context.Context) error {
	plan := viewConfig(n.config).Leftovers()
	if len(n.uids()) > 0 {
		plan.UID, plan.SubUIDs = n.job.UID, n.subuids
	}
	err := errors.Join(subtreeRoom().Down(ctx, plan), n.unplan())
	if n.config.Storage.Namespaced() {
		err = errors.Join(err, n.namespaceDown(ctx, plan))
	}
	return err
}
