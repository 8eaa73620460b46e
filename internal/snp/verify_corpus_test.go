//go:build corpus

package snp_test

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// corpusNow is when the corpus was put together; its certificates are judged then.
func corpusNow() time.Time { return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC) }

func corpus(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("ENCLAVE_CORPUS")
	if dir == "" {
		t.Fatal("tag corpus is set and ENCLAVE_CORPUS is not: it names the folder of real reports")
	}
	return dir
}

func table(t *testing.T, path string) [][]string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	r := csv.NewReader(f)
	r.Comma, r.FieldsPerRecord, r.LazyQuotes = '\t', -1, true
	lines, err := r.ReadAll()
	require.NoError(t, err)
	require.NotEmpty(t, lines)
	return lines
}

func amd(t *testing.T) snp.Roots {
	t.Helper()
	roots, err := snp.AMDRoots()
	require.NoError(t, err)
	return roots
}

func TestCorpusOfRealReports(t *testing.T) {
	dir := corpus(t)
	for _, line := range table(t, filepath.Join(dir, "MANIFEST.tsv"))[1:] {
		name, product, version, signer, expect := line[0], line[1], line[2], line[3], line[4]
		t.Run(name+" is "+expect, func(t *testing.T) {
			report, err := os.ReadFile(filepath.Join(dir, name+".report.bin"))
			require.NoError(t, err)
			cert, errCert := os.ReadFile(filepath.Join(dir, name+".cert.der"))
			if expect == "unverifiable" {
				require.ErrorIs(t, errCert, os.ErrNotExist)
				res := snp.Verify(report, snp.Chain{}, snp.Options{Roots: amd(t), At: corpusNow()})
				assert.False(t, res.Genuine)
				assert.True(t, res.NoCertificate)
				return
			}
			require.NoError(t, errCert)
			chain, err := snp.ParseCertificates(cert)
			require.NoError(t, err)
			at := corpusNow()
			if day, ok := strings.CutPrefix(expect, "valid-at-"); ok {
				late := snp.Verify(report, chain, snp.Options{Roots: amd(t), At: at})
				assert.False(t, late.Genuine)
				assert.Equal(t, "validity", firstFailed(late).Name)
				at, err = time.Parse(time.DateOnly, day)
				require.NoError(t, err)
			} else {
				require.Equal(t, "valid", expect)
			}
			res := snp.Verify(report, chain, snp.Options{Roots: amd(t), At: at})
			assert.True(t, res.Genuine, "%v", res.Checks)
			assert.False(t, res.Simulated)
			assert.Equal(t, product, res.Part)
			assert.Equal(t, version, "v"+string('0'+rune(res.Version)))
			assert.Equal(t, signer, res.Signer)
			for _, c := range res.Checks {
				if c.Name == "crl" {
					assert.Equal(t, enclave.CheckUnknown, c.Result)
				} else {
					assert.Equal(t, enclave.CheckPass, c.Result, "%s: %s", c.Name, c.Reason)
				}
			}
			oracle{}.compare(t, report, cert, at, res)
		})
	}
}

func TestCorpusOfChangedReports(t *testing.T) {
	dir := filepath.Join(corpus(t), "negative")
	for _, line := range table(t, filepath.Join(dir, "NEGATIVE.tsv")) {
		name, expect := line[0], line[1]
		t.Run(name+": "+expect, func(t *testing.T) {
			report, err := os.ReadFile(filepath.Join(dir, name+".report.bin"))
			require.NoError(t, err)
			cert, err := os.ReadFile(filepath.Join(dir, name+".cert.der"))
			require.NoError(t, err)
			chain, err := snp.ParseCertificates(cert)
			if err != nil {
				t.Log(err)
			}
			res := snp.Verify(report, chain, snp.Options{Roots: amd(t), At: corpusNow()})
			assert.Equal(t, strings.HasPrefix(expect, "accept"), res.Genuine, "%v", res.Checks)
			if !res.Genuine {
				t.Logf("%s: %s", firstFailed(res).Name, firstFailed(res).Reason)
				require.NotEmpty(t, firstFailed(res).Reason)
			}
			if name != "forged-root-chain-in-table" { // it is asked about one certificate, not about a table
				oracle{}.compare(t, report, cert, corpusNow(), res)
			}
		})
	}
}

func TestLibraryAcceptsWhatWeRefuse(t *testing.T) {
	// The reason for our own length gate. When this fails the library has learned it too.
	report, err := os.ReadFile(filepath.Join(corpus(t), "negative", "milan-v2-oversize-1185.report.bin"))
	require.NoError(t, err)
	_, err = abi.ReportToProto(report)
	require.NoError(t, err)
}
