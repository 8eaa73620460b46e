package ladder_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
)

var update = flag.Bool("update", false, "write the golden files")

func milan() ladder.Processor {
	return ladder.Processor{
		Vendor: "AuthenticAMD", Name: "AMD EPYC 7763 64-Core Processor", Family: 0x19, Model: 1, Stepping: 1,
		SME: true, SEV: true, SEVES: true, SNP: true,
	}
}

func works() ladder.Probe { return ladder.Probe{Tried: true, Works: true} }

func lacks(reason string) ladder.Probe { return ladder.Probe{Tried: true, Reason: reason} }

func kernel() ladder.Kernel {
	return ladder.Kernel{WireGuard: works(), TUN: works(), NFTables: works(), Mounts: works(), Cgroup: "unified"}
}

func slurm() ladder.Slurm {
	return ladder.Slurm{
		Marker: true, Slurmd: true, Version: "slurm 24.11.5", Conf: "/etc/slurm/slurm.conf", LocalPorts: "32768\t60999",
		Settings: map[string]string{
			"prologflags": "Alloc,Contain", "prolog": "/usr/libexec/slurm-enclave/enclave-prolog",
			"epilog": "/usr/libexec/slurm-enclave/enclave-epilog", "prologepilogtimeout": "120", "srunportrange": "61001-61200",
		},
	}
}

// healthy is an SNP guest of KVM whose report a policy affirms.
func healthy() ladder.Facts {
	f := ladder.Facts{Root: true, Processor: milan(), Kernel: kernel(), Slurm: slurm()}
	f.Processor.Hypervisor, f.Processor.HypervisorVendor, f.Processor.SME = true, "KVM", false
	f.Encryption = ladder.Encryption{
		Status: new(uint64(7)), Active: []string{"SEV", "SEV-ES", "SEV-SNP"}, VMPL: "0", GuestDevice: true, Kernel: "6.12.41", Configfs: true, TSM: true,
	}
	f.Attester = ladder.Attester{
		Made:      true,
		Verdict:   &ladder.Verdict{Genuine: true, Bound: true, Part: "milan", Version: 3, Signer: "VCEK", TCB: "4/0/24/219"},
		Appraisal: ladder.Appraisal{Policy: "default", Affirms: true},
	}
	return f
}

// guest is a guest of KVM under no more than the features of status.
func guest(status uint64) ladder.Facts {
	f := healthy()
	f.Attester = ladder.Attester{}
	f.Processor.SEV, f.Processor.SEVES, f.Processor.SNP = status&1 != 0, status&2 != 0, status&4 != 0
	f.Encryption = ladder.Encryption{Kernel: "6.1.0-40-amd64", Configfs: true}
	if status != 0 {
		f.Encryption.Status = &status
	}
	return f
}

func hostMachine(kvmSNP string, syscfg uint64) ladder.Facts {
	return ladder.Facts{
		Root: true, Processor: milan(), Kernel: kernel(), Encryption: ladder.Encryption{
			SysCfg: &syscfg, KVM: map[string]string{"sev": "Y", "sev_es": "Y", "sev_snp": kvmSNP}, HostDevice: true, Kernel: "6.12.41", Configfs: true,
		},
	}
}

func intel() ladder.Facts {
	return ladder.Facts{
		Root: true, Kernel: kernel(), Encryption: ladder.Encryption{Kernel: "6.18.5"},
		Processor: ladder.Processor{
			Vendor: "GenuineIntel", Name: "Intel(R) Xeon(R) Processor", Family: 6, Model: 207, Stepping: 2,
			Hypervisor: true, HypervisorVendor: "KVM", Container: "docker",
		},
		Slurm: ladder.Slurm{ConfigError: "open /etc/slurm-enclave/enclave.yaml: no such file or directory"},
	}
}

func lab() ladder.Facts {
	f := intel()
	f.Slurm = slurm()
	f.Processor.Container = ""
	f.Kernel.WireGuard = lacks("operation not supported")
	f.Encryption.TSM = true
	f.Attester = healthy().Attester
	f.Attester.Verdict.Simulated = true
	return f
}

// machines are the fixtures: each has its golden screen.
func machines() map[string]ladder.Facts {
	noModule := guest(7)
	noModule.Encryption.Kernel = "6.12.41"
	return map[string]ladder.Facts{
		"snp-guest":            healthy(),
		"snp-guest-no-module":  noModule,
		"sev-guest":            guest(1),
		"sev-es-guest":         guest(3),
		"amd-vm-without-sev":   guest(0),
		"host-snp-off-in-bios": hostMachine("N", 1<<23),
		"host-kvm-snp-off":     hostMachine("N", 1<<23|1<<24),
		"host":                 hostMachine("Y", 1<<23|1<<24),
		"intel":                intel(),
		"lab-node":             lab(),
	}
}

