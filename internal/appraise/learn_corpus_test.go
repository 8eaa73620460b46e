//go:build corpus

package appraise_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// Every genuine report of the world that a policy can admit is learned, and the policy that comes
// of it admits it once covers is decided.
func TestPoliciesOfRealMachines(t *testing.T) {
	dir := os.Getenv("ENCLAVE_CORPUS")
	if dir == "" {
		t.Fatal("tag corpus is set and ENCLAVE_CORPUS is not: it names the folder of real reports")
	}
	roots, err := snp.AMDRoots()
	require.NoError(t, err)
	names, err := filepath.Glob(filepath.Join(dir, "*.report.bin"))
	require.NoError(t, err)
	learned := 0
	for _, name := range names {
		cert, err := os.ReadFile(strings.TrimSuffix(name, ".report.bin") + ".cert.der")
		if err != nil {
			continue // unverifiable
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			report, err := os.ReadFile(name)
			require.NoError(t, err)
			chain, err := snp.ParseCertificates(cert)
			require.NoError(t, err)
			at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
			if strings.Contains(name, "vlek") {
				at = time.Date(2025, 4, 1, 0, 0, 0, 0, time.UTC)
			}
			res := snp.Verify(report, chain, snp.Options{Roots: roots, At: at})
			require.True(t, res.Genuine)
			d, err := appraise.Learn("real", []appraise.Sample{{From: "n1", Report: res.SNPReport}}, false)
			if res.Debug {
				require.ErrorContains(t, err, "debugging")
				return
			}
			require.NoError(t, err)
			learned++
			standing := appraise.Standing(decided(t, d), "n1", res.SNPReport)
			assert.Empty(t, failed(standing), d.Text)
			assert.Equal(t, enclave.StatusAffirming, standing.Status)
		})
	}
	assert.Greater(t, learned, 5)
}
