// Package doctortest makes a site that keeps all ground rules, of the samples in etc/, for tests
// to break.
package doctortest

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/etc"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/doctor"
	"github.com/slurm-enclave/slurm-enclave/internal/slurmconf"
)

// Files are a host's files by path; those in Insecure could have been written by others than root, directories in
// Exposed can be entered by them.
type Files struct {
	Text     map[string]string
	Insecure []string
	Exposed  []string
}

// Read gives a file.
func (f Files) Read(name string) ([]byte, error) {
	text, ok := f.Text[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(text), nil
}

// Glob matches names.
func (f Files) Glob(pattern string) ([]string, error) {
	var found []string
	for name := range f.Text {
		if ok, err := path.Match(pattern, name); err != nil {
			return nil, err
		} else if ok {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found, nil
}

// Secure is nil for what root alone could have written.
func (f Files) Secure(name string) error {
	if slices.Contains(f.Insecure, name) {
		return errors.New(name + " can be written by others")
	}
	return nil
}

// Hidden is nil for a directory that root alone may enter.
func (f Files) Hidden(name string) error {
	if slices.Contains(f.Exposed, name) {
		return errors.New(name + " is of mode 0755")
	}
	return nil
}

// String lists the files.
func (f Files) String() string {
	var names []string
	for name := range f.Text {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, "\n")
}

const slurmConf = `ClusterName=mycluster
SlurmUser=slurm
ProctrackType=proctrack/cgroup
AccountingStorageType=accounting_storage/slurmdbd
PlugStackConfig=/etc/slurm/plugstack.conf
PluginDir=/usr/lib/slurm
Include slurm.conf.d/enclave.conf
NodeName=n[1-2],c[1-4] State=UNKNOWN
PartitionName=cpu Nodes=c[1-4]
Include slurm.conf.d/partition.conf
`

const jobSubmit = `local enclave = dofile("/etc/slurm-enclave/enclave.lua")
function slurm_job_submit(d, p, uid) return enclave.submit(d, p, uid) end
function slurm_job_modify(d, r, p, uid) return enclave.modify(d, r, p, uid) end
`

// nftables is a firewall that an enclave can stand beside.
const nftables = `#!/usr/sbin/nft -f
# Not "flush ruleset".
table inet filter
delete table inet filter
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		iif lo accept
		ct state { established, related, untracked } accept
		tcp dport 22 accept
	}
}
`

// nodeFiles adds what only an enclave node has.
func (f Files) nodeFiles() {
	for _, name := range []string{
		"/etc/slurm-enclave/enclave-node", "/run/systemd/system", "/etc/systemd/system/slurmd.service.requires/enclave-host.service",
		"/etc/systemd/system/sysinit.target.wants/nftables.service",
	} {
		f.Text[name] = ""
	}
	f.Text["/lib/systemd/system/nftables.service"] = "[Service]\nExecStart=/usr/sbin/nft -f /etc/nftables.conf\nExecStop=/usr/sbin/nft flush ruleset\n"
	f.Text["/etc/systemd/system/nftables.service.d/slurm-enclave.conf"] = "[Service]\nExecStop=\n"
	f.Text["/etc/nftables.conf"] = nftables
	f.Text["/proc/sys/kernel/core_pattern"] = "core\n"
}

// Host is the files of a controller that was set up by the book.
func Host() (Files, error) {
	f := Files{Text: map[string]string{
		"/etc/slurm/slurm.conf":                     slurmConf,
		"/etc/slurm/job_submit.lua":                 jobSubmit,
		"/etc/slurm/plugstack.conf":                 "include /etc/slurm/plugstack.conf.d/*.conf\n",
		"/usr/lib/slurm/enclave.so":                 "\x7fELF",
		"/proc/sys/net/ipv4/ip_local_port_range":    "32768\t60999\n",
		"/usr/libexec/slurm-enclave/enclave-prolog": "\x7fELF",
	}}
	f.nodeFiles()
	for sample, name := range map[string]string{
		"slurm.conf.d/enclave.conf":     "/etc/slurm/slurm.conf.d/enclave.conf",
		"slurm.conf.d/partition.conf":   "/etc/slurm/slurm.conf.d/partition.conf",
		"plugstack.conf.d/enclave.conf": "/etc/slurm/plugstack.conf.d/enclave.conf",
		"prolog-slurmctld":              "/etc/slurm-enclave/prolog-slurmctld",
		"epilog-slurmctld":              "/etc/slurm-enclave/epilog-slurmctld",
		"modprobe.d/slurm-enclave.conf": "/etc/modprobe.d/slurm-enclave.conf",
	} {
		b, err := fs.ReadFile(etc.Samples, sample)
		if err != nil {
			return Files{}, fmt.Errorf("read sample: %w", err)
		}
		f.Text[name] = string(b)
	}
	return f, nil
}

// Site is what the rules see of a host.
func Site(f Files) (doctor.Site, error) {
	conf, err := slurmconf.Read(f, "/etc/slurm/slurm.conf")
	if err != nil {
		return doctor.Site{}, err
	}
	c := config.Default()
	c.Storage.Source = "/mnt/site/lustre"
	c.Cluster, c.Partitions, c.Slurm.SrunPorts = "mycluster", []string{"cpu-sev"}, config.PortRange{First: 61001, Last: 61200}
	s := doctor.Site{Config: c, Files: f, Conf: conf}
	sample, err := etc.Samples.Open("inventory.yaml")
	if err != nil {
		return doctor.Site{}, fmt.Errorf("read sample: %w", err)
	}
	defer func() { _ = sample.Close() }() // only read
	if s.Inventory, err = config.LoadInventory(sample); err != nil {
		return doctor.Site{}, err
	}
	return s, nil
}
