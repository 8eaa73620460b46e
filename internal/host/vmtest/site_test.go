//go:build vm || e2e

package vmtest_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/vmtest"
)

// site is machines on which the project is installed: a controller with enclaved, and the nodes of
// an enclave partition. Their programs are the real ones; only the attester's chip is simulated.
type site struct {
	fleet
	controller *vmtest.Machine
	enclaved   *vmtest.Process
	key        string // the verifier's pin
	starts     int    // of the one job, so far
	grace      int    // seconds between the last renewal and the end
	slurmUser  string
	slurm      *slurm // nil: the tests are Slurm
}

func (s *site) stop() {
	if s.controller != nil {
		s.controller.Stop()
	}
	s.fleet.stop()
}

// slurm is how a site gets Slurm.
type slurm struct {
	contents func(vmtest.Contents) error
	files    map[string]string
	start    func(*site) error
}

// installation is a site on which the tests are Slurm.
var installation = site{grace: 30, slurmUser: "slurm"}

// nodeDisks are a node's disks, in this order: its own state, and the stand-in for the file system.
var nodeDisks = map[string]int64{"state": 16 << 20, "site": 64 << 20}

// ready gives the site, with nothing of a job on it.
func (s *site) ready(t *testing.T) *site {
	t.Helper()
	s.once.Do(func() { s.err = s.build() })
	require.NoError(t, s.err)
	for _, n := range s.nodes {
		if n.before == "" {
			n.before = n.trace(t)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("enclaved:\n%s", s.enclaved.Output())
			for _, m := range append([]*vmtest.Machine{s.controller}, s.machines()...) {
				log, _ := m.Try("sh", "-c", "tail -n 40 /var/log/*.log; dmesg | tail -n 5")
				t.Logf("%s:\n%s\nconsole:\n%s", m.Name, log, m.Console())
			}
		}
	})
	return s
}

func (s *site) build() error {
	dir, err := s.scratch()
	if err != nil {
		return err
	}
	c, err := s.installed(dir)
	if err != nil {
		return err
	}
	if s.image, err = vmtest.Build(dir, c); err != nil {
		return err
	}
	s.controller, err = vmtest.Boot(s.image, vmtest.Options{Name: "n0", Directory: dir, Memory: memory, Index: 100, Wires: []*vmtest.Hub{&s.wire}})
	if err != nil {
		return err
	}
	for i := 1; i <= s.size(); i++ {
		if err = s.add(dir, i); err != nil {
			return err
		}
	}
	if s.key, err = s.serve(); err != nil {
		return err
	}
	if err = s.each(s.install); err != nil || s.slurm == nil {
		return err
	}
	return s.slurm.start(s)
}

// add switches a new node on.
func (s *site) add(dir string, index int) error {
	n := &node{index: index, orders: orders{Own: enclave.Peer{Node: fmt.Sprintf("n%d", index), Addresses: addresses(index)}}}
	for _, name := range []string{"state", "site"} {
		disk := filepath.Join(dir, n.orders.Own.Node+"."+name)
		if err := makeDisk(disk, nodeDisks[name]); err != nil {
			return err
		}
		n.disks = append(n.disks, disk)
	}
	err := s.power(n)
	if err == nil {
		s.nodes = append(s.nodes, n)
	}
	return err
}

// size is how many nodes there are. Slurm's have two.
func (s *site) size() int {
	if s.slurm != nil {
		return 2
	}
	return size
}

// patience is for what happens on machines that share a busy processor with others.
const patience = 3 * time.Minute

// memory is what a machine of a site needs, MiB: its root is in it.
const memory = 768

func makeDisk(path string, bytes int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(bytes), f.Close())
	}
	if err != nil {
		return err
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", path).CombinedOutput(); err != nil {
		return fmt.Errorf("make disk: %w: %s", err, out)
	}
	return nil
}

// power switches a node on.
func (s *site) power(n *node) (err error) {
	n.Machine, err = vmtest.Boot(s.image, vmtest.Options{
		Name: n.orders.Own.Node, Directory: filepath.Dir(n.disks[0]), Memory: memory, Index: byte(n.index), Wires: []*vmtest.Hub{&s.wire}, Disks: n.disks,
	})
	return err
}

func (s *site) machines() (all []*vmtest.Machine) {
	for _, n := range s.nodes {
		all = append(all, n.Machine)
	}
	return all
}

