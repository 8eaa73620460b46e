package lab

import (
	"fmt"
	"strings"
)

// Ports of the lab, as etc/enclave.yaml has them.
const verifierPort = 6830

// enclaveYAML is the lab's /etc/slurm-enclave/enclave.yaml. key is the verifier's pin.
func enclaveYAML(s Spec, key string) string {
	n0 := s.Hosts()[0].Address.Addr()
	return strings.Join([]string{
		"cluster: lab",
		"partitions: [cpu-sev]",
		fmt.Sprintf("verifier: {address: \"%s:%d\", key: %q}", n0, verifierPort, key),
		"slurm:",
		fmt.Sprintf("  slurmctld: {addresses: [%s], port: 6817}", n0),
		"  slurmd_port: 6818",
		"  srun_ports: 61001-61200",
		"network: {port: 51820, interactive: allow}",
		"storage:",
		"  backend: bind",
		"  source: " + siteMount,
		"  public: /lustre",
		"  home: {own: user, public: /home}",
		"  tmp_size: 64MiB",
		"  transport: fabric-trusted",
		"limits: {lifetime_hours: 24, barrier_seconds: 20}",
		"controller:",
		"  slurm_user: slurm",
		"  allow_simulated: true",
		"  simulated_roots: /etc/slurm-enclave/simulated-roots",
	}, "\n") + "\n"
}

func inventoryYAML(s Spec) string {
	b := strings.Builder{}
	b.WriteString("nodes:\n")
	for _, h := range s.Hosts() {
		if h.Role == RoleEnclave {
			a := h.Address.Addr()
			fmt.Fprintf(&b, "  - {name: %s, addresses: [%s], tunnel: %s}\n", h.Name, a, a)
		}
	}
	return b.String()
}

func tenantsYAML() string {
	b := strings.Builder{}
	b.WriteString("tenants:\n")
	for _, u := range Users() {
		if t := tenantOf(u); t != "" {
			fmt.Fprintf(&b, "  - {name: %s, accounts: [%s], subtree: proj/%s, policy: default}\n", t, u.Account, t)
		}
	}
	return b.String()
}

// pluginPath is where Slurm's own plugins are in Debian.
const pluginPath = "/usr/lib/x86_64-linux-gnu/slurm-wlm/enclave.so"
