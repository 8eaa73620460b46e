// Package mesh plans and lays the tunnels between the nodes of one job.
//
// Plan is pure: it turns the affirmed peers into a Device, which says everything the kernel
// must hold (interface, peers, routes, policy rules) and prints itself as text. Up makes the
// kernel so and reads every part back; Down takes it away and needs no Up before it. The
// prolog and the epilog call them.
//
// The room decides what goes into the tunnel; it forbids nothing. Where the tunnel is not,
// packets of the job's user would leave in clear: the fence (package fence) stops those.
package mesh

import (
	"bytes"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Codes of this room's refusals.
const (
	CodePlan     enclave.Code = "E400" // the job's data can't make a mesh
	CodeAddress  enclave.Code = "E401" // an address that can't be in a mesh, or that two nodes claim
	CodeNoDevice enclave.Code = "E402" // the keeper has not made the userspace device
	CodeReadBack enclave.Code = "E403" // the kernel does not hold what was put in
	CodeLeftover enclave.Code = "E404" // something of the mesh is still there after Down
)

// Peer is another node of the job and the key that only the two of them share.
type Peer struct {
	enclave.Peer

	PSK enclave.Secret // 32 bytes
}

// Input is what a plan is made of.
type Input struct {
	Key        enclave.JobKey
	UID        uint32             // the job's user
	SubUIDs    []enclave.UIDRange // the user's lines of /etc/subuid
	Own        enclave.Peer       // this node
	Peers      []Peer             // the other nodes; an entry of this node itself is passed over
	PrivateKey enclave.Secret     // 32 bytes
	ListenPort uint16
	SlurmdPort uint16
	MTU        int // of the tunnel: see TunnelMTU
	Driver     Driver
}

// Smallest and largest MTU of a tunnel: IPv6 needs 1280.
const (
	minMTU = 1280
	maxMTU = 65535 - 80
)

// TunnelMTU is what is left of the underlay's MTU inside the tunnel. The larger overhead
// (IPv6) is taken for both families: one size fits every peer.
func TunnelMTU(underlay int) int { return min(max(underlay-80, minMTU), maxMTU) }

// Plan says what the kernel must hold for this node to be in the job's mesh.
func Plan(in Input) (Device, error) {
	peers, err := check(in)
	if err != nil {
		return Device{}, err
	}
	d := Device{
		Link: Link{
			Name: Name(in.Key.Job), Driver: in.Driver, MTU: in.MTU, RPFilter: looseRP, Up: true,
			Addresses: slices.Clone(in.Own.Addresses),
		},
		Tunnel: Tunnel{PrivateKey: in.PrivateKey, ListenPort: in.ListenPort, FwMark: FwMark(in.Key.Job), Peers: peers},
	}
	d.Routes = routes(in, peers)
	d.Rules = rules(in, d.Routes)
	return d, nil
}

func routes(in Input, peers []Peer) []Route {
	var out []Route
	for _, p := range peers {
		for _, to := range p.Addresses {
			// A peer's address of a family that this node does not have gets no route: there
			// is no source to send from, and the fence rejects what would go the other way.
			if from := source(in.Own, to); from.IsValid() {
				out = append(out, Route{Table: Table(in.Key.Job), To: to, Device: Name(in.Key.Job), Source: from})
			}
		}
	}
	return out
}

// source is the own address that a packet to a peer's address comes from: the one that has most
// leading bits with it, which is the one on the same subnet where there is one. On a node with
// several cards any other would break what the user could do without the tunnel (Open MPI waits for
// ever for a peer that calls from another address than it announced), and a root-owned UDP server
// would answer from an address that conntrack does not know the question by: in clear.
func source(own enclave.Peer, to netip.Addr) netip.Addr {
	best, most := netip.Addr{}, -1
	for _, a := range append([]netip.Addr{own.Endpoint.Addr()}, own.Addresses...) {
		if a.Is4() != to.Is4() || !slices.Contains(own.Addresses, a) {
			continue
		}
		if n := common(a, to); n > most {
			best, most = a, n
		}
	}
	return best
}

// common is how many leading bits two addresses of one family have in common.
func common(a, b netip.Addr) int {
	x, y := a.AsSlice(), b.AsSlice()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return 8*i + bits.LeadingZeros8(d)
		}
	}
	return 8 * len(x)
}

