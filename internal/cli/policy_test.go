package cli_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/cli"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// lab is a directory with a lab's roots, reports of its machines and policies; the source has the
// same evidence.
type lab struct {
	t     *testing.T
	dir   string
	chips *attesttest.Hierarchy
	src   *source
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir(), src: &source{evidence: map[string]api.NodeEvidence{}}}
	var err error
	l.chips, err = attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	l.write("roots/lab.pem", string(l.chips.Roots()))
	l.report("cpu-sev-1", nil)
	l.report("cpu-sev-2", func(r *attesttest.Report) { r.LaunchTCB, r.PlatformInfo = 0, 1 })
	return l
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) write(name, text string) string {
	l.t.Helper()
	require.NoError(l.t, os.MkdirAll(filepath.Dir(l.path(name)), 0o755))
	require.NoError(l.t, os.WriteFile(l.path(name), []byte(text), 0o600))
	return l.path(name)
}

func (l *lab) report(node string, change func(*attesttest.Report)) {
	l.t.Helper()
	chip, err := l.chips.Chip(node)
	require.NoError(l.t, err)
	r := chip.Report([64]byte{1})
	if change != nil {
		change(&r)
	}
	b, err := chip.Signed(r)
	require.NoError(l.t, err)
	l.write("reports/"+node+".report.bin", string(b))
	l.write("reports/"+node+".cert.der", string(chip.Certificate))
	l.src.evidence[node] = api.NodeEvidence{
		Node: node, Job: "7.0", At: time.Date(2026, 11, 20, 14, 3, 0, 0, time.UTC), Evidence: enclave.Evidence{Report: b, Certificates: chip.Table(), Provider: "sev_guest"},
	}
}

// run replaces @ by the lab's directory, in the words and in what is printed.
func (l *lab) run(line string) (string, int) {
	l.t.Helper()
	words := strings.Fields(line)
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], "@", l.dir)
	}
	out, exit := enclaveCommand(l.t, l.src, append([]string{"policy"}, words...)...)
	return strings.ReplaceAll(out, l.dir, "@"), exit
}

const simulated = " --allow-simulated --simulated-roots @/roots"

func (l *lab) policy(name, more string) string {
	l.t.Helper()
	tcb := attesttest.CurrentTCB()
	text := "name: " + name + "\nreference_values: [{name: lab, measurement: " + attesttest.LabMeasurement().String() + ", covers: [rootfs]}]\n" +
		"minimum_tcb: {milan: " + levelsText(tcb) + "}\nallow_simulated: true\n"
	return l.write(name+".yaml", text+more)
}

func levelsText(t enclave.TCB) string {
	b, _ := json.Marshal(map[string]uint8{"bl": t.Bootloader, "tee": t.TEE, "snp": t.SNP, "ucode": t.Microcode})
	return string(b)
}

func TestPolicyIsLearnedCheckedAndCompared(t *testing.T) {
	l := newLab(t)
	out, exit := l.run("learn --node cpu-sev-1 --report @/reports/cpu-sev-2.report.bin --cert @/reports/cpu-sev-2.cert.der --name site" + simulated)
	require.Zero(t, exit)
	golden(t, "policy-learn", out)
	assert.Equal(t, strings.Count(out, "covers: ["), strings.Count(out, "covers: []"), "it never sets covers")

	l.write("draft.yaml", out)
	out, exit = l.run("check @/draft.yaml")
	require.Zero(t, exit)
	assert.Contains(t, out, "no node can be affirmed")
	assert.Contains(t, out, "WARN name: enclaved reads policy site from site.yaml only")
	text, err := os.ReadFile(l.path("draft.yaml"))
	require.NoError(t, err)
	l.write("site.yaml", strings.ReplaceAll(string(text), "covers: []", "covers: [firmware, kernel, rootfs]"))
	out, exit = l.run("check @/site.yaml --report @/reports/cpu-sev-1.report.bin --cert @/reports/cpu-sev-1.cert.der" + simulated)
	require.Zero(t, exit)
	golden(t, "policy-check", withoutDigests(out))

	l.policy("strict", "")
	out, exit = l.run("diff @/site.yaml @/strict.yaml" + simulated)
	assert.Equal(t, cli.ExitBelow, exit, "cpu-sev-2 was launched on older firmware")
	golden(t, "policy-diff", withoutDigests(out))
	offline, exit := l.run("diff @/site.yaml @/strict.yaml --reports @/reports" + simulated)
	assert.Equal(t, cli.ExitBelow, exit)
	assert.Contains(t, offline, "node cpu-sev-1 stays in (SIMULATED)\nnode cpu-sev-2 FALLS BELOW (SIMULATED)\n")
}

