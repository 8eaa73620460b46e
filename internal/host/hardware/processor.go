// Package hardware reads what this machine's processor, firmware and kernel say of memory
// encryption: CPUID, SEV_STATUS and SYSCFG, the kernel's log, kvm_amd, the devices.
//
// It reads only, loads no module and judges nothing: internal/ladder does. None of it is
// evidence, for in a guest the hypervisor answers. internal/posture calls it.
package hardware

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/cpuid/v2"

	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
)

// Machine is this machine. Root, for tests, is where its /dev, /proc and /sys are.
type Machine struct{ Root string }

func (m Machine) path(name string) string { return filepath.Join("/", m.Root, name) }

func (m Machine) exists(name string) bool {
	_, err := os.Stat(m.path(name))
	return err == nil
}

// text is a small file without space around it, "" when it can't be read.
func (m Machine) text(name string) string {
	b, err := os.ReadFile(m.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Processor asks CPUID. On other architectures than amd64 nothing is said.
func (m Machine) Processor() ladder.Processor {
	c := cpuid.CPU
	p := ladder.Processor{
		Vendor: c.VendorString, Name: strings.TrimSpace(c.BrandName), Family: c.Family, Model: c.Model, Stepping: c.Stepping,
		Hypervisor: c.Has(cpuid.HYPERVISOR), Container: m.container(), TDX: c.Has(cpuid.TDX_GUEST),
		SME: c.Has(cpuid.SME), SEV: c.Has(cpuid.SEV), SEVES: c.Has(cpuid.SEV_ES), SNP: c.Has(cpuid.SEV_SNP),
	}
	if p.Hypervisor { // without one the leaf is not defined
		p.HypervisorVendor = hypervisor(c.HypervisorVendorString)
	}
	return p
}

// hypervisor is the name that people know behind a signature of leaf 0x40000000.
func hypervisor(signature string) string {
	signature = strings.Trim(signature, "\x00 ")
	for known, name := range map[string]string{
		"KVMKVMKVM": "KVM", "Linux KVM Hv": "KVM", "Microsoft Hv": "Hyper-V", "VMwareVMware": "VMware", "XenVMMXenVMM": "Xen",
		"TCGTCGTCGTCG": "QEMU without KVM", "bhyve bhyve": "bhyve", "ACRNACRNACRN": "ACRN", "prl hyperv": "Parallels",
	} {
		if signature == known {
			return name
		}
	}
	return signature
}

// container names what keeps this process in a container, as systemd-detect-virt finds out.
func (m Machine) container() string {
	switch {
	case m.exists("/run/.containerenv"):
		return "podman"
	case m.exists("/.dockerenv"):
		return "docker"
	}
	if name := m.text("/run/systemd/container"); name != "" {
		return name
	}
	environment, err := os.ReadFile(m.path("/proc/1/environ"))
	if err != nil {
		return "" // root's to read
	}
	for v := range bytes.SplitSeq(environment, []byte{0}) {
		if name, ok := bytes.CutPrefix(v, []byte("container=")); ok {
			return string(name)
		}
	}
	return ""
}
