//go:build vm || e2e

package vmtest_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/vmtest"
)

// Places and users of a site's machines.
const (
	libexec     = "/usr/libexec/slurm-enclave/"
	pluginDir   = "/usr/lib/x86_64-linux-gnu/slurm-wlm/"
	etcDir      = "/etc/slurm-enclave/"
	stateDir    = "/var/lib/slurm-enclave"
	siteMount   = "/srv/enclave-fs/site"
	tsmDir      = "/sys/kernel/config/tsm/report"
	faultsFile  = "/run/enclave-tsm.faults"
	hierarchy   = "/var/lib/enclave-tsm"
	slurmUID    = 902
	enclaveUID  = 903
	unknownKey  = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	slurmdGroup = "system.slice/slurmd.service"
)

// installed is what `make install` puts on a host, and what a site writes itself.
func (s *site) installed(dir string) (vmtest.Contents, error) {
	top, err := vmtest.Top()
	if err != nil {
		return nil, err
	}
	bin := os.Getenv("ENCLAVE_BIN")
	if bin == "" {
		bin = filepath.Join(top, "bin")
	}
	c := vmtest.Contents{
		"/agent": filepath.Join(dir, "agent"), "/usr/bin/getent": "/usr/bin/getent",
		etcDir + "prolog-slurmctld": filepath.Join(top, "etc/prolog-slurmctld"), etcDir + "epilog-slurmctld": filepath.Join(top, "etc/epilog-slurmctld"),
		"/etc/slurm/plugstack.conf.d/enclave.conf": filepath.Join(top, "etc/plugstack.conf.d/enclave.conf"),
		"/etc/modprobe.d/slurm-enclave.conf":       filepath.Join(top, "etc/modprobe.d/slurm-enclave.conf"),
		pluginDir + "enclave.so":                   filepath.Join(bin, "enclave.so"),
	}
	for name, to := range map[string]string{
		"enclave": "/usr/bin/", "enclaved": "/usr/sbin/", "enclave-tsm": "/usr/sbin/",
		"enclave-prolog": libexec, "enclave-epilog": libexec, "enclave-keeper": libexec,
	} {
		c[to+name] = filepath.Join(bin, name)
		if _, err = os.Stat(c[to+name]); err != nil {
			return nil, fmt.Errorf("%w: run make build", err)
		}
	}
	keys := filepath.Join(dir, "hierarchy")
	h, err := attesttest.NewHierarchy(keys)
	if err != nil {
		return nil, err
	}
	c[hierarchy+"/hierarchy.pem"] = filepath.Join(keys, "hierarchy.pem")
	files := map[string]string{
		"/etc/slurm/slurm.conf": slurmConf, "/etc/slurm/plugstack.conf": "include /etc/slurm/plugstack.conf.d/*.conf\n", "/etc/hosts": hosts(),
		etcDir + "inventory.yaml": inventory(), etcDir + "tenants.yaml": tenants, etcDir + "policy.d/default.yaml": policy(),
		etcDir + "simulated-roots/vm.pem": string(h.Roots()),
	}
	if s.slurm != nil {
		maps.Copy(files, s.slurm.files)
		if err = s.slurm.contents(c); err != nil {
			return nil, err
		}
	}
	for name, text := range files {
		c[name] = filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err = os.WriteFile(c[name], []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return c, vmtest.Compile(c["/agent"], "./internal/host/vmtest", true)
}

// slurmConf is what the prolog reads of it.
const slurmConf = "ClusterName=vm\nPlugStackConfig=/etc/slurm/plugstack.conf\nPluginDir=" + pluginDir + "\n"

const tenants = "tenants:\n  - {name: digimed, accounts: [digimed], subtree: proj/digimed, policy: default}\n"

// enclaveYAML is the site's word, the same on all machines.
func (s *site) enclaveYAML(key string) string {
	n0 := addresses(100)[0]
	return strings.Join([]string{
		"cluster: vm",
		"partitions: [cpu-sev]",
		fmt.Sprintf("verifier: {address: \"%s:6830\", key: %q}", n0, key),
		fmt.Sprintf("slurm: {slurmctld: {addresses: [%s], port: 6817}, slurmd_port: 6818, srun_ports: 61001-61200}", n0),
		"network: {port: 51820, inbound: [{name: ssh, proto: tcp, port: 22, addresses: [10.78.0.0/24]}]}",
		"storage:",
		"  backend: bind",
		"  source: " + siteMount,
		"  fstype: ext4",
		"  public: /lustre",
		"  home: {own: user, public: /home}",
		"  tmp_size: 16MiB",
		"  visible: [" + tsmDir + "]", // the simulated attester is a FUSE file system
		fmt.Sprintf("limits: {barrier_seconds: 60, renew_seconds: 6, renew_grace_seconds: %d, receipt_seconds: 15}", s.grace),
		"controller: {slurm_user: " + s.slurmUser + ", allow_simulated: true, simulated_roots: /etc/slurm-enclave/simulated-roots}",
	}, "\n") + "\n"
}

func inventory() string {
	b := strings.Builder{}
	b.WriteString("nodes:\n")
	for i := 1; i <= size; i++ {
		a := addresses(i)
		fmt.Fprintf(&b, "  - {name: n%d, addresses: [%s, \"%s\"], tunnel: %[2]s}\n", i, a[0], a[1])
	}
	return b.String()
}

func hosts() string {
	b := strings.Builder{}
	fmt.Fprintf(&b, "127.0.0.1 localhost\n%s n0\n", addresses(100)[0])
	for i := 1; i <= size; i++ {
		fmt.Fprintf(&b, "%s n%d\n", addresses(i)[0], i)
	}
	return b.String()
}

// policy affirms what the simulated firmware says that it has launched.
func policy() string {
	tcb := attesttest.CurrentTCB()
	return strings.Join([]string{
		"name: default",
		"reference_values:",
		"  - {name: a guest, measurement: " + attesttest.LabMeasurement().String() + ", covers: [firmware, kernel, rootfs]}",
		"minimum_tcb:",
		fmt.Sprintf("  milan: {bl: %d, tee: %d, snp: %d, ucode: %d}", tcb.Bootloader, tcb.TEE, tcb.SNP, tcb.Microcode),
		"smt: allow",
		"weak_boot: refuse",
		"allow_simulated: true",
	}, "\n") + "\n"
}
