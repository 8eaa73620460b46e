package appraise_test

import (
	"crypto/sha256"
	"os"
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
		"a key given twice":                      {full(t) + "vmpl: 1\n", "line 19"},
		"two documents":                          {full(t) + "---\nname: x\n", "more than one document"},
		"no name":                                {edit(t, "name: default\n", ""), "name is missing"},
		"no reference values":                    {"name: x\nminimum_tcb: {milan: {bl: 1, tee: 0, snp: 1, ucode: 1}}\n", "reference_values is empty"},
		"an empty list of reference values":      {"name: x\nreference_values: []\nminimum_tcb: {milan: {bl: 1, tee: 0, snp: 1, ucode: 1}}\n", "reference_values is empty"},
		"a short measurement":                    {edit(t, m, m[2:]), "94 hexadecimal digits"},
		"a zero measurement":                     {edit(t, m, `"`+strings.Repeat("0", 96)+`"`), "zero"},
		"a measurement listed twice":             {edit(t, "ff0203", "010203"), "twice"},
		"a reference value without name":         {edit(t, "  - name: plain OVMF 2026.02\n    measurement", "  - measurement"), "name is missing"},
		"a cover that is unknown":                {edit(t, "[firmware]", "[everything]"), "covers"},
		"no minimum":                             {"name: x\nreference_values: [{name: a, measurement: " + m + "}]\n", "minimum_tcb is empty"},
		"a minimum that leaves a level out":      {edit(t, "snp: 24, ", ""), "want bl, tee, snp and ucode"},
		"a minimum of an unknown product":        {edit(t, "milan:", "rome:"), "unknown product"},
		"an fmc of milan":                        {edit(t, "milan: {", "milan: {fmc: 1, "), "fmc for turin only"},
		"turin without fmc":                      {edit(t, "fmc: 1, ", ""), "fmc for turin only"},
		"a level that does not fit":              {edit(t, "snp: 24", "snp: 300"), "line"},
		"a vmpl that is none":                    {edit(t, "vmpl: 0", "vmpl: 4"), "vmpl"},
		"an smt that is neither":                 {edit(t, "smt: allow", "smt: maybe"), "want deny or allow"},
		"a weak_boot that is neither":            {edit(t, "weak_boot: refuse", "weak_boot: yes"), "want refuse or accept"},
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

func TestDigestIsOfTheText(t *testing.T) {
	text := full(t)
	base := policy(t, text)
	assert.Equal(t, text, base.Text())
	assert.Equal(t, enclave.Digest(sha256.Sum256([]byte(text))), base.Digest(), "sha256sum finds it")
	for _, other := range []string{text + "\n", edit(t, "snp: 24", "snp: 23"), edit(t, "smt: allow\n", "")} {
		assert.NotEqual(t, base.Digest(), policy(t, other).Digest())
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(full(f))
	f.Add("name: x\n")
	f.Add("reference_values: [{measurement: &a 00, covers: *a}]")
	f.Add("minimum_tcb: {milan: {bl: -1}}")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := appraise.Load(strings.NewReader(text))
		if err != nil {
			require.Equal(t, appraise.Policy{}, p)
			return
		}
		require.NotEmpty(t, p.Name())
		// Whatever loads does not affirm a report that was not made for the question.
		r := appraise.Appraise(p, enclave.SNPReport{Genuine: true, Version: 3, Checks: []enclave.Check{{Name: "parse", Result: enclave.CheckPass}}}, appraise.Expectation{})
		require.NotEqual(t, enclave.StatusAffirming, r.Status)
	})
}
