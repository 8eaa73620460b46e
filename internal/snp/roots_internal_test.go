package snp

import (
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
