package ladder

import "github.com/slurm-enclave/slurm-enclave/internal/enclave"

// Facts are what was read and tried on one machine. Their JSON is part of `enclave ok --json`.
type Facts struct {
	Root       bool       `json:"root"` // the reader was; others can neither ask for reports nor try the kernel
	Processor  Processor  `json:"processor"`
	Encryption Encryption `json:"encryption"`
	Attester   Attester   `json:"attester"`
	Kernel     Kernel     `json:"kernel"`
	Slurm      Slurm      `json:"slurm"`
}

// Processor is what CPUID says, and what the system is inside of.
type Processor struct {
	Vendor           string `json:"vendor"` // AuthenticAMD, GenuineIntel
	Name             string `json:"name"`   // the brand string
	Family           int    `json:"family"` // with the extended family added
	Model            int    `json:"model"`  // with the extended model in front
	Stepping         int    `json:"stepping"`
	Hypervisor       bool   `json:"hypervisor"`        // leaf 1, ECX bit 31
	HypervisorVendor string `json:"hypervisor_vendor"` // leaf 0x40000000
	Container        string `json:"container"`         // docker, podman, ... ; "" is none
	TDX              bool   `json:"tdx"`               // an Intel TDX guest

	// Leaf 0x8000001F, EAX bits 0, 1, 3 and 4 (AMD APM volume 3, E.4.17). On a host: what the
	// processor can do. In a guest: what the hypervisor shows.
	SME   bool `json:"sme"`
	SEV   bool `json:"sev"`
	SEVES bool `json:"sev_es"`
	SNP   bool `json:"sev_snp"`
}

// Encryption is what firmware and kernel say is switched on.
type Encryption struct {
	Status      *uint64           `json:"sev_status"` // MSR 0xC0010131 of a guest (APM volume 2, 15.34.10); nil: not read
	StatusError string            `json:"sev_status_error,omitempty"`
	SysCfg      *uint64           `json:"syscfg"`        // MSR 0xC0010010 of a host; nil: not read
	Active      []string          `json:"active"`        // of the kernel's log: SME, SEV, SEV-ES, SEV-SNP; nil: no such line
	VMPL        string            `json:"vmpl"`          // of sysfs: SNP guests have it since Linux 6.12
	KVM         map[string]string `json:"kvm_amd"`       // parameters sev, sev_es, sev_snp; nil: not loaded
	HostDevice  bool              `json:"dev_sev"`       // /dev/sev
	GuestDevice bool              `json:"dev_sev_guest"` // /dev/sev-guest
	Kernel      string            `json:"kernel"`        // its release
	Configfs    bool              `json:"configfs"`      // mounted at /sys/kernel/config
	TSM         bool              `json:"configfs_tsm"`  // its directory tsm/report
}

// Attester is one report over random bytes, and what became of it.
type Attester struct {
	Made      bool             `json:"made"`
	Refusal   *enclave.Refusal `json:"refusal,omitempty"` // why none was made
	Verdict   *Verdict         `json:"verdict,omitempty"`
	Appraisal Appraisal        `json:"appraisal"`
}

// Verdict is internal/snp's.
type Verdict struct {
	Genuine       bool            `json:"genuine"`
	Simulated     bool            `json:"simulated"`
	NoCertificate bool            `json:"no_certificate"` // nothing failed but that there is none
	Bound         bool            `json:"bound"`          // the report holds our random bytes
	Part          string          `json:"part"`           // milan, genoa, zen4c, turin
	Version       uint32          `json:"version"`
	Signer        string          `json:"signer"` // VCEK or VLEK
	VMPL          uint32          `json:"vmpl"`
	TCB           string          `json:"tcb"` // reported
	Failed        []enclave.Check `json:"failed,omitempty"`
}

// Appraisal is internal/appraise's.
type Appraisal struct {
	Policy  string   `json:"policy"` // its name; "" when there is none on this machine
	Error   string   `json:"error,omitempty"`
	Affirms bool     `json:"affirms"`
	Weak    bool     `json:"weak"`
	Failed  []Failed `json:"failed,omitempty"`
}

// Failed is a failed check with the code that explains it.
type Failed struct {
	enclave.Check
	Code enclave.Code `json:"code"`
}

// Probe is something that was tried. One that was not tried has neither worked nor failed.
type Probe struct {
	Tried  bool   `json:"tried"`
	Works  bool   `json:"works"`
	Reason string `json:"reason,omitempty"`
}

// Kernel is what mesh, fence and subtree need of it.
type Kernel struct {
	WireGuard Probe  `json:"wireguard"`
	TUN       Probe  `json:"tun"`
	NFTables  Probe  `json:"nftables"`
	Mounts    Probe  `json:"mounts"`
	Cgroup    string `json:"cgroup"` // unified, freezer or ""
}

// Slurm is slurmd and its configuration on this machine.
type Slurm struct {
	Marker      bool              `json:"marker"` // this is an enclave node
	MarkerBad   *enclave.Refusal  `json:"marker_refusal,omitempty"`
	ConfigError string            `json:"config_error,omitempty"` // of enclave.yaml
	Slurmd      bool              `json:"slurmd"`
	Version     string            `json:"version"` // as slurmd -V says
	Gate        *enclave.Refusal  `json:"gate_refusal,omitempty"`
	Conf        string            `json:"conf"`     // slurm.conf's path; "" when none was found
	Settings    map[string]string `json:"settings"` // of slurm.conf; names in lower case
	ConfError   string            `json:"conf_error,omitempty"`
	LocalPorts  string            `json:"local_ports"` // net.ipv4.ip_local_port_range
}
