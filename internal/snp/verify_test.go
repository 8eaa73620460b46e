package snp_test

import (
	"bytes"
	"crypto/x509"
	"slices"
	"sync"
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

func TestRevocationList(t *testing.T) {
	h, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	other, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	chip, err := h.Chip("n1")
	require.NoError(t, err)
	report, err := chip.Signed(chip.Report([64]byte{1}))
	require.NoError(t, err)
	chain, err := snp.ParseCertificates(chip.Certificate)
	require.NoError(t, err)
	roots, err := snp.TestRoots(h.Roots())
	require.NoError(t, err)
	now := time.Now()
	list := func(h *attesttest.Hierarchy, from, to time.Duration, revoked bool) *x509.RevocationList {
		b, err := h.CRL(now.Add(from), now.Add(to), revoked)
		require.NoError(t, err)
		l, err := snp.ParseCRL(b)
		require.NoError(t, err)
		return l
	}
	for name, tt := range map[string]struct {
		crls []*x509.RevocationList
		want enclave.CheckResult
	}{
		"no list leaves the question open":  {nil, enclave.CheckUnknown},
		"a list without the key passes":     {[]*x509.RevocationList{list(other, -1, 1e12, true), list(h, -1e12, 1e12, false)}, enclave.CheckPass},
		"a revoked key is refused":          {[]*x509.RevocationList{list(h, -1e12, 1e12, true)}, enclave.CheckFail},
		"a stale list is refused":           {[]*x509.RevocationList{list(h, -2e12, -1e12, false)}, enclave.CheckFail},
		"a list of the future is refused":   {[]*x509.RevocationList{list(h, 1e12, 2e12, false)}, enclave.CheckFail},
		"a list of another root is refused": {[]*x509.RevocationList{list(other, -1e12, 1e12, false)}, enclave.CheckFail},
	} {
		t.Run(name, func(t *testing.T) {
			res := snp.Verify(report, chain, snp.Options{Roots: roots, At: now, CRLs: tt.crls})
			assert.Equal(t, tt.want, res.Checks[7].Result, res.Checks[7].Reason)
			assert.Equal(t, tt.want != enclave.CheckFail, res.Genuine)
		})
	}
}

func TestVerifyIsSafeForManyGoroutines(t *testing.T) {
	report, chain, opt := genuine(t, "milan version 2 is genuine")
	var wg sync.WaitGroup
	results := make([]snp.Result, 32)
	for i := range results {
		wg.Go(func() { results[i] = snp.Verify(report, chain, opt) })
	}
	wg.Wait()
	for _, res := range results {
		assert.True(t, res.Genuine)
		assert.Equal(t, results[0], res)
	}
}