func TestGolden(t *testing.T) {
	for name, facts := range machines() {
		t.Run(name, func(t *testing.T) {
			got := ladder.Climb(facts).String()
			file := filepath.Join("testdata", name+".txt")
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Equal(t, string(want), got)
		})
	}
}

// rows are the results by rung.
func rows(l ladder.Ladder) map[string]ladder.Result {
	out := map[string]ladder.Result{}
	for _, r := range l.Rows {
		out[r.Name] = r.Result
	}
	return out
}

func row(t *testing.T, l ladder.Ladder, name string) ladder.Row {
	t.Helper()
	for _, r := range l.Rows {
		if r.Name == name {
			return r
		}
	}
	require.Fail(t, "no such rung", name)
	return ladder.Row{}
}

func TestPlainSEVGuest(t *testing.T) {
	l := ladder.Climb(guest(1))
	assert.Equal(t, ladder.Unknown, l.Outcome)
	got := rows(l)
	assert.Equal(t, []ladder.Result{ladder.Pass, ladder.Fail, ladder.Fail}, []ladder.Result{got["sev"], got["sev-es"], got["sev-snp"]})
	lines := strings.Split(strings.TrimSuffix(l.String(), "\n"), "\n")
	assert.Equal(t, "SEV without SNP: no attestation is possible; cpu-sev needs SNP", lines[len(lines)-1])
	t.Run("what only a host has is not missed in a guest", func(t *testing.T) {
		assert.NotContains(t, l.String(), "/dev/sev:")
		assert.NotContains(t, l.String(), "kvm_amd")
		assert.Equal(t, ladder.None, got["sme"])
	})
	t.Run("the kernel's log tells when SEV_STATUS cannot be read", func(t *testing.T) {
		f := guest(1)
		f.Encryption.Status, f.Encryption.Active = nil, []string{"SEV"}
		assert.Equal(t, l.Conclusion, ladder.Climb(f).Conclusion)
		assert.Equal(t, ladder.Pass, rows(ladder.Climb(f))["sev"])
	})
	t.Run("CPUID alone is believed with a warning", func(t *testing.T) {
		f := guest(1)
		f.Encryption.Status, f.Encryption.StatusError = nil, "open /dev/cpu/0/msr: no such file"
		got := ladder.Climb(f)
		assert.Equal(t, l.Conclusion, got.Conclusion)
		assert.Equal(t, ladder.Warn, rows(got)["sev"])
		assert.Contains(t, row(t, got, "sev").Reason, "no such file")
	})
	t.Run("a hypervisor that shows what the host could do is not believed over SEV_STATUS", func(t *testing.T) {
		f := guest(7)
		f.Encryption.Status = new(uint64(1))
		assert.Equal(t, l.Conclusion, ladder.Climb(f).Conclusion)
	})
}

