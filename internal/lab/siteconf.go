package lab

import (
	"fmt"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
)

// Ports of the lab, as etc/enclave.yaml has them.
const verifierPort = 6830

// enclaveYAML is the lab's /etc/slurm-enclave/enclave.yaml. key is the verifier's pin; families
// are the socket families that this machine's kernel opens: the lab can't blacklist its modules.
func enclaveYAML(s Spec, key string, families []string) string {
	n0 := s.Hosts()[0].Address.Addr()
	driver := "  driver: cli"
	if s.Rest && s.Driver != "cli" {
		driver = "  driver: rest\n  rest: {socket: " + restSocket + "}"
	}
	return strings.Join([]string{
		"cluster: lab",
		"partitions: [cpu-sev]",
		fmt.Sprintf("verifier: {address: \"%s:%d\", key: %q}", n0, verifierPort, key),
		"slurm:",
		driver,
		fmt.Sprintf("  slurmctld: {addresses: [%s], port: 6817}", n0),
		"  slurmd_port: 6818",
		"  srun_ports: 61001-61200",
		fmt.Sprintf("  submit_hosts: [{name: login, addresses: [%s]}]", address(0, 20).Addr()),
		"network: {port: 51820, interactive: allow, families: [" + strings.Join(families, ", ") + "]}",
		"storage:",
		"  backend: bind",
		"  isolation: " + s.isolation(),
		"  source: " + siteMount,
		"  fstype: ext4",
		"  public: /lustre",
		"  home: {own: user, public: /home}",
		"  tmp_size: 256MiB",          // UCX 1.23 aborts when a quarter of it, /dev/shm, holds no more than 16 MiB [tried]
		"  visible: [" + tsmDir + "]", // the simulated attester is a FUSE file system
		"  transport: fabric-trusted",
		"limits: {lifetime_hours: 24, barrier_seconds: 20, renew_seconds: 5, renew_grace_seconds: 30, receipt_seconds: 15}",
		"controller:",
		"  slurm_user: slurm",
		"  allow_simulated: true",
		"  simulated_roots: /etc/slurm-enclave/simulated-roots",
	}, "\n") + "\n"
}

func (s Spec) isolation() string {
	if s.namespaced() {
		return s.Isolation
	}
	return "node"
}

func inventoryYAML(s Spec) string {
	b := strings.Builder{}
	b.WriteString("nodes:\n")
	for _, h := range s.Hosts() {
		if h.Role == RoleEnclave {
			var all []string
			for _, card := range h.Cards() {
				all = append(all, fmt.Sprintf("%s, \"%s\"", card[0].Addr(), card[1].Addr()))
			}
			fmt.Fprintf(&b, "  - {name: %s, addresses: [%s], tunnel: %s}\n", s.NodeName(h), strings.Join(all, ", "), h.Address.Addr())
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

// jobSubmitLua is what a site adds to its own job_submit.lua.
const jobSubmitLua = `local enclave = dofile("/etc/slurm-enclave/enclave.lua")
function slurm_job_submit(job, partitions, uid) return enclave.submit(job, partitions, uid) end
function slurm_job_modify(job, record, partitions, uid) return enclave.modify(job, record, partitions, uid) end
`

// policyYAML affirms exactly what the lab's simulated firmware says it has launched.
func policyYAML() string {
	tcb := attesttest.CurrentTCB()
	return strings.Join([]string{
		"name: default",
		"reference_values:",
		"  - name: the lab's guest",
		"    measurement: " + attesttest.LabMeasurement().String(),
		"    covers: [firmware, kernel, rootfs]",
		"minimum_tcb:",
		fmt.Sprintf("  milan: {bl: %d, tee: %d, snp: %d, ucode: %d}", tcb.Bootloader, tcb.TEE, tcb.SNP, tcb.Microcode),
		"smt: allow",
		"weak_boot: refuse",
		"allow_simulated: true",
	}, "\n") + "\n"
}