// each does f for all nodes at the same time.
func (s *site) each(f func(*node) error) error {
	errs := make([]error, len(s.nodes))
	var all sync.WaitGroup
	for i, n := range s.nodes {
		all.Go(func() { errs[i] = f(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// shell runs a script as root.
func shell(m *vmtest.Machine, script string) error {
	if out, ok := m.Try("sh", "-ec", script); !ok {
		return fmt.Errorf("%s: %s: %s", m.Name, script, out)
	}
	return nil
}

// put writes a file of root's.
func put(m *vmtest.Machine, name, text string) error {
	if out, ok := m.Start(vmtest.Command{Argv: []string{"sh", "-c", "cat >" + name}, Input: text}).Wait(patience); !ok {
		return fmt.Errorf("%s: write %s: %s", m.Name, name, out)
	}
	return nil
}

// serve makes the controller: the verifier's key, and enclaved as its own user. It gives the key's
// digest, which all machines are told.
func (s *site) serve() (string, error) {
	c := &node{Machine: s.controller, orders: orders{Own: enclave.Peer{Addresses: addresses(100)}}}
	if err := errors.Join(c.Await(), c.join(), put(c.Machine, etcDir+"enclave.yaml", s.enclaveYAML(unknownKey))); err != nil {
		return "", err
	}
	err := shell(c.Machine, fmt.Sprintf("mkdir -p %s /run/slurm-enclave; chown %d %[1]s /run/slurm-enclave", stateDir, enclaveUID))
	if err != nil {
		return "", err
	}
	line, ok := c.Start(vmtest.Command{Argv: []string{"/usr/sbin/enclaved", "key"}, UID: enclaveUID}).Wait(patience)
	_, key, found := strings.Cut(strings.TrimSpace(line), "key: ")
	if !ok || !found {
		return "", fmt.Errorf("enclaved key: %s", line)
	}
	if err := put(c.Machine, etcDir+"enclave.yaml", s.enclaveYAML(key)); err != nil {
		return "", err
	}
	s.enclaved = c.Start(vmtest.Command{Argv: []string{"/usr/sbin/enclaved"}, UID: enclaveUID, Open: true})
	if !s.enclaved.Says("ready", patience) {
		return "", fmt.Errorf("enclaved is not ready: %s", s.enclaved.Output())
	}
	return key, nil
}

// install makes a new machine an enclave node.
func (s *site) install(n *node) error {
	tree := siteMount + "/proj/digimed"
	if err := s.mount(n); err != nil {
		return err
	}
	if err := shell(n.Machine, "mkdir -p "+filepath.Dir(tree)+"; mkdir -m 770 "+tree+"; chown 2001:2001 "+tree); err != nil {
		return err
	}
	if err := s.enrol(n); err != nil {
		return err
	}
	return shell(n.Machine, "enclave host close")
}

// mount does what the site's boot does before the node is closed.
func (s *site) mount(n *node) error {
	if err := errors.Join(n.Await(), n.join(), put(n.Machine, etcDir+"enclave.yaml", s.enclaveYAML(s.key))); err != nil {
		return err
	}
	err := shell(n.Machine, strings.Join([]string{
		"mkdir -p " + stateDir + " " + siteMount + " /lustre", "chmod 700 /srv/enclave-fs", "mkdir -m 1777 /var/tmp",
		"mkdir -m 700 /home/alice", "chown 2001:2001 /home/alice",
		"mount -t ext4 /dev/vda " + stateDir, "mount -t ext4 -o nosuid,nodev /dev/vdb " + siteMount,
		"modprobe -a configfs fuse", "mount -t tmpfs -o size=1m,mode=755 tmpfs /sys/kernel/config", "mkdir -p " + tsmDir,
		"echo '{}' >" + faultsFile, "touch " + etcDir + "enclave-node",
	}, "\n"))
	if err != nil {
		return err
	}
	n.Start(vmtest.Command{
		Argv: []string{"/usr/sbin/enclave-tsm", "--mount", tsmDir, "--hierarchy", hierarchy, "--node", n.Name, "--faults", faultsFile}, Open: true,
	})
	return shell(n.Machine, "n=0; until grep -q ' "+tsmDir+" ' /proc/mounts; do n=$((n + 1)); [ $n -lt 300 ]; usleep 100000; done")
}

// enrol asks on the node and says yes on the controller.
func (s *site) enrol(n *node) error {
	var asking *vmtest.Process
	waiting := false
	for try := 0; try < 5 && !waiting; try++ { // a TLS handshake may take too long where many share a processor
		asking = n.Start(vmtest.Command{Argv: []string{"/usr/bin/enclave", "node", "enrol", "--request"}})
		waiting = asking.Says("waiting for the admin", patience)
	}
	if !waiting {
		return fmt.Errorf("enrol %s: %s", n.Name, asking.Output())
	}
	if err := shell(s.controller, "enclave node enrol "+n.Name+" --chip "+attesttest.ChipID(n.Name).String()); err != nil {
		return err
	}
	if out, ok := asking.Wait(patience); !ok {
		return fmt.Errorf("enrol %s: %s", n.Name, out)
	}
	return nil
}

// trace is all that an enclave may change on a node, as text. Slurm's cgroups are
// not ours, and the tenant's tree is the tenant's.
func (n *node) trace(t *testing.T) string {
	t.Helper()
	state := slices.DeleteFunc(strings.SplitAfter(n.state(t), "\n"), func(line string) bool { return strings.HasPrefix(line, "/sys/fs/cgroup/system.slice") })
	return strings.Join(state, "") + n.Run(t, "sh", "-c", `find /dev/shm /var/tmp /home; cut -d' ' -f5-6,9- /proc/self/mountinfo`)
}