func TestOutcome(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*ladder.Facts)
		want   ladder.Outcome
		first  string // of the first line
	}{
		"a healthy guest is ready": {func(*ladder.Facts) {}, ladder.Ready, "SNP guest of KVM, AMD EPYC Milan: nothing to fix"},
		"a report that does not verify is invalid": {func(f *ladder.Facts) {
			*f.Attester.Verdict = ladder.Verdict{Bound: true, Failed: []enclave.Check{{Name: "signature", Result: enclave.CheckFail, Reason: "wrong"}}}
		}, ladder.Invalid, "enclave explain E220"},
		"a genuine report over other bytes is invalid": {func(f *ladder.Facts) { f.Attester.Verdict.Bound = false }, ladder.Invalid, "replays reports"},
		"a simulated report over other bytes is invalid, not simulated": {func(f *ladder.Facts) {
			f.Attester.Verdict.Bound, f.Attester.Verdict.Simulated = false, true
		}, ladder.Invalid, "replays reports"},
		"a missing certificate leaves it open": {func(f *ladder.Facts) {
			f.Attester.Verdict.Genuine, f.Attester.Verdict.NoCertificate = false, true
		}, ladder.Unknown, "certificates"},
		"a missing certificate does not excuse other bytes": {func(f *ladder.Facts) {
			*f.Attester.Verdict = ladder.Verdict{NoCertificate: true}
		}, ladder.Invalid, "replays reports"},
		"a policy that refuses is below": {func(f *ladder.Facts) {
			f.Attester.Appraisal = ladder.Appraisal{Policy: "default", Failed: []ladder.Failed{{Check: enclave.Check{Name: "tcb", Reason: "snp 22 is below 24"}, Code: "E235"}}}
		}, ladder.Below, "enclave explain E235"},
		"a policy that says nothing does not affirm": {func(f *ladder.Facts) {
			f.Attester.Appraisal = ladder.Appraisal{Policy: "default"}
		}, ladder.Below, "enclave explain E239"},
		"a policy that cannot be read leaves it open": {func(f *ladder.Facts) {
			f.Attester.Appraisal = ladder.Appraisal{Error: "policy.d/default.yaml: line 3"}
		}, ladder.Unknown, "correct the file"},
		"no policy here is the verifier's matter": {func(f *ladder.Facts) { f.Attester.Appraisal = ladder.Appraisal{} }, ladder.Ready, "nothing to fix"},
		"a weak boot is ready and said":           {func(f *ladder.Facts) { f.Attester.Appraisal.Weak = true }, ladder.Ready, "E230"},
		"a wrong provider makes no report": {func(f *ladder.Facts) {
			f.Attester = ladder.Attester{Refusal: &enclave.Refusal{Code: "E225", Reason: "tdx_guest", Fix: "boot as SNP"}}
		}, ladder.Unknown, "boot as SNP"},
		"who is not root cannot tell": {func(f *ladder.Facts) {
			f.Root, f.Attester, f.Kernel = false, ladder.Attester{}, ladder.Kernel{Cgroup: "unified"}
		}, ladder.Unknown, "run enclave ok as root"},
		"configfs that is not mounted": {func(f *ladder.Facts) {
			f.Attester, f.Encryption.TSM, f.Encryption.Configfs = ladder.Attester{}, false, false
		}, ladder.Unknown, "mount -t configfs"},
		"a kernel without configfs-tsm": {func(f *ladder.Facts) {
			f.Attester, f.Encryption.TSM = ladder.Attester{}, false
		}, ladder.Unknown, "Linux 6.7"},
		"no packet filter is below": {func(f *ladder.Facts) { f.Kernel.NFTables = lacks("protocol not supported") }, ladder.Below, "CONFIG_NF_TABLES_INET"},
		"userspace WireGuard is enough": {func(f *ladder.Facts) {
			f.Kernel.WireGuard = lacks("operation not supported")
		}, ladder.Ready, "wireguard"},
		"neither WireGuard nor TUN is below": {func(f *ladder.Facts) {
			f.Kernel.WireGuard, f.Kernel.TUN = lacks("operation not supported"), lacks("no such device")
		}, ladder.Below, "wireguard"},
		"a TDX guest is no SNP guest": {func(f *ladder.Facts) {
			*f = intel()
			f.Processor.TDX = true
		}, ladder.Unknown, "TDX guest"},
		"the zero facts prove nothing": {func(f *ladder.Facts) { *f = ladder.Facts{} }, ladder.Unknown, "unknown processor"},
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			c.change(&f)
			l := ladder.Climb(f)
			assert.Equal(t, c.want, l.Outcome, l)
			line, _, _ := strings.Cut(l.String(), "\n")
			assert.Contains(t, line, c.first, l)
			assert.Equal(t, f.Attester.Verdict != nil && l.Simulated, strings.HasPrefix(line, "SIMULATED"))
		})
	}
}

func TestSimulatedSaysSo(t *testing.T) {
	l := ladder.Climb(lab())
	assert.True(t, l.Simulated)
	assert.True(t, strings.HasPrefix(l.String(), "SIMULATED, proves nothing about hardware: plain VM of KVM, Intel: "), l)
	assert.True(t, strings.HasPrefix(l.Conclusion, "SIMULATED"), l.Conclusion)
	assert.Equal(t, ladder.Ready, l.Outcome)
}

