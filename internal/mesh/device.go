package mesh

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Driver says who moves the packets.
type Driver string

// The two drivers; the zero Driver is refused.
const (
	DriverKernel Driver = "wireguard" // the kernel's own WireGuard
	DriverKeeper Driver = "tun"       // wireguard-go inside enclave-keeper
)

// Family is 4 or 6.
type Family int

// The families of the policy rules.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Everything of a job is numbered from its job id, so that Down finds it with nothing but the
// id, and two jobs on one node can't collide. Slurm's own job ids have 26 bits; the upper six
// are a federation's cluster number, and a node is in one cluster.
const (
	jobBits   = 1<<26 - 1
	tableBase = 0x10000000
	fwMark    = 0xa8000000
	markBase  = 0xac000000

	// Priorities stand between the kernel's local (0) and main (32766) table. Rules of several
	// jobs share them and differ in users and mark.
	priorityMark   = 9900
	prioritySlurmd = 9901
	priorityUID    = 9902

	tableMain = 254
	exact     = 0xffffffff
	looseRP   = 2
)

// Name is the interface of a job: at most 13 characters, the kernel takes 15.
func Name(job uint32) string { return fmt.Sprintf("enc%d", job) }

// FwMark marks WireGuard's own packets, those that carry the tunnel.
func FwMark(job uint32) uint32 { return fwMark | job&jobBits }

// Mark is that of flows that belong into the tunnel.
func Mark(job uint32) uint32 { return markBase | job&jobBits }

// Table is the routing table of a job.
func Table(job uint32) uint32 { return tableBase | job&jobBits }

// Link is the job's network interface. The zero Link stands for "there is none".
type Link struct {
	Name      string
	Driver    Driver
	MTU       int
	RPFilter  int // net.ipv4.conf.NAME.rp_filter; 2 works with any value of conf.all
	Up        bool
	Addresses []netip.Addr // each as /32 or /128
}

// Tunnel is WireGuard's configuration of the interface.
type Tunnel struct {
	PrivateKey enclave.Secret
	ListenPort uint16
	FwMark     uint32
	Peers      []Peer
}

// Route sends one address of a peer into the tunnel.
type Route struct {
	Table  uint32
	To     netip.Addr
	Device string
	Source netip.Addr
}

func (r Route) family() Family {
	if r.To.Is4() {
		return IPv4
	}
	return IPv6
}

// Rule sends packets to a routing table. A rule for users carries the job's mark under an
// empty mask, which every packet matches: a label by which Down finds the rule, even the one
// that leads to main.
type Rule struct {
	Family   Family
	Priority int
	Mark     uint32
	Mask     uint32
	UIDs     enclave.UIDRange // Count 0: any user
	TCPPort  uint16           // 0: any protocol and port
	Table    uint32
}

// Device is the whole plan of a job's mesh on one node.
type Device struct {
	Link   Link
	Tunnel Tunnel
	Routes []Route
	Rules  []Rule
}

// String prints the link in the words of ip(8).
func (l Link) String() string {
	if l.Name == "" {
		return "no link"
	}
	var b strings.Builder
	state := "down"
	if l.Up {
		state = "up"
	}
	fmt.Fprintf(&b, "link %s type %s mtu %d rp_filter %d %s", l.Name, l.Driver, l.MTU, l.RPFilter, state)
	for _, a := range l.Addresses {
		fmt.Fprintf(&b, "\n  address %s", netip.PrefixFrom(a, a.BitLen()))
	}
	return b.String()
}

// String prints the configuration without its secrets.
func (t Tunnel) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "wireguard port %d fwmark %#x private-key %v", t.ListenPort, t.FwMark, t.PrivateKey)
	for _, p := range t.Peers {
		fmt.Fprintf(&b, "\n  peer %s key %s preshared-key %v endpoint %s", p.Node, p.Key, p.PSK, p.Endpoint)
		for _, a := range p.Addresses {
			fmt.Fprintf(&b, "\n    allowed %s", netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return b.String()
}

// String prints the route in the words of ip(8).
func (r Route) String() string {
	return fmt.Sprintf("route %s dev %s src %s table %d", r.To, r.Device, r.Source, r.Table)
}

// String prints the rule in the words of ip(8).
func (r Rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "rule inet%s pref %d fwmark %#x", map[Family]string{IPv6: "6"}[r.Family], r.Priority, r.Mark)
	if r.Mask != exact {
		fmt.Fprintf(&b, "/%d", r.Mask)
	}
	if r.UIDs.Count != 0 {
		fmt.Fprintf(&b, " uidrange %d-%d", r.UIDs.Start, r.UIDs.Last())
	}
	if r.TCPPort != 0 {
		fmt.Fprintf(&b, " ipproto tcp dport %d", r.TCPPort)
	}
	if r.Table == tableMain {
		b.WriteString(" lookup main")
	} else {
		fmt.Fprintf(&b, " lookup %d", r.Table)
	}
	return b.String()
}

// String prints the whole plan, one thing a line, without its secrets.
func (d Device) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n", d.Link, d.Tunnel)
	for _, r := range d.Routes {
		fmt.Fprintln(&b, r)
	}
	for _, r := range d.Rules {
		fmt.Fprintln(&b, r)
	}
	return b.String()
}
