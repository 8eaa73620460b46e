package survey

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/closed"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/host/ipc"
	"github.com/slurm-enclave/slurm-enclave/internal/host/leftover"
	"github.com/slurm-enclave/slurm-enclave/internal/host/mount"
	"github.com/slurm-enclave/slurm-enclave/internal/host/process"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

// Closed lists the part of a closed state that is not the network's.
type Closed struct {
	View   subtree.Config
	Run    string                   // /run/slurm-enclave
	Ignore []string                 // names in Run that may be there: the journal that is being closed
	Least  uint32                   // the least user id of people
	Allow  []enclave.UIDRange       // people who may be on the node
	Places func() ([]string, error) // where people can leave files
	Ports  []uint16                 // UDP ports of tunnels
}

// controlDirectory is wireguard-go's place for control sockets.
const controlDirectory = "/var/run/wireguard"

// Sources fills in the kinds that are not the network's.
func (c Closed) Sources(network closed.Sources) closed.Sources {
	network.Mounts, network.Processes, network.Files, network.IPC = c.mounts, c.processes, c.files, c.ipc
	network.Sockets = Sockets{Least: c.Least, Allow: c.Allow, Ports: c.Ports, Control: controlDirectory}.List
	return network
}

func (c Closed) mounts(ctx context.Context) ([]string, error) {
	mounts, err := mount.Host{}.Mounts(ctx)
	if err != nil {
		return nil, err
	}
	return subtree.Watched(c.View, mounts), nil
}

// keeperName is what the kernel calls a keeper's process.
const keeperName = "enclave-keeper"

// processes leaves the process ids out: a daemon that was started anew is no difference.
func (c Closed) processes(context.Context) ([]string, error) {
	all, err := process.List()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, p := range foreign(all, c.Least, c.Allow) {
		lines = append(lines, fmt.Sprintf("uid %d %q", p.UID, p.Title))
	}
	for _, p := range all {
		if p.UID == 0 && p.Name == keeperName {
			lines = append(lines, fmt.Sprintf("uid 0 %q", p.Name))
		}
	}
	return lines, nil
}

// files are those in Run, by their relative names, and what people have in Places.
func (c Closed) files(ctx context.Context) ([]string, error) {
	names, err := file.Tree(c.Run)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(c.Ignore, func(i string) bool { return name == i || strings.HasPrefix(name, i+"/") })
	})
	if c.Places == nil {
		return nil, errors.New("nobody says where people can leave files")
	}
	places, err := c.Places()
	if err != nil {
		return nil, err
	}
	left, err := leftover.List(ctx, places, leftover.Owner{UIDs: People(c.Least)})
	return append(names, left...), err
}

// People are all ids from least on that are no daemon's.
func People(least uint32) []enclave.UIDRange {
	ids, next := []enclave.UIDRange{}, least
	for _, d := range process.Daemons() {
		ids = append(ids, enclave.UIDRange{Start: next, Count: d.Start - next})
		next = d.Start + d.Count
	}
	return append(ids, enclave.UIDRange{Start: next, Count: math.MaxUint32 - next})
}

func (c Closed) ipc(context.Context) ([]string, error) {
	objects, err := ipc.List([]enclave.UIDRange{{Start: c.Least, Count: math.MaxUint32 - c.Least}})
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, o := range objects {
		lines = append(lines, o.String())
	}
	return lines, nil
}

// Record is the file of the closed state.
type Record struct {
	Trust file.Trust
	Path  string // /var/lib/slurm-enclave/closed.json
}

// Read reads it, if it is root's alone.
func (r Record) Read() ([]byte, error) { return r.Trust.Read(r.Path, fileLimit) }

// Write replaces it.
func (r Record) Write(b []byte) error { return r.Trust.Replace(r.Path, b) }
