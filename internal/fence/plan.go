// Package fence plans and raises the packet filter around one job on one node.
//
// The mesh (package mesh) carries what belongs into the tunnel; the fence sees to it that
// nothing of the job goes anywhere else and that nothing from outside gets in. Plan is pure
// and gives a Table that prints itself in nft's syntax; Up replaces the kernel's table in one
// transaction and reads it back; Down needs no Up before it. The prolog and the epilog call
// them, and Closed is what stands on the node between jobs.
//
// The fence judges IP packets by user, address, port and mark. It does not see RDMA, AF_SMC or
// AF_VSOCK, which the prolog closes otherwise, and it does not hold root.
package fence

import (
	"fmt"
	"net/netip"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Codes of this room's refusals.
const (
	CodePlan     enclave.Code = "E410" // the job's data or the service lists can't make a fence
	CodeReadBack enclave.Code = "E411" // the kernel does not hold the table that was put in
	CodeLeftover enclave.Code = "E412" // the table is still there after Down
)

// Server is a daemon of Slurm's or ours: where it runs and the port it listens on.
type Server struct {
	Addresses []netip.Addr
	Port      uint16
}

// PortRange is a run of ports, both ends within.
type PortRange struct {
	First, Last uint16
}

// Service is a line of the policy's service lists.
type Service struct {
	Name      string         `json:"name" yaml:"name"`
	Proto     string         `json:"proto" yaml:"proto"` // tcp or udp
	Port      uint16         `json:"port" yaml:"port"`
	Addresses []netip.Prefix `json:"addresses" yaml:"addresses"` // of an inbound service: none means anybody
}

// Input is what a plan is made of.
type Input struct {
	Key           enclave.JobKey
	UID           uint32             // the job's user
	SubUIDs       []enclave.UIDRange // the user's lines of /etc/subuid
	UIDMin        uint32             // users from here on are people, below are daemons
	Device        string             // the job's tunnel
	FwMark        uint32             // W: WireGuard's own packets
	Mark          uint32             // M: flows that belong into the tunnel
	WireGuardPort uint16
	Userspace     bool   // WireGuard's packets are the keeper's, a program of root's, and not the kernel's
	Slurmctld     Server // the controllers
	Slurmd        Server // all nodes of the job
	Enclaved      Server // the verifier
	SubmitHost    []netip.Addr
	SrunPorts     PortRange    // SrunPortRange of slurm.conf
	Interactive   bool         // may the job's steps talk to srun on the submit host
	Services      []Service    // what the job's user may reach outside the tunnel
	Inbound       []Service    // what others may reach here: ssh, the site's monitoring
	Groups        []netip.Addr // multicast groups of the node's daemons
}

// Name is the table of a job.
func Name(job uint32) string { return fmt.Sprintf("enclave_%d", job) }

// Plan says what the fence of a job is.
func Plan(in Input) (Table, error) {
	if err := check(in); err != nil {
		return Table{}, enclave.Refuse(CodePlan, enclave.FaultPolicy, "plan fence of job %d: %s", in.Key.Job, err)
	}
	p := &plan{in: in}
	chains := append([]Chain{p.notrackIn(), p.notrackOut(), p.pre(), p.calls(), p.outRoute()}, groups(in.Groups, CounterGroups)...)
	chains = append(chains,
		p.user(), p.out(), p.outMark(), p.errors4(), p.errors6(), p.input(), p.forward(), p.post())
	return Table{Name: Name(in.Key.Job), Counters: counterNames(), Sets: p.sets, Chains: chains}, nil
}

func check(in Input) error {
	switch {
	case in.Key.Job == 0:
		return fmt.Errorf("job id 0")
	case in.UIDMin == 0:
		return fmt.Errorf("smallest user id is 0: root would be fenced")
	case in.UID < in.UIDMin:
		return fmt.Errorf("user %d is below %d: daemons own no jobs", in.UID, in.UIDMin)
	case in.Device == "" || len(in.Device) > 15:
		return fmt.Errorf("device name %q", in.Device)
	case in.Mark&MarkMask != MarkFamily:
		return fmt.Errorf("mark %#x is not of the family %#x", in.Mark, MarkFamily)
	case in.FwMark == 0 || in.Mark == 0 || in.FwMark == in.Mark:
		return fmt.Errorf("marks %#x and %#x must differ and not be 0", in.FwMark, in.Mark)
	case in.WireGuardPort == 0:
		return fmt.Errorf("the port of WireGuard is 0")
	case !in.SrunPorts.valid():
		return fmt.Errorf("SrunPortRange %s", in.SrunPorts)
	}
	for _, r := range users(in) {
		if err := r.Check(); err != nil {
			return err
		}
		if r.Start < in.UIDMin {
			return fmt.Errorf("uid range %s is below %d", r, in.UIDMin)
		}
	}
	for name, s := range map[string]Server{"slurmctld": in.Slurmctld, "slurmd": in.Slurmd, "enclaved": in.Enclaved} {
		if s.Port == 0 || len(s.Addresses) == 0 {
			return fmt.Errorf("%s: port or addresses missing", name)
		}
	}
	if err := checkServices(in.Services, true); err != nil {
		return err
	}
	if err := checkServices(in.Inbound, false); err != nil {
		return err
	}
	return checkGroups(in.Groups)
}

func checkGroups(list []netip.Addr) error {
	for _, a := range list {
		if !a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("group %s is no multicast address", a)
		}
	}
	return nil
}

// users is every user id of the job.
func users(in Input) []enclave.UIDRange {
	return append([]enclave.UIDRange{{Start: in.UID, Count: 1}}, in.SubUIDs...)
}

func checkServices(list []Service, addressed bool) error {
	for _, s := range list {
		if s.Proto != "tcp" && s.Proto != "udp" {
			return fmt.Errorf("service %s: protocol %q is neither tcp nor udp", s.Name, s.Proto)
		}
		if s.Port == 0 {
			return fmt.Errorf("service %s: port 0", s.Name)
		}
		// An outgoing service without addresses would be a hole to everywhere.
		if addressed && len(s.Addresses) == 0 {
			return fmt.Errorf("service %s: no addresses", s.Name)
		}
		for _, p := range s.Addresses {
			switch {
			case !p.IsValid() || p.Addr().Is4In6():
				return fmt.Errorf("service %s: address %s", s.Name, p)
			case addressed && p.Bits() == 0:
				return fmt.Errorf("service %s: %s is everywhere", s.Name, p)
			}
		}
	}
	return nil
}
