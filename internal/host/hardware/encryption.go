package hardware

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
)

// Model-specific registers (AMD APM volume 2, appendix A).
const (
	msrSEVStatus = 0xC0010131
	msrSysCfg    = 0xC0010010
)

// TSM is where the kernel serves reports.
const TSM = "/sys/kernel/config/tsm/report"

// Encryption reads what is switched on. Registers are read only where p says that they exist: a
// read of another one is an error in the kernel's log.
func (m Machine) Encryption(p ladder.Processor) ladder.Encryption {
	e := ladder.Encryption{
		Active: active(kernelLog()), VMPL: m.text("/sys/devices/system/cpu/sev/vmpl"), KVM: m.kvm(),
		HostDevice: m.exists("/dev/sev"), GuestDevice: m.exists("/dev/sev-guest"),
		Kernel: m.text("/proc/sys/kernel/osrelease"), TSM: m.exists(TSM),
		Configfs: strings.Contains(m.text("/proc/self/mountinfo"), " /sys/kernel/config "),
	}
	if p.Vendor != "AuthenticAMD" || !p.SEV {
		return e
	}
	register := uint32(msrSysCfg)
	if p.Hypervisor {
		register = msrSEVStatus
	}
	value, err := m.msr(register)
	switch {
	case err != nil && p.Hypervisor:
		e.StatusError = err.Error()
	case err != nil:
	case p.Hypervisor:
		e.Status = &value
	default:
		e.SysCfg = &value
	}
	return e
}

// msr reads a register of the first processor through the module msr, root's.
func (m Machine) msr(register uint32) (uint64, error) {
	f, err := os.Open(m.path("/dev/cpu/0/msr"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	var b [8]byte
	if _, err := f.ReadAt(b[:], int64(register)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, fmt.Errorf("read register %#x: %w", register, err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// kvm is nil when kvm_amd is not loaded.
func (m Machine) kvm() map[string]string {
	const dir = "/sys/module/kvm_amd/parameters/"
	if !m.exists(dir) {
		return nil
	}
	values := map[string]string{}
	for _, name := range []string{"sev", "sev_es", "sev_snp"} {
		if v := m.text(dir + name); v != "" {
			values[name] = v
		}
	}
	return values
}

// kernelLog is the kernel's log as far as it is still there and may be read.
func kernelLog() string {
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil || size <= 0 {
		return ""
	}
	b := make([]byte, size)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, b)
	if err != nil || n < 0 {
		return ""
	}
	return string(b[:n])
}

// active finds the kernel's line on memory encryption, written once at boot: "Memory Encryption
// Features active: AMD SEV SEV-ES SEV-SNP". Nil when there is none.
func active(log string) []string {
	for line := range strings.Lines(log) {
		_, features, ok := strings.Cut(line, "Memory Encryption Features active: AMD ")
		if !ok {
			continue
		}
		found := []string{}
		for word := range strings.FieldsSeq(features) {
			switch word {
			case "SME", "SEV", "SEV-ES", "SEV-SNP":
				found = append(found, word)
			}
		}
		return found
	}
	return nil
}
