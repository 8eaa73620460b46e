package snp_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/google/go-sev-guest/verify/trust"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

func TestAnchorsAreTheNineKeysOfAMD(t *testing.T) {
	t.Parallel()
	amd, err := snp.AMDRoots()
	require.NoError(t, err)
	anchors := amd.Anchors()
	names := make([]string, 0, len(anchors))
	for _, a := range anchors {
		names = append(names, a.Name)
		assert.False(t, a.Simulated)
		assert.True(t, a.NotAfter.After(a.NotBefore))
	}
	assert.Equal(t, []string{
		"ARK-Milan", "ARK-Genoa", "ARK-Turin", "SEV-Milan", "SEV-VLEK-Milan", "SEV-Genoa", "SEV-VLEK-Genoa", "SEV-Turin", "SEV-VLEK-Turin",
	}, names)
	assert.Equal(t, "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd", anchors[0].SHA256.String())
	assert.Empty(t, snp.Roots{}.Anchors())
}

func TestRealEndorsementIsRead(t *testing.T) {
	t.Parallel()
	amd, err := snp.AMDRoots()
	require.NoError(t, err)
	e, err := amd.Endorsement(testdata.VcekBytes)
	require.NoError(t, err)
	res := snp.Verify(testdata.AttestationBytes[:snp.ReportSize], snp.Chain{}, snp.Options{})
	assert.Equal(t, "milan", e.Product)
	assert.Equal(t, "VCEK", e.Signer)
	assert.Equal(t, res.ChipID, e.Chip)
	assert.Equal(t, res.ReportedTCB, e.TCB)
	assert.False(t, e.Simulated)
	assert.True(t, e.NotAfter.After(e.NotBefore))
}

func TestEndorsementsOfEveryKind(t *testing.T) {
	t.Parallel()
	for _, product := range []string{"Milan", "Genoa", "Turin"} {
		for _, opts := range [][]attesttest.Option{{}, {attesttest.VLEK()}} {
			h, err := attesttest.NewHierarchy(t.TempDir(), append(opts, attesttest.SmallKeys(), attesttest.Product(product))...)
			require.NoError(t, err)
			tcb := attesttest.CurrentTCB()
			until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
			chip, err := h.NewChip(attesttest.ChipID("n1"), tcb, attesttest.Validity{NotBefore: until.Add(-2 * time.Hour), NotAfter: until})
			require.NoError(t, err)
			roots, err := snp.TestRoots(h.Roots())
			require.NoError(t, err)
			e, err := roots.Endorsement(chip.Certificate)
			require.NoError(t, err)
			assert.Equal(t, chip.ID, e.Chip)
			assert.Equal(t, tcb, e.TCB)
			assert.Equal(t, until, e.NotAfter)
			assert.True(t, e.Simulated)
			require.NoError(t, roots.Chain(h.Roots(), e.Product, e.Signer))
			require.Error(t, roots.Chain(h.Roots(), "rome", e.Signer))

			report, err := chip.Signed(chip.Report([64]byte{1}))
			require.NoError(t, err)
			chain, err := snp.ParseCertificates(chip.Table())
			require.NoError(t, err)
			res := snp.Verify(report, chain, snp.Options{Roots: roots, At: time.Now()})
			assert.True(t, res.Genuine, "%s %v", product, res.Checks)
			assert.Equal(t, e.Signer, res.Signer)
		}
	}
}

func TestEndorsementsRefused(t *testing.T) {
	t.Parallel()
	amd, err := snp.AMDRoots()
	require.NoError(t, err)
	h, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	forged, err := h.Chip("n1")
	require.NoError(t, err)
	for name, b := range map[string][]byte{
		"nothing": nil, "an error page": []byte("<html>"), "a forged VCEK": forged.Certificate, "a signing key": trust.AskArkMilanVcekBytes,
		"a certificate cut off": testdata.VcekBytes[:900], "a certificate and a byte": append(bytes.Clone(testdata.VcekBytes), 0),
	} {
		_, err = amd.Endorsement(b)
		require.Error(t, err, name)
	}
	changed := bytes.Clone(testdata.VcekBytes)
	changed[len(changed)-1] ^= 1
	_, err = amd.Endorsement(changed)
	require.ErrorContains(t, err, "not made by the pinned SEV-Milan")

	require.NoError(t, amd.Chain(trust.AskArkGenoaVcekBytes, "genoa", "VCEK"))
	require.ErrorContains(t, amd.Chain(trust.AskArkGenoaVcekBytes, "milan", "VCEK"), "it is of SEV-Genoa, not of SEV-Milan")
	require.ErrorContains(t, amd.Chain(h.Roots(), "milan", "VCEK"), "is not pinned in this release")
	require.Error(t, amd.Chain([]byte("<html>"), "milan", "VCEK"))
}

func TestRevocationListsAreRead(t *testing.T) {
	t.Parallel()
	h, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	roots, err := snp.TestRoots(h.Roots())
	require.NoError(t, err)
	now := time.Now().UTC().Truncate(time.Second)
	b, err := h.CRL(now, now.Add(time.Hour), true)
	require.NoError(t, err)
	got, err := roots.List(b)
	require.NoError(t, err)
	assert.Equal(t, enclave.RevocationList{
		Product: "milan", Root: "ARK-Milan", ThisUpdate: now, NextUpdate: now.Add(time.Hour), Revoked: []string{"SEV-Milan"}, Simulated: true,
	}, got)
	amd, err := snp.AMDRoots()
	require.NoError(t, err)
	_, err = amd.List(b)
	require.ErrorContains(t, err, "is no pinned root")
}
