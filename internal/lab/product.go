package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/host/family"
	"github.com/slurm-enclave/slurm-enclave/internal/host/machine"
)

// The lab's own places on its hosts.
const (
	hierarchyDir = "/var/lib/enclave-lab/hierarchy" // the test AMD's keys
	faultsFile   = "/run/enclave-tsm.faults"        // what goes wrong with a node's attester, see attesttest.Faults
	tsmDir       = "/sys/kernel/config/tsm/report"
)

// productFiles is this project's configuration, for all hosts: the samples of etc/ and what a
// site writes itself. enclave.yaml follows when the verifier's key is there.
func productFiles(s Spec, roots []byte) ([]file, error) {
	files := []file{
		{path: "etc/slurm/plugstack.conf", text: "include /etc/slurm/plugstack.conf.d/*.conf\n", mode: 0o644},
		{path: "etc/slurm/job_submit.lua", text: jobSubmitLua, mode: 0o644},
		{path: "etc/slurm-enclave/inventory.yaml", text: inventoryYAML(s), mode: 0o644},
		{path: "etc/slurm-enclave/tenants.yaml", text: tenantsYAML(), mode: 0o644},
		{path: "etc/slurm-enclave/policy.d/default.yaml", text: policyYAML(), mode: 0o644},
		{path: "etc/slurm-enclave/simulated-roots/lab.pem", text: string(roots), mode: 0o644},
	}
	for name, to := range map[string]string{
		"plugstack.conf.d/enclave.conf": "etc/slurm/plugstack.conf.d/enclave.conf",
		"enclave.lua":                   "etc/slurm-enclave/enclave.lua",
		"modprobe.d/slurm-enclave.conf": "etc/modprobe.d/slurm-enclave.conf",
	} {
		text, err := sample(name)
		if err != nil {
			return nil, err
		}
		files = append(files, file{path: to, text: text, mode: 0o644})
	}
	return files, nil
}

// product makes the test AMD and writes the product's files into the layer.
func (s *supervisor) product() error {
	h, err := attesttest.NewHierarchy(filepath.Join(s.root, "hierarchy"))
	if err != nil {
		return err
	}
	files, err := productFiles(s.spec, h.Roots())
	if err != nil {
		return err
	}
	return writeLayer(filepath.Join(s.root, "layer"), files, "")
}

// startVerifier makes the verifier's key, tells all hosts its pin, and starts enclaved.
func (s *supervisor) startVerifier(ctx context.Context, n0 *computer) error {
	for _, argv := range [][]string{
		{"install", "-d", "-o", enclaveUser, "-g", enclaveUser, "-m", "0755", "/var/lib/slurm-enclave", "/run/slurm-enclave"},
	} {
		if _, err := n0.run(ctx, machine.Program{Argv: argv}); err != nil {
			return err
		}
	}
	const unknown = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	families, err := family.Open(config.Families())
	if err != nil {
		return err
	}
	if err = write(ctx, n0, "/etc/slurm-enclave/enclave.yaml", enclaveYAML(s.spec, unknown, families)); err != nil {
		return err
	}
	key, err := n0.run(ctx, machine.Program{Argv: []string{"enclaved", "key"}, User: enclaveUser})
	if err != nil {
		return err
	}
	at := strings.Index(key, "sha256:")
	if at < 0 || len(key) < at+len(unknown) {
		return fmt.Errorf("read the verifier's key: enclaved key said %q", key)
	}
	text := enclaveYAML(s.spec, key[at:at+len(unknown)], families)
	if err = s.each(func(c *computer) error { return write(ctx, c, "/etc/slurm-enclave/enclave.yaml", text) }); err != nil {
		return err
	}
	if err = n0.start(ctx, "enclaved", enclaveUser, "enclaved"); err != nil {
		return err
	}
	return n0.until(ctx, machine.Program{Argv: []string{"test", "-S", "/run/slurm-enclave/enclaved.sock"}}, always)
}

// startNode makes a host an enclave node: the attester's device, the marker, the closed state,
// the enrolment by the real commands, and slurmd last.
func (s *supervisor) startNode(ctx context.Context, c *computer) error {
	covered := "/sys/kernel" // a kernel without configfs has no /sys/kernel/config to mount on
	if _, err := os.Stat("/sys/kernel/config"); err == nil {
		covered = "/sys/kernel/config"
	}
	for _, argv := range [][]string{
		{"install", "-d", "-m", "0700", "/run/slurm-enclave", "/run/slurm-enclave/gate"},
		{"install", "-d", "-m", "0755", "/var/lib/slurm-enclave", "/lustre"},
		{"install", "-m", "0644", "/dev/null", "/etc/slurm-enclave/enclave-node"},
		{"mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", covered},
		{"mkdir", "-p", tsmDir},
	} {
		if _, err := c.run(ctx, machine.Program{Argv: argv}); err != nil {
			return err
		}
	}
	if err := write(ctx, c, faultsFile, "{}\n"); err != nil {
		return err
	}
	err := c.start(ctx, "enclave-tsm", "", "enclave-tsm", "--mount", tsmDir, "--hierarchy", hierarchyDir, "--node", s.spec.NodeName(c.Host), "--faults", faultsFile)
	if err != nil {
		return err
	}
	if err = c.until(ctx, machine.Program{Argv: []string{"mountpoint", "-q", tsmDir}}, always); err != nil {
		return err
	}
	if err = s.enrol(ctx, c); err != nil {
		return err
	}
	if _, err = c.run(ctx, machine.Program{Argv: []string{"enclave", "host", "close"}}); err != nil {
		return err
	}
	return s.startSlurmd(ctx, c)
}

// enrol asks on the node and confirms on the controller, as an admin does who knows the chip.
func (s *supervisor) enrol(ctx context.Context, c *computer) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	asked := make(chan error, 1)
	go func() {
		_, err := c.run(ctx, machine.Program{Argv: []string{"enclave", "node", "enrol", "--request"}})
		if err != nil {
			cancel() // nothing will be pending on the controller
		}
		asked <- err
	}()
	node := s.spec.NodeName(c.Host)
	chip := attesttest.ChipID(node).String()
	confirm := machine.Program{Argv: []string{"enclave", "node", "enrol", node, "--chip", chip}}
	confirmed := s.computers["n0"].until(ctx, confirm, always)
	if err := <-asked; err != nil {
		return fmt.Errorf("enrol %s: %w", c.Name, err)
	}
	return confirmed
}

// write writes a file on a host.
func write(ctx context.Context, c *computer, path, text string) error {
	_, err := c.run(ctx, machine.Program{Argv: []string{"dd", "status=none", "of=" + path}, Input: text})
	return err
}
