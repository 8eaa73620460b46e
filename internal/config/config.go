// Package config reads the site's own words: enclave.yaml and inventory.yaml.
//
// It parses and checks values; it opens no file and asks no kernel. Reading is strict: a key it
// does not know is an error with its line and the nearest key there is, so that a misspelled
// limit never silently becomes no limit. Who may own the files is checked by the caller.
package config

import (
	"net/netip"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Config is enclave.yaml, the same file on nodes and controller.
type Config struct {
	Cluster    string     `yaml:"cluster"`
	Partitions []string   `yaml:"partitions"`
	Verifier   Verifier   `yaml:"verifier"`
	Slurm      Slurm      `yaml:"slurm"`
	Network    Network    `yaml:"network"`
	Storage    Storage    `yaml:"storage"`
	Limits     Limits     `yaml:"limits"`
	Controller Controller `yaml:"controller"`
}

// Verifier is where enclaved listens, and the one key that nodes and people believe.
type Verifier struct {
	Address string `yaml:"address"` // host:port
	Key     string `yaml:"key"`     // sha256:HEX of the raw Ed25519 public key
}

// Slurm is what the fence must know of Slurm, and how enclaved talks to it.
type Slurm struct {
	Driver string `yaml:"driver"` // cli: Slurm's commands; rest: slurmrestd. Read by enclaved only
	Rest   Rest   `yaml:"rest"`

	Slurmctld  Slurmctld `yaml:"slurmctld"`
	SlurmdPort uint16    `yaml:"slurmd_port"`
	SrunPorts  PortRange `yaml:"srun_ports"`
	Plugstack  string    `yaml:"plugstack"` // plugstack.conf as slurmd resolves it

	// SubmitHosts are the hosts from which srun and salloc may reach a job, by AllocNode's name.
	// Written down, since a name service could open a job's fence to any host.
	SubmitHosts []SubmitHost `yaml:"submit_hosts"`
}

// Rest is where slurmrestd listens: a socket, or an address and who we are there.
type Rest struct {
	Socket    string `yaml:"socket"`     // path; slurmrestd runs as the same user as enclaved
	URL       string `yaml:"url"`        // https://HOST[:PORT]; http on the loopback
	Plaintext bool   `yaml:"plaintext"`  // http elsewhere, too: whoever reads the token on the way is who it names
	User      string `yaml:"user"`       // whose token it is
	TokenFile string `yaml:"token_file"` // mode 0400, read anew for every call
}

// SubmitHost is a login host and its addresses.
type SubmitHost struct {
	Name      string       `yaml:"name"`
	Addresses []netip.Addr `yaml:"addresses"`
}

// SubmitHost gives the addresses of a submit host, none when the site does not list it.
func (s Slurm) SubmitHost(name string) []netip.Addr {
	for _, h := range s.SubmitHosts {
		if h.Name == name {
			return h.Addresses
		}
	}
	return nil
}

// Slurmctld is the controller (and its backups).
type Slurmctld struct {
	Addresses []netip.Addr `yaml:"addresses"`
	Port      uint16       `yaml:"port"`
}

// Network is the mesh and the fence.
type Network struct {
	Port        uint16       `yaml:"port"`        // WireGuard, UDP
	Interactive string       `yaml:"interactive"` // allow or deny: the submit host's srun ports
	Services    []Service    `yaml:"services"`    // what a job may reach outside
	Inbound     []Service    `yaml:"inbound"`     // what may reach the node
	Groups      []netip.Addr `yaml:"groups"`      // multicast groups that the node's daemons are in
	Families    []string     `yaml:"families"`    // socket families beside IP that a job may open, of Families()
}

// Families are the socket families that pass by the fence, by the names of their kernel modules.
func Families() []string { return []string{"smc", "rds", "tipc", "vsock", "rxrpc", "pppox"} }

// Service is one line of an allow list.
type Service struct {
	Name      string         `yaml:"name"`
	Proto     string         `yaml:"proto"` // tcp or udp
	Port      uint16         `yaml:"port"`
	Addresses []netip.Prefix `yaml:"addresses"` // prefixes; one host is /32 or /128
}

// Storage is the job's view of data.
type Storage struct {
	Backend   string   `yaml:"backend"`   // bind or lustre
	Isolation string   `yaml:"isolation"` // node: the view is the whole node's, which is the job's alone; namespace: it is in the job's own mount namespace
	Source    string   `yaml:"source"`    // of bind: mount point of the file system; its parent is root's alone (0700)
	Lustre    Lustre   `yaml:"lustre"`    // of lustre
	FSType    string   `yaml:"fstype"`    // what must be mounted there, as mountinfo spells it
	Public    string   `yaml:"public"`    // where the job sees its subtree
	Visible   []string `yaml:"visible"`   // other network mounts that a job may see
	Home      Home     `yaml:"home"`      // what stands at /home
	TmpSize   Size     `yaml:"tmp_size"`  // of the job's own /tmp, /var/tmp and /dev/shm together
	Transport string   `yaml:"transport"` // fabric-trusted, ssk or wireguard
	Assurance string   `yaml:"assurance"` // the least that a job's view must have: L1 or L2
}

// Lustre is where a node's sub-directory mounts come from.
type Lustre struct {
	Source  string      `yaml:"source"`  // MGSNID[:MGSNID...]:/FSNAME
	Options []string    `yaml:"options"` // of mount.lustre, beside nosuid and nodev
	Canary  enclave.FID `yaml:"canary"`  // a file of root's outside of all subtrees, to try the servers with
}

// Home is whose home directories a job sees.
type Home struct {
	Own    string `yaml:"own"`    // tenant: a directory of the subtree; user: only the user's own; site: untouched
	Public string `yaml:"public"` // usually /home
}

// Limits are the times that the protocol keeps.
type Limits struct {
	LifetimeHours  uint32 `yaml:"lifetime_hours"`
	BarrierSeconds uint32 `yaml:"barrier_seconds"`
	NonceSeconds   uint32 `yaml:"nonce_seconds"`
	ReceiptSeconds uint32 `yaml:"receipt_seconds"` // how long a receipt waits for the nodes' last words

	// A node proves itself again every RenewSeconds while a job runs, give or take a tenth. One
	// that did not for RenewGraceSeconds, counted from the last time it did, closes by itself.
	RenewSeconds      uint32 `yaml:"renew_seconds"`
	RenewGraceSeconds uint32 `yaml:"renew_grace_seconds"`
}

// Controller is read by enclaved only.
type Controller struct {
	Listen         string `yaml:"listen"`
	Socket         string `yaml:"socket"`
	Metrics        string `yaml:"metrics"` // host:port for Prometheus, plain HTTP; "" is nowhere
	State          string `yaml:"state"`   // directory of key, ledger, spool and go files
	SlurmUser      string `yaml:"slurm_user"`
	Storm          Storm  `yaml:"storm"`
	MaxRestarts    uint32 `yaml:"max_restarts"`
	AllowSimulated bool   `yaml:"allow_simulated"`
	SimulatedRoots string `yaml:"simulated_roots"` // directory of PEM files
	Certificates   string `yaml:"certificates"`    // directory of VCEKs and CRLs
	KDS            KDS    `yaml:"kds"`             // who is asked for them, by enclave certs sync alone
	Policies       string `yaml:"policies"`        // directory, NAME.yaml each
	Policy         string `yaml:"policy"`          // NAME for tenants that name none
	Tenants        string `yaml:"tenants"`         // tenants.yaml
	Inventory      string `yaml:"inventory"`       // inventory.yaml
}

// KDS is AMD's key distribution service, or a mirror of it.
type KDS struct {
	URL             string `yaml:"url"`              // empty: the site asks nobody
	IntervalSeconds uint32 `yaml:"interval_seconds"` // between two certificates
}

// Interval is the time between two questions for certificates.
func (k KDS) Interval() time.Duration { return time.Duration(k.IntervalSeconds) * time.Second }

// Storm is when failures of nodes are taken for a failure of the policy.
type Storm struct {
	Nodes   uint32 `yaml:"nodes"`
	Minutes uint32 `yaml:"minutes"`
}

// Default holds every value that a site may leave out.
func Default() Config {
	return Config{
		Partitions: []string{"cpu-sev"},
		Slurm: Slurm{
			Driver: "cli", Rest: Rest{User: "enclave"},
			Slurmctld: Slurmctld{Port: 6817}, SlurmdPort: 6818,
			SrunPorts: PortRange{First: 61001, Last: 61200}, Plugstack: "/etc/slurm/plugstack.conf",
		},
		Network: Network{Port: 51820, Interactive: "allow"},
		Storage: Storage{
			Backend: "bind", Isolation: "node", Assurance: "L1", FSType: "lustre", Public: "/lustre", Home: Home{Own: "user", Public: "/home"},
			TmpSize: 4 << 30, Transport: "fabric-trusted",
		},
		Limits: Limits{LifetimeHours: 24, BarrierSeconds: 60, NonceSeconds: 60, ReceiptSeconds: 120, RenewSeconds: 600, RenewGraceSeconds: 1800},
		Controller: Controller{
			Listen: ":6830", Socket: "/run/slurm-enclave/enclaved.sock", State: "/var/lib/slurm-enclave",
			SlurmUser: "slurm", Storm: Storm{Nodes: 3, Minutes: 10}, MaxRestarts: 3, KDS: KDS{IntervalSeconds: 10},
			Certificates: "/var/lib/slurm-enclave/certs", Policies: "/etc/slurm-enclave/policy.d", Policy: "default",
			Tenants: "/etc/slurm-enclave/tenants.yaml", Inventory: "/etc/slurm-enclave/inventory.yaml",
		},
	}
}

// Namespaced says whether a job's view is in its own mount namespace, which Slurm makes.
func (s Storage) Namespaced() bool { return s.Isolation == "namespace" }

// Magic is f_type of statfs(2) for the file system's type, 0 for a type that can't be proved.
func (s Storage) Magic() uint32 {
	return map[string]uint32{
		"lustre": 0x0bd00bd0, "ext4": 0xef53, "xfs": 0x58465342, "btrfs": 0x9123683e, "nfs": 0x6969, "nfs4": 0x6969,
		"ceph": 0x00c36400, "gpfs": 0x47504653, "beegfs": 0x19830326, "tmpfs": 0x01021994,
	}[s.FSType]
}

// Barrier is the one deadline of both barriers.
func (l Limits) Barrier() time.Duration { return time.Duration(l.BarrierSeconds) * time.Second }

// Nonce is the life of a nonce.
func (l Limits) Nonce() time.Duration { return time.Duration(l.NonceSeconds) * time.Second }

// Receipt is how long after the end of a job its receipt waits for the nodes' last words.
func (l Limits) Receipt() time.Duration { return time.Duration(l.ReceiptSeconds) * time.Second }

// Overdue is when enclaved ends the job of a node that has not proved itself again. It is one
// period after the node has closed by itself, so that the two never race.
func (l Limits) Overdue() time.Duration {
	return time.Duration(l.RenewSeconds+l.RenewGraceSeconds) * time.Second
}

// Inventory is inventory.yaml: what the admin says the nodes are.
type Inventory struct {
	Nodes []enclave.Node `yaml:"nodes"`
}

// Find is the node's line, by NodeName.
func (i Inventory) Find(name string) (enclave.Node, bool) {
	for _, n := range i.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return enclave.Node{}, false
}
