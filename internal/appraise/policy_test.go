package appraise_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

func full(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("testdata/full.yaml")
	require.NoError(t, err)
	return string(b)
}

// edit replaces one text of the full policy, which must be there.
func edit(t testing.TB, oldNew ...string) string {
	t.Helper()
	s := full(t)
	for i := 0; i < len(oldNew); i += 2 {
		require.Contains(t, s, oldNew[i])
		s = strings.Replace(s, oldNew[i], oldNew[i+1], 1)
	}
	return s
}

func policy(t testing.TB, text string) appraise.Policy {
	t.Helper()
	p, err := appraise.Load(strings.NewReader(text))
	require.NoError(t, err)
	return p
}

func TestPoliciesThatDoNotLoad(t *testing.T) {
	m := "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30"
	for name, tt := range map[string]struct{ text, want string }{
		"an empty file":                          {"", "empty"},
		"a misspelt key":                         {edit(t, "weak_boot:", "weak_bot:"), `line 17: unknown key "weak_bot", did you mean "weak_boot"`},
		"a misspelt patch level":                 {edit(t, "snp: 24", "snpp: 24"), "did you mean"},
		"a key given twice":                      {full(t) + "vmpl: 1\n", "line 25"},
		"two documents":                          {full(t) + "---\nname: x\n", "more than one document"},
		"no name":                                {edit(t, "name: default\n", ""), "name is missing"},
		"no reference values":                    {"name: x\nminimum_tcb: {milan: {bl: 1, tee: 0, snp: 1, ucode: 1}}\n", "reference_values is empty"},
		"an empty list of reference values":      {"name: x\nreference_values: []\nminimum_tcb: {milan: {bl: 1, tee: 0, snp: 1, ucode: 1}}\n", "reference_values is empty"},
		"a short measurement":                    {edit(t, m, m[2:]), "94 hexadecimal digits"},
		"a zero measurement":                     {edit(t, m, `"`+strings.Repeat("0", 96)+`"`), "zero"},
		"a measurement listed twice":             {edit(t, "ff0203", "010203"), "twice"},
		"a reference value without name":         {edit(t, "  - name: plain OVMF 2026.02\n    measurement", "  - measurement"), "name is missing"},
		"a cover that is unknown":                {edit(t, "[firmware]", "[everything]"), "covers"},
		"no minimum":                             {"name: x\nreference_values: [{name: a, measurement: " + m + "}]\n", "minimum_tcb are empty"},
		"a minimum that leaves a level out":      {edit(t, "snp: 24, ", ""), "want bl, tee, snp and ucode"},
		"a minimum of an unknown product":        {edit(t, "milan:", "rome:"), "unknown product"},
		"an fmc of milan":                        {edit(t, "milan: {", "milan: {fmc: 1, "), "fmc for turin and zen5c only"},
		"turin without fmc":                      {edit(t, "fmc: 1, ", ""), "fmc for turin and zen5c only"},
		"a level that does not fit":              {edit(t, "snp: 24", "snp: 300"), "line"},
		"a vmpl that is none":                    {edit(t, "vmpl: 0", "vmpl: 4"), "vmpl"},
		"an smt that is neither":                 {edit(t, "smt: allow", "smt: maybe"), "want deny or allow"},
		"a weak_boot that is neither":            {edit(t, "weak_boot: refuse", "weak_boot: yes"), "want refuse or accept"},
		"a preset that is unknown":               {full(t) + "presets: [milan-1999]\n", "unknown preset \"milan-1999\": want some of milan-2025"},
		"two presets for one product":            {full(t) + "presets: [milan-2025, milan-2026]\n", "both name milan"},
		"a preset given twice":                   {full(t) + "presets: [milan-2025, milan-2025]\n", "both name milan"},
		"a cxl that is neither":                  {edit(t, "cxl: refuse", "cxl: deny"), "want refuse or accept"},
		"a launch_tcb that is neither":           {edit(t, "launch_tcb: check", "launch_tcb: true"), "want ignore or check"},
		"an alias_check that is neither":         {edit(t, "alias_check: require", "alias_check: no"), "want ignore or require"},
		"a version_2_reports that is neither":    {edit(t, "version_2_reports: refuse", "version_2_reports: allow"), "want refuse or accept"},
		"a vlek that is neither":                 {edit(t, "vlek: refuse", "vlek: x"), "want refuse or accept"},
		"a masked_chips that is neither":         {edit(t, "masked_chips: refuse", "masked_chips: x"), "want refuse or accept"},
		"an unknown flag of the guest policy":    {full(t) + "guest_policy: [debug]\n", "want some of single_socket"},
		"a flag of the guest policy, twice":      {full(t) + "guest_policy: [single_socket, single_socket]\n", "twice"},
		"an unknown flag of the platform":        {full(t) + "platform: [alias_check]\n", "want some of smt_disabled"},
		"a mitigation bit that is none":          {full(t) + "mitigations: [64]\n", "0 to 63"},
		"a mitigation bit, twice":                {full(t) + "mitigations: [1, 1]\n", "each once"},
		"a short HOST_DATA":                      {full(t) + "host_data: [00]\n", "host_data[0]"},
		"a zero HOST_DATA":                       {full(t) + "host_data: [\"" + strings.Repeat("0", 64) + "\"]\n", "zero"},
		"an empty list of HOST_DATA":             {full(t) + "host_data: []\n", "host_data is empty: leave it out"},
		"an empty list of ID keys":               {full(t) + "id_keys: []\n", "id_keys is empty"},
		"an empty list of author keys":           {full(t) + "author_keys: []\n", "author_keys is empty"},
		"an ID key listed twice":                 {full(t) + "id_keys: [" + strings.Repeat("ab", 48) + ", " + strings.Repeat("AB", 48) + "]\n", "twice"},
		"a negative security version":            {full(t) + "minimum_guest_svn: -1\n", "line"},
		"a file without end":                     {full(t) + strings.Repeat("#", 1<<20), "over 1048576 bytes"},
		"a policy that would allow debug":        {full(t) + "debug: true\n", "unknown key"},
		"a policy that would allow migration":    {full(t) + "migration_agent: true\n", "unknown key"},
		"a tag in place of a list":               {edit(t, "covers: [firmware]", "covers: !x"), "not YAML that can be decoded"},
		"a boolean that is a word of other kind": {edit(t, "allow_simulated: false", "allow_simulated: 7"), "line"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			p, err := appraise.Load(strings.NewReader(tt.text))
			require.ErrorContains(t, err, tt.want)
			assert.Equal(t, appraise.Policy{}, p)
		})
	}
}

