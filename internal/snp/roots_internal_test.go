package snp

import (
	"crypto/x509"
	"math/big"
	"testing"

	"github.com/google/go-sev-guest/verify/trust"
	"github.com/stretchr/testify/require"
)

func TestOverwrittenLibraryRootsAreNotTrusted(t *testing.T) {
	bundles := map[issuer][]byte{
		{milan, vcek}: trust.AskArkGenoaVcekBytes, // genuine, and in the wrong place
		{milan, vlek}: trust.AskArkMilanVlekBytes,
		{genoa, vcek}: trust.AskArkGenoaVcekBytes,
		{genoa, vlek}: trust.AskArkGenoaVlekBytes,
		{turin, vcek}: trust.AskArkTurinVcekBytes,
		{turin, vlek}: trust.AskArkTurinVlekBytes,
	}
	_, err := amdRoots(bundles)
	require.ErrorContains(t, err, "not the pinned certificate")
	delete(bundles, issuer{milan, vcek})
	_, err = amdRoots(bundles)
	require.Error(t, err)
}

func TestPinnedKeysSignEachOther(t *testing.T) {
	r, err := AMDRoots() // checks digests only
	require.NoError(t, err)
	require.Len(t, r.pinned, 6)
	for i, pins := range r.pinned {
		require.NoError(t, pins[0].check(), i.commonName())
	}
}

func TestSerialNumberOfTheEndorsementCounts(t *testing.T) {
	serial := func(n int64) *x509.Certificate { return &x509.Certificate{SerialNumber: big.NewInt(n)} }
	v := verification{pin: pin{root: serial(65536), intermediate: serial(65537)}, cert: serial(7)}
	revoking := func(n int64) *x509.RevocationList {
		return &x509.RevocationList{RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(n)}}}
	}
	c, _ := v.revoked(revoking(7))
	require.Same(t, v.cert, c)
	c, _ = v.revoked(revoking(8))
	require.Nil(t, c)
	v.cert = serial(0) // AMD's today
	c, _ = v.revoked(revoking(0))
	require.Nil(t, c, "or one line would revoke all chips")
}
