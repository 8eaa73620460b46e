package snp_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// TestEndorsementsHoldNothingOfTheHostsOwn: what was judged is stored, and a host can write as many
// certificates beside its own as it likes.
func TestEndorsementsHoldNothingOfTheHostsOwn(t *testing.T) {
	t.Parallel()
	lab, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	chip, err := lab.Chip("n1")
	require.NoError(t, err)
	roots, err := snp.TestRoots(lab.Roots())
	require.NoError(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	own := func(cn, issuer string) []byte {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn}, NotAfter: time.Now().Add(time.Hour)}
		der, bad := x509.CreateCertificate(rand.Reader, c, &x509.Certificate{Subject: pkix.Name{CommonName: issuer}}, key.Public(), key)
		require.NoError(t, bad)
		return der
	}
	block := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	report, err := chip.Signed(chip.Report([64]byte{}))
	require.NoError(t, err)
	judge := func(bundle []byte) snp.Result {
		chain, bad := snp.ParseCertificates(bundle)
		require.NoError(t, bad)
		return snp.Verify(report, chain, snp.Options{Roots: roots, At: time.Now()})
	}
	plain := judge(append(block(chip.Certificate), lab.Roots()...))
	require.True(t, plain.Genuine)
	require.Len(t, plain.Endorsements.Certificates, 3)

	bundle := append(block(chip.Certificate), block(own("padding", "nobody"))...)
	bundle = append(append(bundle, block(own("SEV-VLEK", "nobody"))...), lab.Roots()...)
	bundle = append(append(bundle, lab.Roots()...), []byte("\n\n\n")...)
	padded := judge(bundle)
	assert.True(t, padded.Genuine)
	assert.Equal(t, plain.Endorsements.Certificates, padded.Endorsements.Certificates)

	foreign := judge(append(block(chip.Certificate), block(own("root", "root"))...))
	assert.Equal(t, "root", firstFailed(foreign).Name)
	assert.Len(t, foreign.Endorsements.Certificates, 2, "of what failed all is kept: the failure is to be seen again")
}