func TestAllFaultsOfAPolicyAreNamed(t *testing.T) {
	_, err := appraise.Load(strings.NewReader("vmpl: 9\nsmt: x\n"))
	for _, want := range []string{"name is missing", "vmpl", "reference_values", "minimum_tcb", "smt"} {
		require.ErrorContains(t, err, want)
	}
}

func TestDigestIsTheFiles(t *testing.T) {
	text := full(t)
	p := policy(t, text)
	assert.Equal(t, text, p.Text())
	assert.Equal(t, enclave.Digest(sha256.Sum256([]byte(text))), p.Digest(), "what sha256sum prints")
	assert.NotEqual(t, p.Digest(), policy(t, text+"# a comment\n").Digest())
}

func TestPresetsExpand(t *testing.T) {
	r, want := good()
	only := func(lines string) appraise.Policy {
		text := full(t)
		from, to := strings.Index(text, "minimum_tcb:"), strings.Index(text, "vmpl:")
		return policy(t, text[:from]+lines+text[to:])
	}
	at := func(part string, snp, ucode uint8) enclave.SNPReport {
		r.Part = part
		r.CurrentTCB = enclave.TCB{Bootloader: 4, SNP: snp, Microcode: ucode}
		r.ReportedTCB, r.CommittedTCB, r.LaunchTCB = r.CurrentTCB, r.CurrentTCB, r.CurrentTCB
		return r
	}
	p := only("presets: [milan-2025, genoa-2025]\n")
	assert.Empty(t, failed(appraise.Appraise(p, at("milan", 24, 219), want)))
	assert.Empty(t, failed(appraise.Appraise(p, at("milan-x", 24, 68), want)))
	assert.Equal(t, []string{"tcb_minimum", "tcb_launch"}, failed(appraise.Appraise(p, at("milan", 23, 219), want)))
	assert.Equal(t, []string{"tcb_minimum", "tcb_launch"}, failed(appraise.Appraise(p, at("milan", 24, 218), want)))
	assert.Equal(t, []string{"tcb_minimum", "tcb_launch"}, failed(appraise.Appraise(p, at("turin", 255, 255), want)), "a product that no preset names")
	p = only("presets: [milan-2026]\nminimum_tcb: {milan: {bl: 4, tee: 0, snp: 27, ucode: 219}}\n")
	assert.Empty(t, failed(appraise.Appraise(p, at("milan", 27, 219), want)), "minimum_tcb replaces the preset's")
}

