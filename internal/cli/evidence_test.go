package cli_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/cli"
)

// files writes a genuine AMD report (go-sev-guest's own), variants of it, and a lab's report.
func files(t *testing.T) func(string) string {
	t.Helper()
	dir := t.TempDir()
	report := testdata.AttestationBytes[:1184]
	changed := bytes.Clone(report)
	changed[0x50] ^= 1
	future := bytes.Clone(report)
	future[0] = 6
	h, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	chip, err := h.Chip("n1")
	require.NoError(t, err)
	lab, err := chip.Signed(chip.Report([64]byte{1}))
	require.NoError(t, err)
	for name, b := range map[string][]byte{
		"report": report, "cert": testdata.VcekBytes, "changed": changed, "version6": future, "empty": {},
		"short": report[:1183], "long": append(bytes.Clone(report), 0), "garbage": []byte("hello"),
		"lab": lab, "lab-cert": chip.Certificate, "lab-table": chip.Table(), "cert-cut": testdata.VcekBytes[:100],
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	return func(name string) string { return filepath.Join(dir, name) }
}

// run gives what the command printed and its exit status.
func run(t *testing.T, store string, args ...string) (string, int, error) {
	t.Helper()
	var out bytes.Buffer
	c := cli.EvidenceCommandWithStore(&out, &out, store)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	if err == nil {
		return out.String(), 0, nil
	}
	var exit *cli.ExitError
	require.ErrorAs(t, err, &exit)
	return out.String(), exit.Code, err
}

func TestExitStatus(t *testing.T) {
	f := files(t)
	for name, tt := range map[string]struct {
		args []string
		code int
		text string
	}{
		"a genuine report is 0":                    {[]string{"--report", f("report"), "--cert", f("cert")}, 0, ""},
		"a report that does not open is 1":         {[]string{"--report", f("nothing")}, 1, "no such file"},
		"a directory is 1":                         {[]string{"--report", t.TempDir()}, 1, "is a directory"},
		"a certificate that does not open is 1":    {[]string{"--report", f("report"), "--cert", f("nothing")}, 1, "no such file"},
		"no report is 2":                           {nil, 2, "--report"},
		"an unknown flag is 2":                     {[]string{"--repport", "x"}, 2, "repport"},
		"an argument too many is 2":                {[]string{"--report", f("report"), "x"}, 2, "x"},
		"a time that is none is 2":                 {[]string{"--report", f("report"), "--at", "yesterday"}, 2, "--at"},
		"no certificate anywhere is 4":             {[]string{"--report", f("report")}, 4, "no certificate"},
		"an empty certificate is 4":                {[]string{"--report", f("report"), "--cert", f("empty")}, 4, "no certificate"},
		"an empty report is 6":                     {[]string{"--report", f("empty")}, 6, "empty"},
		"a truncated report is 6":                  {[]string{"--report", f("short"), "--cert", f("cert")}, 6, "check length: the report is cut off"},
		"a report too long is 6":                   {[]string{"--report", f("long"), "--cert", f("cert")}, 6, "check length: the report is too long"},
		"an unknown version is 6":                  {[]string{"--report", f("version6"), "--cert", f("cert")}, 6, "unknown report version 6"},
		"text is 6":                                {[]string{"--report", f("garbage")}, 6, "check parse"},
		"a changed report is 6":                    {[]string{"--report", f("changed"), "--cert", f("cert")}, 6, "check signature"},
		"a damaged certificate is 6":               {[]string{"--report", f("report"), "--cert", f("cert-cut")}, 6, "check chain"},
		"a certificate of no pinned issuer is 6":   {[]string{"--report", f("lab"), "--cert", f("lab-cert")}, 6, "check chain"},
		"a chain that ends in no pinned root is 6": {[]string{"--report", f("lab"), "--cert", f("lab-table")}, 6, "check root"},
		"an expired certificate is 6":              {[]string{"--report", f("report"), "--cert", f("cert"), "--at", "2049-01-01T00:00:00Z"}, 6, "check validity"},
	} {
		t.Run(name, func(t *testing.T) {
			_, code, err := run(t, filepath.Join(t.TempDir(), "absent"), append([]string{"verify"}, tt.args...)...)
			assert.Equal(t, tt.code, code, "%v", err)
			if tt.text != "" {
				require.ErrorContains(t, err, tt.text)
			}
			_, again, _ := run(t, "/nonexistent", append([]string{"verify", "--json"}, tt.args...)...)
			assert.Equal(t, tt.code, again, "--json changes no status")
		})
	}
}

func TestAnotherChipsCertificateIsNamed(t *testing.T) {
	f := files(t)
	other := bytes.Clone(testdata.AttestationBytes[:1184])
	other[0x1a0] ^= 1
	path := filepath.Join(t.TempDir(), "other")
	require.NoError(t, os.WriteFile(path, other, 0o600))
	_, code, err := run(t, "/nonexistent", "verify", "--report", path, "--cert", f("cert"))
	assert.Equal(t, 6, code)
	require.ErrorContains(t, err, "check hwid: the VCEK is another chip's")
}

func TestVerdictAsJSON(t *testing.T) {
	f := files(t)
	out, code, _ := run(t, "/nonexistent", "verify", "--json", "--report", f("report"), "--cert", f("cert"))
	assert.Zero(t, code)
	var got struct {
		Valid   bool
		Product string
		Version int
		Checks  []map[string]string
	}
	d := json.NewDecoder(bytes.NewReader([]byte(out)))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&got))
	assert.True(t, got.Valid)
	assert.Equal(t, "milan", got.Product)
	assert.Equal(t, 2, got.Version)
	names := []string{}
	for _, c := range got.Checks {
		names = append(names, c["name"])
		assert.Len(t, c, 3)
		if c["name"] == "crl" {
			assert.Equal(t, "unknown", c["result"])
			assert.Equal(t, "no CRL given", c["reason"])
		} else {
			assert.Equal(t, "pass", c["result"])
		}
	}
	assert.Equal(t, []string{"parse", "length", "version", "product", "root", "chain", "validity", "crl", "tcb", "hwid", "signature"}, names)
}

