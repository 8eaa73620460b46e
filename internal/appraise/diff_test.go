package appraise_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
)

func TestDiffIsOfTheMeaning(t *testing.T) {
	same := edit(t, "# What an affirmed node of this cluster looks like.\n", "", "[firmware, kernel, rootfs]", "[rootfs, firmware, kernel, kernel]",
		"smt: allow\n", "", "weak_boot: refuse\n", "", "committed_equals_current: true\n", "", "cxl: refuse\n", "", "launch_tcb: check\n", "",
		"alias_check: require\n", "", "version_2_reports: refuse\n", "", "vlek: refuse\n", "", "masked_chips: refuse\n", "")
	assert.Empty(t, appraise.Diff(policy(t, full(t)), policy(t, same)), "order, comments and defaults are no changes")
	preset := edit(t, "minimum_tcb:\n  milan: {bl: 4, tee: 0, snp: 24, ucode: 219}\n  turin: {fmc: 1, bl: 1, tee: 1, snp: 4, ucode: 81}\n", "presets: [milan-2025, turin-2025]\n")
	assert.Equal(t, []appraise.Change{{Key: "minimum_tcb milan-x", From: "-", To: "{bl: 4, tee: 0, snp: 24, ucode: 68}", Direction: appraise.Looser}},
		appraise.Diff(policy(t, full(t)), policy(t, preset)), "a preset that is written out is none, either")
}

func TestDiffSaysWhatGetsLooser(t *testing.T) {
	lists := func(lines string) string { return full(t) + lines }
	h1, h2 := strings.Repeat("01", 32), strings.Repeat("02", 32)
	k1, k2 := strings.Repeat("01", 48), strings.Repeat("02", 48)
	for name, tt := range map[string]struct {
		from, to string
		key      string
		want     appraise.Direction
		back     appraise.Direction
	}{
		"name":                 {full(t), edit(t, "name: default", "name: other"), "name", appraise.Neutral, appraise.Neutral},
		"a reference renamed":  {full(t), edit(t, "rocky 9.6", "rocky 9.7"), "reference_values 0102030405060708...", appraise.Neutral, appraise.Neutral},
		"a reference less":     {full(t), edit(t, "  - name: plain OVMF 2026.02\n    measurement: ff02030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30\n    covers: [firmware]\n", ""), "reference_values ff02030405060708...", appraise.Stricter, appraise.Looser},
		"covers more":          {full(t), edit(t, "covers: [firmware]", "covers: [firmware, rootfs]"), "reference_values ff02030405060708...", appraise.Looser, appraise.Stricter},
		"covers another":       {full(t), edit(t, "covers: [firmware]", "covers: [kernel]"), "reference_values ff02030405060708...", appraise.Mixed, appraise.Mixed},
		"a level raised":       {full(t), edit(t, "snp: 24", "snp: 25"), "minimum_tcb milan", appraise.Stricter, appraise.Looser},
		"one up, one down":     {full(t), edit(t, "snp: 24", "snp: 25", "ucode: 219", "ucode: 218"), "minimum_tcb milan", appraise.Mixed, appraise.Mixed},
		"fmc raised":           {full(t), edit(t, "fmc: 1", "fmc: 2"), "minimum_tcb turin", appraise.Stricter, appraise.Looser},
		"a product less":       {full(t), edit(t, "  turin: {fmc: 1, bl: 1, tee: 1, snp: 4, ucode: 81}\n", ""), "minimum_tcb turin", appraise.Stricter, appraise.Looser},
		"vmpl":                 {full(t), edit(t, "vmpl: 0", "vmpl: 1"), "vmpl", appraise.Mixed, appraise.Mixed},
		"image version":        {full(t), lists("minimum_guest_svn: 2\n"), "minimum_guest_svn", appraise.Stricter, appraise.Looser},
		"guest policy":         {lists("guest_policy: [single_socket]\n"), lists("guest_policy: [ciphertext_hiding, single_socket]\n"), "guest_policy", appraise.Stricter, appraise.Looser},
		"platform":             {lists("platform: [ecc]\n"), lists("platform: [tsme]\n"), "platform", appraise.Mixed, appraise.Mixed},
		"mitigations":          {full(t), lists("mitigations: [1, 10]\n"), "mitigations", appraise.Stricter, appraise.Looser},
		"host data asked":      {full(t), lists("host_data: [" + h1 + "]\n"), "host_data", appraise.Stricter, appraise.Looser},
		"host data, one more":  {lists("host_data: [" + h1 + "]\n"), lists("host_data: [" + h1 + ", " + h2 + "]\n"), "host_data", appraise.Looser, appraise.Stricter},
		"another ID key":       {lists("id_keys: [" + k1 + "]\n"), lists("id_keys: [" + k2 + "]\n"), "id_keys", appraise.Mixed, appraise.Mixed},
		"author keys asked":    {full(t), lists("author_keys: [" + k1 + "]\n"), "author_keys", appraise.Stricter, appraise.Looser},
		"committed":            {full(t), edit(t, "current: true", "current: false"), "committed_equals_current", appraise.Looser, appraise.Stricter},
		"require_crl":          {full(t), edit(t, "require_crl: false", "require_crl: true"), "require_crl", appraise.Stricter, appraise.Looser},
		"allow_simulated":      {full(t), edit(t, "allow_simulated: false", "allow_simulated: true"), "allow_simulated", appraise.Looser, appraise.Stricter},
		"smt":                  {full(t), edit(t, "smt: allow", "smt: deny"), "smt", appraise.Stricter, appraise.Looser},
		"cxl":                  {full(t), edit(t, "cxl: refuse", "cxl: accept"), "cxl", appraise.Looser, appraise.Stricter},
		"launch_tcb":           {full(t), edit(t, "launch_tcb: check", "launch_tcb: ignore"), "launch_tcb", appraise.Looser, appraise.Stricter},
		"alias_check":          {full(t), edit(t, "alias_check: require", "alias_check: ignore"), "alias_check", appraise.Looser, appraise.Stricter},
		"weak_boot":            {full(t), edit(t, "weak_boot: refuse", "weak_boot: accept"), "weak_boot", appraise.Looser, appraise.Stricter},
		"version_2_reports":    {full(t), edit(t, "reports: refuse", "reports: accept"), "version_2_reports", appraise.Looser, appraise.Stricter},
		"vlek":                 {full(t), edit(t, "vlek: refuse", "vlek: accept"), "vlek", appraise.Looser, appraise.Stricter},
		"masked_chips":         {full(t), edit(t, "masked_chips: refuse", "masked_chips: accept"), "masked_chips", appraise.Looser, appraise.Stricter},
		"a reference replaced": {full(t), edit(t, "measurement: ff02", "measurement: ee02"), "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := policy(t, tt.from), policy(t, tt.to)
			if tt.key == "" {
				assert.Len(t, appraise.Diff(from, to), 2, "one more and one less")
				return
			}
			one := appraise.Diff(from, to)
			if assert.Len(t, one, 1) {
				assert.Equal(t, tt.key, one[0].Key)
				assert.Equal(t, tt.want, one[0].Direction)
				assert.NotEqual(t, one[0].From, one[0].To)
			}
			other := appraise.Diff(to, from)
			if assert.Len(t, other, 1) {
				assert.Equal(t, tt.back, other[0].Direction)
				assert.Equal(t, one[0].From, other[0].To)
			}
		})
	}
}