// A preset's name stands in policies and receipts: a level that changes needs a new name.
func TestPresetsNeverChange(t *testing.T) {
	var b strings.Builder
	for _, p := range appraise.Presets() {
		for _, part := range slices.Sorted(maps.Keys(p.Minimum)) {
			m := p.Minimum[part]
			fmt.Fprintf(&b, "%s %s fmc %d bl %d tee %d snp %d ucode %d\n", p.Name, part, m.FMC, m.Bootloader, m.TEE, m.SNP, m.Microcode)
		}
		assert.NotEmpty(t, p.Basis, p.Name)
		for _, line := range p.Basis {
			assert.Regexp(t, "AMD-SB-[0-9]{4}|no bulletin names|no number", line, p.Name)
		}
	}
	assert.Equal(t, `milan-2025 milan fmc 0 bl 4 tee 0 snp 24 ucode 219
milan-2025 milan-x fmc 0 bl 4 tee 0 snp 24 ucode 68
milan-2026 milan fmc 0 bl 4 tee 0 snp 29 ucode 222
genoa-2025 genoa fmc 0 bl 10 tee 0 snp 23 ucode 84
genoa-2025 genoa-x fmc 0 bl 10 tee 0 snp 23 ucode 79
genoa-2025 zen4c fmc 0 bl 10 tee 0 snp 23 ucode 25
genoa-2026 genoa fmc 0 bl 10 tee 0 snp 28 ucode 86
genoa-2026 genoa-x fmc 0 bl 10 tee 0 snp 28 ucode 81
genoa-2026 zen4c fmc 0 bl 10 tee 0 snp 28 ucode 27
turin-2025 turin fmc 1 bl 1 tee 1 snp 4 ucode 81
`, b.String())
}

func FuzzLoad(f *testing.F) {
	f.Add(full(f))
	f.Add("name: x\n")
	f.Add("reference_values: [{measurement: &a 00, covers: *a}]")
	f.Add("minimum_tcb: {milan: {bl: -1}}")
	f.Add("presets: [milan-2025, milan-2026]")
	f.Add("id_keys: []")
	f.Add("mitigations: [18446744073709551615]")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := appraise.Load(strings.NewReader(text))
		if err != nil {
			require.Equal(t, appraise.Policy{}, p)
			return
		}
		require.NotEmpty(t, p.Name())
		require.Equal(t, text, p.Text())
		// Whatever loads does not affirm a report that was not made for the question.
		r := appraise.Appraise(p, enclave.SNPReport{Genuine: true, Version: 3, Checks: []enclave.Check{{Name: "parse", Result: enclave.CheckPass}}}, appraise.Expectation{})
		require.NotEqual(t, enclave.StatusAffirming, r.Status)
	})
}