func rules(in Input, routes []Route) []Rule {
	var out []Rule
	uids := append([]enclave.UIDRange{{Start: in.UID, Count: 1}}, in.SubUIDs...)
	mark, table := Mark(in.Key.Job), Table(in.Key.Job)
	for _, family := range []Family{IPv4, IPv6} {
		if !slices.ContainsFunc(routes, func(r Route) bool { return r.family() == family }) {
			continue
		}
		out = append(out, Rule{Family: family, Priority: priorityMark, Mark: mark, Mask: exact, Table: table})
		for _, u := range uids {
			out = append(out,
				Rule{Family: family, Priority: prioritySlurmd, Mark: mark, UIDs: u, TCPPort: in.SlurmdPort, Table: tableMain},
				Rule{Family: family, Priority: priorityUID, Mark: mark, UIDs: u, Table: table})
		}
	}
	return out
}

// check refuses what can't be a mesh and gives the peers without this node, in the order of
// their keys, which is the same on every node.
func check(in Input) ([]Peer, error) {
	if err := checkJob(in); err != nil {
		return nil, enclave.Refuse(CodePlan, enclave.FaultService, "plan mesh of job %d: %s", in.Key.Job, err)
	}
	taken := map[netip.Addr]string{}
	keys := map[enclave.PublicKey]string{}
	if err := claim(in.Own, taken, keys); err != nil {
		return nil, err
	}
	var peers []Peer
	for _, p := range in.Peers {
		if p.Node == in.Own.Node {
			continue
		}
		if err := claim(p.Peer, taken, keys); err != nil {
			return nil, err
		}
		if len(p.PSK.Bytes()) != 32 {
			return nil, enclave.Refuse(CodePlan, enclave.FaultService, "plan mesh of job %d: pre-shared key of %s is not 32 bytes", in.Key.Job, p.Node)
		}
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b Peer) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return peers, nil
}

func checkJob(in Input) error {
	switch {
	case in.Key.Job == 0:
		return fmt.Errorf("job id 0")
	case in.UID == 0:
		return fmt.Errorf("root's traffic never goes into a tunnel: Slurm's own messages would with it")
	case in.ListenPort == 0 || in.SlurmdPort == 0:
		return fmt.Errorf("a port is 0")
	case in.MTU < minMTU || in.MTU > maxMTU:
		return fmt.Errorf("mtu %d is outside %d to %d", in.MTU, minMTU, maxMTU)
	case len(in.PrivateKey.Bytes()) != 32:
		return fmt.Errorf("private key is not 32 bytes")
	case in.Driver != DriverKernel && in.Driver != DriverKeeper:
		return fmt.Errorf("driver %q is unknown", in.Driver)
	}
	for _, r := range append([]enclave.UIDRange{{Start: in.UID, Count: 1}}, in.SubUIDs...) {
		if err := r.Check(); err != nil {
			return err
		}
	}
	return nil
}

// claim refuses an address or key that another node of the job has: WireGuard would silently
// give it to the last one that names it, and with it the other node's traffic.
func claim(p enclave.Peer, taken map[netip.Addr]string, keys map[enclave.PublicKey]string) error {
	if p.Node == "" || p.Key == (enclave.PublicKey{}) || len(p.Addresses) == 0 {
		return enclave.Refuse(CodePlan, enclave.FaultService, "peer %q: name, key or addresses missing", p.Node)
	}
	if other, ok := keys[p.Key]; ok {
		return enclave.Refuse(CodeAddress, enclave.FaultPolicy, "peers %s and %s have one key", other, p.Node)
	}
	keys[p.Key] = p.Node
	for _, a := range p.Addresses {
		if !usable(a) {
			return enclave.Refuse(CodeAddress, enclave.FaultPolicy, "peer %s: %s is not a global unicast address", p.Node, a)
		}
		if other, ok := taken[a]; ok {
			return enclave.Refuse(CodeAddress, enclave.FaultPolicy, "peers %s and %s both have address %s", other, p.Node, a)
		}
		taken[a] = p.Node
	}
	if !slices.Contains(p.Addresses, p.Endpoint.Addr()) || p.Endpoint.Port() == 0 {
		return enclave.Refuse(CodeAddress, enclave.FaultPolicy, "peer %s: endpoint %s is none of its addresses", p.Node, p.Endpoint)
	}
	return nil
}

func usable(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && a.IsGlobalUnicast()
}