func TestSlurm(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*ladder.Slurm)
		rung   string
		want   ladder.Result
		reason string
	}{
		"all settings hold":               {func(*ladder.Slurm) {}, "slurm.conf", ladder.Pass, "SrunPortRange"},
		"flags are read in any case":      {func(s *ladder.Slurm) { s.Settings["prologflags"] = "alloc, CONTAIN,x11" }, "slurm.conf", ladder.Pass, ""},
		"without Contain":                 {func(s *ladder.Slurm) { s.Settings["prologflags"] = "Alloc" }, "slurm.conf", ladder.Fail, "Alloc and Contain"},
		"Serial would deadlock":           {func(s *ladder.Slurm) { s.Settings["prologflags"] = "Alloc,Contain,Serial" }, "slurm.conf", ladder.Fail, "serial"},
		"no prolog":                       {func(s *ladder.Slurm) { delete(s.Settings, "prolog") }, "slurm.conf", ladder.Fail, "Prolog not set"},
		"a timeout below the barrier":     {func(s *ladder.Slurm) { s.Settings["prologepilogtimeout"] = "60" }, "slurm.conf", ladder.Fail, "60, below"},
		"no timeout is no limit":          {func(s *ladder.Slurm) { delete(s.Settings, "prologepilogtimeout") }, "slurm.conf", ladder.Pass, ""},
		"no ports":                        {func(s *ladder.Slurm) { delete(s.Settings, "srunportrange") }, "slurm.conf", ladder.Fail, "SrunPortRange not set"},
		"ports of outgoing connections":   {func(s *ladder.Slurm) { s.Settings["srunportrange"] = "60001-63000" }, "slurm.conf", ladder.Fail, "ip_local_port_range"},
		"ports that are none":             {func(s *ladder.Slurm) { s.Settings["srunportrange"] = "61200-61001" }, "slurm.conf", ladder.Fail, "no range"},
		"no slurm.conf":                   {func(s *ladder.Slurm) { s.Conf = "" }, "slurm.conf", ladder.Warn, "not found"},
		"a slurm.conf that is not read":   {func(s *ladder.Slurm) { s.ConfError = "permission denied" }, "slurm.conf", ladder.Warn, "permission"},
		"a gate that is optional":         {func(s *ladder.Slurm) { s.Gate = &enclave.Refusal{Reason: "optional", Fix: "required"} }, "gate", ladder.Fail, "optional"},
		"a marker that others may write":  {func(s *ladder.Slurm) { s.MarkerBad = &enclave.Refusal{Reason: "mode 0666"} }, "marker", ladder.Fail, "0666"},
		"an enclave.yaml that is wrong":   {func(s *ladder.Slurm) { s.ConfigError = "line 3" }, "config", ladder.Fail, "line 3"},
		"a node without slurmd":           {func(s *ladder.Slurm) { s.Slurmd = false }, "slurmd", ladder.Fail, "no slurmd"},
		"another machine without slurmd":  {func(s *ladder.Slurm) { *s = ladder.Slurm{} }, "slurmd", ladder.Warn, "no slurmd"},
		"a machine that is no node yet":   {func(s *ladder.Slurm) { s.Marker = false }, "marker", ladder.Warn, "enclave-node"},
		"settings matter on a node first": {func(s *ladder.Slurm) { s.Marker, s.Settings = false, nil }, "slurm.conf", ladder.Warn, "PrologFlags"},
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			c.change(&f.Slurm)
			got := row(t, ladder.Climb(f), c.rung)
			assert.Equal(t, c.want, got.Result, got)
			assert.Contains(t, got.Reason, c.reason)
		})
	}
}

func TestGenerations(t *testing.T) {
	for _, c := range []struct {
		family, model int
		name          string
		want          ladder.Result
	}{
		{0x17, 0x01, "Naples", ladder.Fail},
		{0x17, 0x31, "Rome", ladder.Fail},
		{0x19, 0x01, "Milan", ladder.Pass},
		{0x19, 0x11, "Genoa", ladder.Pass},
		{0x19, 0xa0, "Siena or Bergamo", ladder.Pass},
		{0x1a, 0x02, "Turin", ladder.Pass},
		{0x1a, 0x50, "family 0x1a model 0x50", ladder.Warn},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := hostMachine("Y", 1<<23|1<<24)
			f.Processor.Family, f.Processor.Model = c.family, c.model
			l := ladder.Climb(f)
			assert.Contains(t, l.Machine, c.name)
			assert.Equal(t, c.want, rows(l)["cpu"])
		})
	}
}

func TestFactsSurviveJSON(t *testing.T) {
	for name, f := range machines() {
		t.Run(name, func(t *testing.T) {
			b, err := json.Marshal(f)
			require.NoError(t, err)
			var back ladder.Facts
			require.NoError(t, json.Unmarshal(b, &back))
			assert.Equal(t, f, back)
		})
	}
}
