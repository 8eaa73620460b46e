package appraise_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

func sample(change func(*enclave.SNPReport)) appraise.Sample {
	r, _ := good()
	if change != nil {
		change(&r)
	}
	return appraise.Sample{From: "n1", Report: r}
}

// decided is a draft after the admin has filled in covers.
func decided(t *testing.T, d appraise.Draft) appraise.Policy {
	t.Helper()
	require.Contains(t, d.Text, "covers: []")
	return policy(t, strings.ReplaceAll(d.Text, "covers: []", "covers: [firmware, kernel, rootfs]"))
}

func TestWhatIsLearnedAdmitsTheMachineOnceCoversIsDecided(t *testing.T) {
	for name, change := range map[string]func(*enclave.SNPReport){
		"a plain machine": nil,
		"no SMT":          func(r *enclave.SNPReport) { r.SMT = false },
		"old firmware":    func(r *enclave.SNPReport) { r.ReportedTCB.SNP, r.LaunchTCB.SNP = 3, 2 },
		"new firmware": func(r *enclave.SNPReport) {
			r.ReportedTCB = enclave.TCB{Bootloader: 9, SNP: 99, Microcode: 255}
			r.LaunchTCB = r.ReportedTCB
		},
		"launched on older firmware": func(r *enclave.SNPReport) { r.LaunchTCB.SNP = 20 },
		"firmware that can go back":  func(r *enclave.SNPReport) { r.CommittedTCB.SNP-- },
		"a VLEK, masked, at VMPL 1":  func(r *enclave.SNPReport) { r.Signer, r.ChipID, r.VMPL = "VLEK", enclave.ChipID{}, 1 },
		"version 2":                  func(r *enclave.SNPReport) { r.Version, r.PlatformInfo = 2, 1 },
		"no alias check":             func(r *enclave.SNPReport) { r.PlatformInfo = 5 },
		"a turin dense":              func(r *enclave.SNPReport) { r.Product, r.Part = "turin", "zen5c" },
		"a bergamo with ID key and CXL": func(r *enclave.SNPReport) {
			r.Product, r.Part, r.IDKeyDigest = "genoa", "zen4c", enclave.KeyDigest{1}
			r.Policy |= 1 << 21
		},
		"HOST_DATA and author key": func(r *enclave.SNPReport) { r.HostData, r.AuthorKeyDigest = [32]byte{1}, enclave.KeyDigest{2} },
	} {
		t.Run(name, func(t *testing.T) {
			s := sample(change)
			d, err := appraise.Learn("site", []appraise.Sample{s}, false)
			require.NoError(t, err)
			assert.NotEmpty(t, d.Decide)
			for _, q := range d.Decide {
				assert.Contains(t, d.Text, "# DECIDE "+q+"\n")
			}
			res := appraise.Standing(policy(t, d.Text), "n1", s.Report)
			assert.Equal(t, []string{"covers"}, failed(res), "it never sets covers")
			p := decided(t, d)
			assert.Equal(t, "site", p.Name())
			assert.False(t, p.AllowsSimulated())
			res = appraise.Standing(p, "n1", s.Report)
			assert.Empty(t, failed(res), d.Text)
			assert.Equal(t, enclave.StatusAffirming, res.Status)
		})
	}
}

func TestWhatCanNotBeLearned(t *testing.T) {
	for name, tt := range map[string]struct {
		change    func(*enclave.SNPReport)
		simulated bool
		want      string
	}{
		"evidence that is not genuine":      {func(r *enclave.SNPReport) { r.Genuine = false }, true, "not genuine"},
		"evidence that nobody checked":      {func(r *enclave.SNPReport) { r.Checks = nil }, true, "not genuine"},
		"simulated evidence":                {func(r *enclave.SNPReport) { r.Simulated = true }, false, "SIMULATED"},
		"a guest that the host may debug":   {func(r *enclave.SNPReport) { r.Debug = true }, false, "debugging"},
		"a guest with a migration agent":    {func(r *enclave.SNPReport) { r.MigrationAgent = true }, false, "migration"},
		"a zero measurement":                {func(r *enclave.SNPReport) { r.Measurement = enclave.Measurement{} }, false, "zero"},
		"a product without levels":          {func(r *enclave.SNPReport) { r.Part = "venice" }, false, "venice"},
		"simulated and not genuine as well": {func(r *enclave.SNPReport) { r.Simulated, r.Genuine = true, false }, true, "not genuine"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := appraise.Learn("x", []appraise.Sample{sample(tt.change)}, tt.simulated)
			require.ErrorContains(t, err, tt.want)
		})
	}
	_, err := appraise.Learn("x", nil, true)
	require.ErrorContains(t, err, "no evidence")
	_, err = appraise.Learn("x", []appraise.Sample{sample(nil), sample(func(r *enclave.SNPReport) { r.VMPL = 1 })}, true)
	require.ErrorContains(t, err, "different VMPLs")
	_, err = appraise.Learn("bad: name", []appraise.Sample{sample(nil)}, true)
	require.Error(t, err, "what it writes must load")
}