func TestVerdictAsText(t *testing.T) {
	f := files(t)
	out, _, _ := run(t, "/nonexistent", "verify", "--report", f("report"), "--cert", f("cert"))
	assert.Contains(t, out, "valid  product milan  report version 2\n")
	out, _, _ = run(t, "/nonexistent", "verify", "--report", f("changed"), "--cert", f("cert"))
	assert.Contains(t, out, "INVALID")
	assert.Contains(t, out, "signature  fail     the VCEK did not sign this report")
	out, _, _ = run(t, "/nonexistent", "verify", "--report", f("report"))
	assert.Contains(t, out, "unknown  product unknown")
}

func TestCertificateFromTheStore(t *testing.T) {
	f := files(t)
	report := testdata.AttestationBytes[:1184]
	store := t.TempDir()
	dir := filepath.Join(store, "milan", hex.EncodeToString(report[0x1a0:0x1e0]))
	require.NoError(t, os.MkdirAll(dir, 0o700))
	path := filepath.Join(dir, "2-0-5-68.der")
	require.NoError(t, os.WriteFile(path, testdata.VcekBytes, 0o600))
	_, code, err := run(t, store, "verify", "--report", f("report"))
	assert.Zero(t, code, "%v", err)
	_, code, _ = run(t, store, "verify", "--report", f("changed"))
	assert.Equal(t, 6, code)
	_, code, _ = run(t, store, "verify", "--report", f("lab"))
	assert.Equal(t, 4, code, "the store does not know this chip")

	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	_, code, _ = run(t, store, "verify", "--report", f("report"))
	assert.Equal(t, 1, code, "a store that can't be read is not an empty one")
}

func TestShow(t *testing.T) {
	f := files(t)
	out, code, _ := run(t, "", "show", f("report"))
	assert.Zero(t, code)
	assert.Contains(t, out, "not verified")
	assert.Contains(t, out, "debug=true")
	assert.Contains(t, out, "reported 2/0/5/68")

	out, code, _ = run(t, "", "show", "--json", f("lab"))
	assert.Zero(t, code)
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	assert.Equal(t, false, got["verified"])
	assert.Equal(t, attesttest.LabMeasurement().String(), got["measurement"])
	assert.Equal(t, attesttest.ChipID("n1").String(), got["chip_id"])

	for name, want := range map[string]int{"empty": 6, "short": 6, "long": 6, "version6": 6, "nothing": 1} {
		_, status, err := run(t, "", "show", f(name))
		assert.Equal(t, want, status, "%s: %v", name, err)
	}
	_, code, _ = run(t, "", "show")
	assert.Equal(t, 2, code)
	_, code, _ = run(t, "")
	assert.Equal(t, 2, code)
	_, code, _ = run(t, "", "shoe")
	assert.Equal(t, 2, code)
}

func TestRevocationListsOfTheCommandLine(t *testing.T) {
	f := files(t)
	foreign, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	crl, err := foreign.CRL(time.Now().Add(-time.Hour), time.Now().Add(time.Hour), false)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "x.crl")
	require.NoError(t, os.WriteFile(path, crl, 0o600))
	out, code, _ := run(t, "/nonexistent", "verify", "--report", f("report"), "--cert", f("cert"), "--crl", path)
	assert.Equal(t, 6, code, "a list that says nothing of this root leaves no good answer")
	assert.Contains(t, out, "crl        fail     no CRL given is of ARK-Milan")
	_, code, err = run(t, "/nonexistent", "verify", "--report", f("report"), "--cert", f("cert"), "--crl", f("report"))
	assert.Equal(t, 6, code)
	require.ErrorContains(t, err, "parse CRL")
	_, code, _ = run(t, "/nonexistent", "verify", "--report", f("report"), "--cert", f("cert"), "--crl", "/nonexistent")
	assert.Equal(t, 1, code)
}
