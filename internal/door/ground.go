package door

import (
	"context"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/mount"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

func (n *node) ground(context.Context) error { return nil }

func (n *node) leftovers(context.Context) ([]enclave.Check, error) { return nil, nil }

func subtreeRoom() subtree.Room {
	return subtree.Room{Mounter: mount.Host{}, Observer: mount.Host{}, Holders: mount.Host{}}
}
