package door

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

// fenceInput is what the site and the roster say, in the fence's words.
func (n *node) fenceInput() (fence.Input, error) {
	c := n.config
	verifier, err := verifierServer(c.Verifier.Address)
	if err != nil {
		return fence.Input{}, err
	}
	submitHost := c.Slurm.SubmitHost(n.header.SubmitHost)
	return fence.Input{
		Key: n.job.JobKey, UID: n.job.UID, SubUIDs: n.subuids, UIDMin: uidMin,
		Device: mesh.Name(n.job.Job), FwMark: mesh.FwMark(n.job.Job), Mark: mesh.Mark(n.job.Job),
		WireGuardPort: n.own.Endpoint.Port(), Userspace: n.device.Link.Driver == mesh.DriverKeeper,
		Slurmctld:   fence.Server{Addresses: c.Slurm.Slurmctld.Addresses, Port: c.Slurm.Slurmctld.Port},
		Slurmd:      fence.Server{Addresses: n.addresses(), Port: c.Slurm.SlurmdPort},
		Enclaved:    verifier,
		SubmitHost:  submitHost,
		SrunPorts:   srunPorts(c),
		Interactive: c.Network.Interactive == "allow" && len(submitHost) > 0,
		Services:    fenceServices(c.Network.Services), Inbound: fenceServices(c.Network.Inbound),
		Groups: c.Network.Groups,
	}, nil
}

// ClosedFence is the fence between jobs: nobody's traffic, slurmd reachable, and the way by which
// an interactive job hears why it was refused.
func ClosedFence(c config.Config) (fence.Table, error) {
	slurmd := fence.Service{Name: "slurmd", Proto: "tcp", Port: c.Slurm.SlurmdPort}
	streams := fence.Streams{Ports: srunPorts(c)}
	if c.Network.Interactive == "allow" {
		for _, h := range c.Slurm.SubmitHosts {
			streams.Hosts = append(streams.Hosts, h.Addresses...)
		}
	}
	return fence.Closed(uidMin, append(fenceServices(c.Network.Inbound), slurmd), streams, c.Network.Groups...)
}

func srunPorts(c config.Config) fence.PortRange {
	return fence.PortRange{First: c.Slurm.SrunPorts.First, Last: c.Slurm.SrunPorts.Last}
}

// verifierServer wants an address: the fence asks no name service.
func verifierServer(address string) (fence.Server, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fence.Server{}, nodeError("E002", "correct "+ConfigFile, "verifier.address: %s", err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fence.Server{}, nodeError("E002", "correct "+ConfigFile, "verifier.address: %s", err)
	}
	if a, parseErr := netip.ParseAddr(host); parseErr == nil {
		return fence.Server{Addresses: []netip.Addr{a}, Port: uint16(number)}, nil
	}
	names, err := net.LookupHost(host)
	if err != nil {
		return fence.Server{}, nodeError("E002", "write an address, or a name that /etc/hosts has", "verifier.address: %s", err)
	}
	s := fence.Server{Port: uint16(number)}
	for _, name := range names {
		a, err := netip.ParseAddr(name)
		if err != nil {
			return fence.Server{}, nodeError("E002", "correct "+ConfigFile, "verifier.address: %s", err)
		}
		s.Addresses = append(s.Addresses, a)
	}
	return s, nil
}

func fenceServices(list []config.Service) []fence.Service {
	var out []fence.Service
	for _, s := range list {
		out = append(out, fence.Service{Name: s.Name, Proto: s.Proto, Port: s.Port, Addresses: s.Addresses})
	}
	return out
}

// viewConfig is what the job's view of data is on this node, whatever the job.
func viewConfig(c config.Config) subtree.Config {
	s := c.Storage
	size := uint64(s.TmpSize)
	view := subtree.Config{
		Root: s.Source, FSType: s.FSType, Magic: s.Magic(), Public: s.Public, Visible: s.Visible,
		Temps: []subtree.Temp{
			{Path: "/tmp", Size: size / 2}, {Path: "/var/tmp", Size: size / 4}, {Path: "/dev/shm", Size: size / 4},
		},
		Covers: []string{"/dev/infiniband"},
	}
	if s.Backend == subtree.BackendLustre {
		view.Backend, view.Source, view.Options, view.Canary = s.Backend, s.Lustre.Source, s.Lustre.Options, s.Lustre.Canary
		view.Root, view.Least = "", s.Assurance
	}
	if s.Home.Own != "site" {
		view.Home = s.Home.Public
	}
	return view
}

// view is the job's own: its tenant's subtree from the signed roster.
func (n *node) view() (subtree.Plan, error) {
	r := subtree.Request{Job: n.job.JobKey, UID: n.job.UID, SubUIDs: n.subuids, Subtree: n.header.Subtree, FID: n.header.RootFID}
	switch n.config.Storage.Home.Own {
	case "user":
		r.HomeKeep = n.job.User
	case "tenant":
		r.HomeTree = "home"
	}
	plan, err := subtree.NewPlan(viewConfig(n.config), r)
	if err != nil {
		return subtree.Plan{}, fmt.Errorf("plan view: %w", err)
	}
	return plan, nil
}
