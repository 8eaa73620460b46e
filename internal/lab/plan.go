package lab

import (
	"fmt"
	"net/netip"

	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/lab/suite"
)

// Role is what a host of the lab is for.
type Role string

// The roles. Only RoleEnclave hosts have the marker, the attester and the file system.
const (
	RoleController Role = "controller"
	RoleEnclave    Role = "enclave"
	RolePlain      Role = "plain"
	RoleLogin      Role = "login"
)

// Host is one computer of the lab.
type Host struct {
	Name    string       `json:"name"`
	Role    Role         `json:"role"`
	Address netip.Prefix `json:"address"` // the one that Slurm knows
}

// Cards are the addresses of the host's network cards, eth0 first: each card is on a switch of its
// own and has an address of each family.
func (h Host) Cards() [][]netip.Prefix {
	b := h.Address.Addr().As4()
	var cards [][]netip.Prefix
	for i := range len(switches()) {
		four := [4]byte{b[0], b[1] + byte(i), b[2], b[3]}
		six := [16]byte{0: 0xfd, 1: 0x93 + byte(i), 13: b[2], 15: b[3]}
		cards = append(cards, []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4(four), h.Address.Bits()), netip.PrefixFrom(netip.AddrFrom16(six), 64),
		})
	}
	return cards
}

// switches are the names of the lab's bridges and what their ports' names begin with.
func switches() [][2]string { return [][2]string{{"lab0", "lab-"}, {"lab1", "lab1-"}} }

// Spec is what the caller of Up asks for.
type Spec struct {
	Nodes int    `json:"nodes"`           // hosts of the enclave partition, n1..nN
	Plain int    `json:"plain"`           // hosts of partition cpu, c1..cN
	Suite string `json:"suite,omitempty"` // Debian's, for another Slurm than this machine's; "" is this machine's own root

	// Rest starts slurmrestd on n0; enclaved talks to Slurm through it, unless Driver is "cli".
	Rest   bool   `json:"rest,omitempty"`
	Driver string `json:"driver,omitempty"`

	// Isolation is storage.isolation: "namespace", or "" for node.
	Isolation string `json:"isolation,omitempty"`

	// Domain is what Slurm's names of the nodes end in, after a dot; "" is nothing. The hosts keep their short names.
	Domain string `json:"domain,omitempty"`
}

// NodeName is what Slurm calls a host.
func (s Spec) NodeName(h Host) string {
	if s.Domain == "" {
		return h.Name
	}
	return h.Name + "." + s.Domain
}

// namespaced says whether a job's view is in a mount namespace of its own.
func (s Spec) namespaced() bool { return s.Isolation == "namespace" }

// User is a user of the lab: there is no such user on the machine itself.
type User struct {
	Name    string
	UID     uint32
	Account string
}

// MaxNodes is how many enclave nodes fit into the lab's network.
const MaxNodes = 200

var network = netip.MustParsePrefix("10.93.0.0/16")

// Users are the lab's people. Each is of one account, each account of one tenant; carol's
// account has none.
func Users() []User {
	return []User{
		{"alice", 2001, "digimed"},
		{"bob", 2002, "astro"},
		{"carol", 2003, "chem"},
	}
}

// Check says whether the lab can be built.
func (s Spec) Check() error {
	if s.Driver != "" && s.Driver != "cli" && (s.Driver != "rest" || !s.Rest) {
		return fmt.Errorf("plan lab: driver %q, want cli, or rest with slurmrestd", s.Driver)
	}
	if s.Domain != "" && job.CheckNodeName(s.Domain) != nil {
		return fmt.Errorf("plan lab: domain %q, want letters, digits, dots and dashes", s.Domain)
	}
	if s.Isolation != "" && !s.namespaced() {
		return fmt.Errorf("plan lab: isolation %q, want namespace, or nothing for node", s.Isolation)
	}
	for _, n := range []int{s.Nodes, s.Plain} {
		if n < 1 || n > MaxNodes {
			return fmt.Errorf("plan lab: %d nodes asked for, 1 to %d can be had", n, MaxNodes)
		}
	}
	if s.Suite != "" {
		return suite.Check(s.Suite)
	}
	return nil
}

// fits says whether a lab's hosts can run as the spec asks on this base.
func (s Spec) fits(b base) error {
	const with = "24.11"
	if s.namespaced() && b.release != with {
		return fmt.Errorf("plan lab: isolation namespace is for Slurm %s and this is %s; try --suite trixie", with, b.release)
	}
	return nil
}

// Hosts lists the lab's computers: n0, the enclave nodes, the plain ones, one login host.
func (s Spec) Hosts() []Host {
	hosts := []Host{{"n0", RoleController, address(0, 10)}}
	for i := 1; i <= s.Nodes; i++ {
		hosts = append(hosts, Host{fmt.Sprintf("n%d", i), RoleEnclave, address(1, i)})
	}
	for i := 1; i <= s.Plain; i++ {
		hosts = append(hosts, Host{fmt.Sprintf("c%d", i), RolePlain, address(2, i)})
	}
	return append(hosts, Host{"login", RoleLogin, address(0, 20)})
}

func address(third, fourth int) netip.Prefix {
	b := network.Addr().As4()
	b[2], b[3] = byte(third), byte(fourth)
	return netip.PrefixFrom(netip.AddrFrom4(b), network.Bits())
}

// tenantOf names the tenant of a user's account, "" when it has none.
func tenantOf(u User) string {
	if u.Account == "chem" {
		return ""
	}
	return u.Account
}