// withoutDigests takes out what differs when a comment does.
func withoutDigests(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		head, _, found := strings.Cut(line, "sha256 ")
		if found {
			line = head + "sha256 ...\n"
		}
		out = append(out, line)
	}
	return strings.Join(out, "")
}

func TestPolicyCommandsEnd(t *testing.T) {
	l := newLab(t)
	l.policy("lab", "")
	l.policy("deny", "smt: deny\n")
	l.policy("strict", "")
	l.write("clean.yaml", "name: clean\nreference_values: [{name: x, measurement: "+strings.Repeat("ab", 48)+", covers: [rootfs]}]\npresets: [turin-2025]\nsmt: deny\nrequire_crl: true\n")
	l.write("typo.yaml", "name: x\nweak_bot: accept\n")
	l.write("debug.bin", string(testdata.AttestationBytes[:1184]))
	l.write("debug.der", string(testdata.VcekBytes))
	changed := append([]byte{}, testdata.AttestationBytes[:1184]...)
	changed[0x50] ^= 1
	l.write("changed.bin", string(changed))
	l.report("bare", nil)
	require.NoError(t, os.Remove(l.path("reports/bare.cert.der")))
	lab1 := "--report @/reports/cpu-sev-1.report.bin --cert @/reports/cpu-sev-1.cert.der"
	for name, tt := range map[string]struct {
		line string
		exit int
		out  string
	}{
		"no command":                             {"", cli.ExitUsage, ""},
		"learn without evidence":                 {"learn", cli.ExitUsage, ""},
		"learn with a certificate too many":      {"learn --report a --cert b --cert c", cli.ExitUsage, ""},
		"learn from a file that is not there":    {"learn --report @/nothing", cli.ExitFailure, ""},
		"learn from a lab":                       {"learn " + lab1, cli.ExitInvalid, ""},
		"learn from a lab, with its roots":       {"learn " + lab1 + simulated, 0, "# SIMULATED: "},
		"learn with roots that are not there":    {"learn " + lab1 + " --allow-simulated --simulated-roots @/reports", cli.ExitFailure, ""},
		"learn from a changed report":            {"learn --report @/changed.bin --cert @/debug.der", cli.ExitInvalid, ""},
		"learn from a real guest with debug on":  {"learn --report @/debug.bin --cert @/debug.der", cli.ExitFailure, ""},
		"learn without a certificate":            {"learn --report @/debug.bin", cli.ExitUnknown, ""},
		"learn of a node without evidence":       {"learn --node cpu-sev-3" + simulated, cli.ExitMissing, ""},
		"learn of a node, a lab's":               {"learn --node cpu-sev-1", cli.ExitInvalid, ""},
		"learn with an impossible time":          {"learn " + lab1 + " --at yesterday", cli.ExitUsage, ""},
		"learn when it was not valid yet":        {"learn " + lab1 + simulated + " --at 2001-01-01T00:00:00Z", cli.ExitInvalid, ""},
		"check nothing":                          {"check", cli.ExitUsage, ""},
		"check a file that is not there":         {"check @/nothing", cli.ExitFailure, ""},
		"check a policy without fault":           {"check --strict @/clean.yaml", 0, "policy clean"},
		"check a policy with warnings":           {"check @/lab.yaml", 0, "WARN allow_simulated"},
		"check it strictly":                      {"check --strict @/lab.yaml", cli.ExitBelow, "WARN allow_simulated"},
		"check a typing error":                   {"check @/lab.yaml @/typo.yaml", cli.ExitFailure, `line 2: unknown key "weak_bot", did you mean "weak_boot"`},
		"check a report against a policy":        {"check @/lab.yaml " + lab1 + simulated, 0, "SIMULATED evidence, affirmed"},
		"check a report that is below":           {"check @/lab.yaml @/deny.yaml " + lab1 + simulated, cli.ExitBelow, "FAIL E234 smt"},
		"check a report that is no report":       {"check @/lab.yaml --report @/changed.bin --cert @/debug.der", cli.ExitInvalid, "refused"},
		"check a lab's report without its roots": {"check @/lab.yaml " + lab1, cli.ExitInvalid, "refused"},
		"check a report without certificate":     {"check @/lab.yaml --report @/debug.bin", cli.ExitUnknown, ""},
		"check a certificate alone":              {"check @/lab.yaml --cert @/debug.der", cli.ExitUsage, ""},
		"diff one file":                          {"diff @/lab.yaml", cli.ExitUsage, ""},
		"diff a file that can't be used":         {"diff @/lab.yaml @/typo.yaml", cli.ExitFailure, ""},
		"diff the same file":                     {"diff --no-nodes @/lab.yaml @/lab.yaml", 0, "the same file"},
		"diff without nodes":                     {"diff --no-nodes @/lab.yaml @/deny.yaml", 0, "STRICTER  smt"},
		"diff that lets everybody in":            {"diff @/deny.yaml @/lab.yaml --reports @/reports" + simulated, cli.ExitUnknown, "node cpu-sev-1 is let in"},
		"diff of a lab's nodes without roots":    {"diff @/lab.yaml @/strict.yaml", cli.ExitUnknown, "node cpu-sev-1 not known"},
		"diff without enclaved":                  {"diff @/lab.yaml @/deny.yaml --config /broken", cli.ExitUnknown, "STRICTER  smt"},
		"diff with reports that are not there":   {"diff @/lab.yaml @/deny.yaml --reports @/roots", cli.ExitMissing, "STRICTER  smt"},
		"diff of two minds":                      {"diff @/lab.yaml @/deny.yaml --reports @/roots --no-nodes", cli.ExitUsage, ""},
	} {
		t.Run(name, func(t *testing.T) {
			out, exit := l.run(tt.line)
			assert.Equal(t, tt.exit, exit, out)
			assert.Contains(t, out, tt.out)
			if tt.out == "" {
				assert.NotContains(t, out, "reference_values:", "no half draft")
			}
		})
	}
}