func TestSimulatedIsWrittenInTheOpen(t *testing.T) {
	d, err := appraise.Learn("lab", []appraise.Sample{sample(func(r *enclave.SNPReport) { r.Simulated = true })}, true)
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(d.Text, "# SIMULATED: "))
	assert.Contains(t, d.Text, "\nallow_simulated: true\n")
}

func TestLearningFromSeveralMachines(t *testing.T) {
	other := sample(func(r *enclave.SNPReport) { r.Measurement[0], r.Product, r.Part = 0xee, "genoa", "genoa-x" })
	other.From = "n2\n# allow_simulated: true\""
	other.Report.ReportedTCB = enclave.TCB{Bootloader: 10, SNP: 28, Microcode: 81}
	other.Report.LaunchTCB = other.Report.ReportedTCB
	d, err := appraise.Learn("site", []appraise.Sample{sample(nil), other, sample(nil)}, false)
	require.NoError(t, err)
	assert.Equal(t, 2, strings.Count(d.Text, "measurement: "))
	assert.Contains(t, d.Text, "presets: [genoa-2026, milan-2025]\n")
	assert.Contains(t, d.Text, "DECIDE presets milan: milan-2026 is newer")
	p := decided(t, d)
	for _, s := range []appraise.Sample{sample(nil), other} {
		assert.Empty(t, failed(appraise.Standing(p, "x", s.Report)))
	}
	// Parts of one product under presets that exclude each other are written out.
	old := sample(func(r *enclave.SNPReport) { r.Product, r.Part = "genoa", "genoa" })
	old.Report.ReportedTCB = enclave.TCB{Bootloader: 10, SNP: 23, Microcode: 84}
	old.Report.LaunchTCB = old.Report.ReportedTCB
	d, err = appraise.Learn("site", []appraise.Sample{old, other}, false)
	require.NoError(t, err)
	assert.NotContains(t, d.Text, "\npresets:")
	p = decided(t, d)
	for _, s := range []appraise.Sample{old, other} {
		assert.Empty(t, failed(appraise.Standing(p, "x", s.Report)))
	}
}

func TestReviewNamesWhatIsWeak(t *testing.T) {
	strict := edit(t, "require_crl: false", "require_crl: true", "smt: allow", "smt: deny", "  - name: plain OVMF 2026.02\n", "  - name: another image\n",
		"covers: [firmware]", "covers: [rootfs]", "milan: {bl: 4, tee: 0, snp: 24, ucode: 219}", "milan: {bl: 4, tee: 0, snp: 29, ucode: 222}")
	assert.Empty(t, appraise.Review(policy(t, strict)))
	for _, tt := range []struct{ from, to, key string }{
		{"allow_simulated: false", "allow_simulated: true", "allow_simulated"},
		{"weak_boot: refuse", "weak_boot: accept", "weak_boot"},
		{"covers: [rootfs]", "covers: [firmware, kernel]", "reference_values"},
		{"launch_tcb: check", "launch_tcb: ignore", "launch_tcb"},
		{"current: true", "current: false", "committed_equals_current"},
		{"alias_check: require", "alias_check: ignore", "alias_check"},
		{"require_crl: true", "require_crl: false", "require_crl"},
		{"version_2_reports: refuse", "version_2_reports: accept", "version_2_reports"},
		{"vlek: refuse", "vlek: accept", "vlek"},
		{"masked_chips: refuse", "masked_chips: accept", "masked_chips"},
		{"cxl: refuse", "cxl: accept", "cxl"},
		{"smt: deny", "smt: allow", "smt"},
		{"vmpl: 0", "vmpl: 2", "vmpl"},
		{"ucode: 222", "ucode: 221", "minimum_tcb milan"},
		{"snp: 29", "snp: 28", "minimum_tcb milan"},
		{"fmc: 1", "fmc: 0", "minimum_tcb turin"},
		{"  turin: {", "  zen5c: {", "minimum_tcb zen5c"},
	} {
		require.Contains(t, strict, tt.from)
		found := appraise.Review(policy(t, strings.Replace(strict, tt.from, tt.to, 1)))
		if assert.Len(t, found, 1, tt.to) {
			assert.Equal(t, tt.key, found[0].Key)
		}
	}
	none := strings.ReplaceAll(strings.Replace(strict, "[firmware, kernel, rootfs]", "[]", 1), "covers: [rootfs]", "covers: []")
	found := appraise.Review(policy(t, none))
	require.Len(t, found, 1)
	assert.Contains(t, found[0].Text, "no node can be affirmed")
}

func TestStandingIsNoAffirmationOfWhatIsNotGenuine(t *testing.T) {
	r, _ := good()
	p := policy(t, full(t))
	assert.Equal(t, enclave.StatusAffirming, appraise.Standing(p, "n1", r).Status)
	r.Genuine = false
	assert.NotEqual(t, enclave.StatusAffirming, appraise.Standing(p, "n1", r).Status)
	assert.NotEqual(t, enclave.StatusAffirming, appraise.Standing(p, "n1", enclave.SNPReport{Genuine: true}).Status)
}
