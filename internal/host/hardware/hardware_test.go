package hardware_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/hardware"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
)

const (
	sevStatus = 0xC0010131
	sysCfg    = 0xC0010010
)

// machine is a directory with the given files.
func machine(t *testing.T, files map[string]string) hardware.Machine {
	t.Helper()
	m := hardware.Machine{Root: t.TempDir()}
	for name, text := range files {
		file := filepath.Join(m.Root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	return m
}

// registers writes values where the module msr has them: each at its number.
func registers(t *testing.T, m hardware.Machine, values map[int64]uint64) {
	t.Helper()
	file := filepath.Join(m.Root, "dev/cpu/0/msr")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	require.NoError(t, err)
	for at, v := range values {
		_, err = f.WriteAt(binary.LittleEndian.AppendUint64(nil, v), at)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
}

func amd(hypervisor bool) ladder.Processor {
	return ladder.Processor{Vendor: "AuthenticAMD", SEV: true, Hypervisor: hypervisor}
}

func TestRegisters(t *testing.T) {
	both := map[int64]uint64{sevStatus: 5, sysCfg: 1 << 23}
	t.Run("a guest's is SEV_STATUS", func(t *testing.T) {
		m := machine(t, nil)
		registers(t, m, both)
		e := m.Encryption(amd(true))
		require.NotNil(t, e.Status)
		assert.Equal(t, uint64(5), *e.Status)
		assert.Nil(t, e.SysCfg)
	})
	t.Run("a host's is SYSCFG", func(t *testing.T) {
		m := machine(t, nil)
		registers(t, m, both)
		e := m.Encryption(amd(false))
		require.NotNil(t, e.SysCfg)
		assert.Equal(t, uint64(1<<23), *e.SysCfg)
		assert.Nil(t, e.Status)
	})
	t.Run("a register that cannot be read is said, and is not zero", func(t *testing.T) {
		e := machine(t, nil).Encryption(amd(true))
		assert.Nil(t, e.Status)
		assert.Contains(t, e.StatusError, "/dev/cpu/0/msr")
	})
	t.Run("a short register is not read", func(t *testing.T) {
		m := machine(t, map[string]string{"dev/cpu/0/msr": "x"})
		e := m.Encryption(amd(true))
		assert.Nil(t, e.Status)
		assert.Contains(t, e.StatusError, "0xc0010131")
	})
	t.Run("no other maker's registers are read", func(t *testing.T) {
		m := machine(t, nil)
		registers(t, m, both)
		e := m.Encryption(ladder.Processor{Vendor: "GenuineIntel", SEV: true, Hypervisor: true})
		assert.Nil(t, e.Status)
		assert.Empty(t, e.StatusError)
	})
}

func TestFiles(t *testing.T) {
	e := machine(t, map[string]string{
		"sys/module/kvm_amd/parameters/sev": "Y\n", "sys/module/kvm_amd/parameters/sev_snp": "N\n",
		"dev/sev": "", "sys/kernel/config/tsm/report/x": "", "proc/sys/kernel/osrelease": "6.12.41\n",
		"sys/devices/system/cpu/sev/vmpl": "0\n", "proc/self/mountinfo": "30 22 0:31 / /sys/kernel/config rw - configfs configfs rw\n",
	}).Encryption(amd(true))
	assert.Equal(t, map[string]string{"sev": "Y", "sev_snp": "N"}, e.KVM)
	assert.True(t, e.HostDevice && e.TSM && e.Configfs)
	assert.False(t, e.GuestDevice)
	assert.Equal(t, "6.12.41", e.Kernel)
	assert.Equal(t, "0", e.VMPL)
	t.Run("a machine with nothing has nothing", func(t *testing.T) {
		e := machine(t, nil).Encryption(ladder.Processor{})
		assert.Nil(t, e.KVM)
		assert.False(t, e.HostDevice || e.TSM || e.Configfs || e.GuestDevice)
	})
}

func TestContainer(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"docker leaves a file":                   {map[string]string{".dockerenv": ""}, "docker"},
		"podman leaves another":                  {map[string]string{"run/.containerenv": "", ".dockerenv": ""}, "podman"},
		"systemd's name is taken":                {map[string]string{"run/systemd/container": "systemd-nspawn\n"}, "systemd-nspawn"},
		"lxc says it to its first":               {map[string]string{"proc/1/environ": "A=b\x00container=lxc\x00"}, "lxc"},
		"a variable that only ends so is not it": {map[string]string{"proc/1/environ": "my_container=lxc\x00"}, ""},
		"a machine is none":                      {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, machine(t, c.files).Processor().Container)
		})
	}
}

func TestThisProcessorHasAMaker(t *testing.T) {
	p := hardware.Machine{}.Processor()
	assert.NotEmpty(t, p.Vendor)
	assert.NotZero(t, p.Family)
	flags, err := os.ReadFile("/proc/cpuinfo")
	require.NoError(t, err)
	assert.Contains(t, string(flags), p.Vendor)
}
