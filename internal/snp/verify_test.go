package snp_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// firstFailed is the check that refused, or an empty one.
func firstFailed(res snp.Result) enclave.Check {
	for _, c := range res.Checks {
		if c.Result == enclave.CheckFail {
			return c
		}
	}
	return enclave.Check{}
}

// genuine is the first committed vector, and what judges it.
func genuine(t testing.TB, name string) ([]byte, snp.Chain, snp.Options) {
	t.Helper()
	set, roots := load(t)
	i := slices.IndexFunc(set.Vectors, func(v vector) bool { return v.Name == name })
	require.GreaterOrEqual(t, i, 0)
	report, certs := set.Vectors[i].bytes(t)
	chain, err := snp.ParseCertificates(certs)
	require.NoError(t, err)
	return report, chain, snp.Options{Roots: roots, At: set.At}
}

func TestChecksHaveTheirNamesInOrder(t *testing.T) {
	res := snp.Verify(nil, snp.Chain{}, snp.Options{})
	names := make([]string, 0, len(res.Checks))
	for _, c := range res.Checks {
		names = append(names, c.Name)
	}
	assert.Equal(t, []string{"parse", "length", "version", "product", "root", "chain", "validity", "crl", "tcb", "hwid", "signature"}, names)
	assert.False(t, res.Genuine)
	assert.False(t, res.NoCertificate, "an empty report isn't a report without certificate")
	for _, c := range res.Checks[1:] {
		assert.Equal(t, enclave.Check{Name: c.Name, Result: enclave.CheckUnknown, Reason: "not reached"}, c)
	}
}

func TestEveryBitOfTheReportCounts(t *testing.T) {
	for _, name := range []string{"milan version 2 is genuine", "turin version 5 is genuine"} {
		report, chain, opt := genuine(t, name)
		require.True(t, snp.Verify(report, chain, opt).Genuine)
		for at := range report {
			changed := bytes.Clone(report)
			changed[at] ^= 1 << (at % 8)
			if at%7 != 0 && at >= 0x400 {
				continue // all zero and checked as such
			}
			require.False(t, snp.Verify(changed, chain, opt).Genuine, "%s: byte %#x flipped", name, at)
		}
	}
}

func TestChangedFieldsFailByName(t *testing.T) {
	report, chain, opt := genuine(t, "milan version 3 with the host's table is genuine")
	for name, tt := range map[string]struct {
		at   int
		with byte
		want []string
	}{
		"report data":      {0x50, 1, []string{"signature"}},
		"measurement":      {0x90, 1, []string{"signature"}},
		"host data":        {0xc0, 1, []string{"signature"}},
		"debug bit":        {0x0a, 8, []string{"signature"}},
		"vmpl":             {0x30, 1, []string{"signature"}},
		"chip id":          {0x1a0, 1, []string{"hwid", "signature"}},
		"reported tcb":     {0x187, 1, []string{"tcb", "signature"}},
		"signature r":      {0x2a0, 1, []string{"signature"}},
		"signature s":      {0x2e8, 1, []string{"signature"}},
		"padding of r":     {0x2d0, 1, []string{"signature"}},
		"algorithm":        {0x34, 3, []string{"signature"}},
		"version":          {0x00, 5, []string{"version"}},
		"reserved":         {0x220, 1, []string{"parse"}},
		"behind signature": {0x480, 1, []string{"parse"}},
	} {
		t.Run("a changed "+name+" is refused", func(t *testing.T) {
			changed := bytes.Clone(report)
			changed[tt.at] ^= tt.with
			res := snp.Verify(changed, chain, opt)
			assert.False(t, res.Genuine)
			assert.Equal(t, tt.want, failures(res))
		})
	}
}

func TestWrongLengths(t *testing.T) {
	report, chain, opt := genuine(t, "milan version 2 is genuine")
	for n, want := range map[int]string{0: "parse", 3: "parse", 672: "length", 1183: "length", 1185: "length", 2368: "length"} {
		b := append(bytes.Clone(report), make([]byte, 2000)...)[:n]
		assert.Equal(t, want, firstFailed(snp.Verify(b, chain, opt)).Name, "%d bytes", n)
	}
}

func TestWithoutCertificate(t *testing.T) {
	for name, product := range map[string]enclave.CheckResult{
		"milan version 2 is genuine": enclave.CheckUnknown, // nothing names the product
		"genoa version 3 is genuine": enclave.CheckPass,
	} {
		report, _, opt := genuine(t, name)
		res := snp.Verify(report, snp.Chain{}, opt)
		assert.False(t, res.Genuine)
		assert.True(t, res.NoCertificate)
		assert.Equal(t, []string{"chain"}, failures(res))
		assert.Equal(t, product, res.Checks[3].Result)
	}
}

func TestMalleableSignatureIsGenuine(t *testing.T) {
	// Whoever takes a report's hash for its identity could be shown one report twice.
	report, chain, opt := genuine(t, "milan version 2 is genuine")
	changed := attesttest.NegateS(report)
	require.NotEqual(t, report, changed)
	assert.True(t, snp.Verify(changed, chain, opt).Genuine)
}

func TestTimeMustBeGiven(t *testing.T) {
	report, chain, opt := genuine(t, "milan version 2 is genuine")
	opt.At = time.Time{}
	assert.Equal(t, []string{"validity"}, failures(snp.Verify(report, chain, opt)))
}

func TestZeroRootsTrustNobody(t *testing.T) {
	report, chain, opt := genuine(t, "milan version 2 is genuine")
	opt.Roots = snp.Roots{}
	assert.Equal(t, []string{"root"}, failures(snp.Verify(report, chain, opt)))
}

func TestJoinedRootsKeepTheSimulatedMark(t *testing.T) {
	amd, err := snp.AMDRoots()
	require.NoError(t, err)
	report, chain, opt := genuine(t, "milan version 2 is genuine")
	lab := opt.Roots
	for _, joined := range []snp.Roots{snp.Join(amd, lab), snp.Join(lab, amd)} {
		opt.Roots = joined
		res := snp.Verify(report, chain, opt)
		assert.True(t, res.Genuine, "%v", res.Checks)
		assert.True(t, res.Simulated)

		hardware, err := snp.ParseCertificates(testdata.VcekBytes)
		require.NoError(t, err)
		res = snp.Verify(testdata.AttestationBytes[:snp.ReportSize], hardware, snp.Options{Roots: joined, At: opt.At})
		assert.True(t, res.Genuine, "%v", res.Checks)
		assert.False(t, res.Simulated, "AMD's own report is real, whoever else is trusted")
		assert.True(t, res.Debug, "and its guest may be debugged: appraisal refuses it")
	}
	assert.False(t, snp.Verify(testdata.AttestationBytes[:snp.ReportSize], chain, snp.Options{Roots: amd, At: opt.At}).Simulated)
}