func TestPolicyCommandsAreRefusedToUsers(t *testing.T) {
	l := newLab(t)
	l.policy("lab", "")
	l.src.err = enclave.Refuse("E132", enclave.FaultRequest, "evidence of nodes is for operators")
	_, exit := l.run("learn --node cpu-sev-1" + simulated)
	assert.Equal(t, cli.ExitDenied, exit)
	_, exit = l.run("diff @/lab.yaml @/lab.yaml" + simulated)
	assert.Equal(t, cli.ExitDenied, exit)
	l.src.err = errors.New("away")
	_, exit = l.run("learn --node cpu-sev-1" + simulated)
	assert.Equal(t, cli.ExitUnknown, exit)
}

func TestPolicyJSON(t *testing.T) {
	l := newLab(t)
	l.policy("lab", "")
	l.policy("deny", "smt: deny\n")
	out, exit := l.run("learn --json --node cpu-sev-1" + simulated)
	require.Zero(t, exit)
	var d appraise.Draft
	require.NoError(t, json.Unmarshal([]byte(out), &d))
	assert.NotEmpty(t, d.Decide)
	_, err := appraise.Load(strings.NewReader(d.Text))
	require.NoError(t, err)
	out, exit = l.run("check --json @/lab.yaml @/nothing")
	assert.Equal(t, cli.ExitFailure, exit)
	var list []cli.CheckedPolicy
	require.NoError(t, json.Unmarshal([]byte(out), &list))
	require.Len(t, list, 2)
	assert.True(t, list[0].Valid)
	assert.False(t, list[1].Valid)
	out, exit = l.run("diff --json @/lab.yaml @/deny.yaml" + simulated)
	assert.Equal(t, cli.ExitBelow, exit)
	var diff cli.PolicyDiff
	require.NoError(t, json.Unmarshal([]byte(out), &diff))
	require.Len(t, diff.Changes, 2)
	assert.Equal(t, appraise.Neutral, diff.Changes[0].Direction, "the name")
	assert.Equal(t, appraise.Stricter, diff.Changes[1].Direction)
	require.Len(t, diff.Nodes, 4)
	assert.Equal(t, enclave.StatusAffirming, diff.Nodes[0].From)
	assert.Equal(t, enclave.StatusContraindicated, diff.Nodes[0].To)
	assert.Equal(t, enclave.StatusNone, diff.Nodes[3].From, "a node without evidence")
}
