package snp_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

func TestPartsAreTheLinesThatCountTheirMicrocode(t *testing.T) {
	for _, tt := range []struct {
		family, model, stepping byte
		product, part           string
	}{
		{0x19, 0x01, 0, "milan", "milan"},
		{0x19, 0x01, 1, "milan", "milan"},
		{0x19, 0x01, 2, "milan", "milan-x"},
		{0x19, 0x11, 1, "genoa", "genoa"},
		{0x19, 0x11, 2, "genoa", "genoa-x"},
		{0x19, 0xa0, 2, "genoa", "zen4c"},
		{0x1a, 0x02, 1, "turin", "turin"},
		{0x1a, 0x11, 0, "turin", "zen5c"},
		{0x1a, 0x20, 0, "", ""},
		{0x17, 0x31, 0, "", ""},
	} {
		r := attesttest.Report{Version: 5, Policy: attesttest.PolicyReserved, SignatureAlgorithm: 1, Family: tt.family, Model: tt.model, Stepping: tt.stepping}
		res := snp.Verify(r.Marshal(), snp.Chain{}, snp.Options{})
		assert.Equal(t, tt.product, res.Product, "%x", tt)
		assert.Equal(t, tt.part, res.Part, "%x", tt)
	}
}

func TestFieldsThatPoliciesAskFor(t *testing.T) {
	r := attesttest.Report{
		Version: 5, GuestSVN: 7, Policy: attesttest.PolicyReserved, SignatureAlgorithm: 1, PlatformInfo: 0x25, Family: 0x19, Model: 1, Stepping: 1,
		IDKeyDigest: [48]byte{1}, AuthorKeyDigest: [48]byte{2}, ReportID: [32]byte{3}, HostData: [32]byte{4},
		LaunchMitigations: 5, CurrentMitigations: 6,
	}
	res := snp.Verify(r.Marshal(), snp.Chain{}, snp.Options{})
	require.Equal(t, uint32(5), res.Version)
	assert.Equal(t, uint32(7), res.GuestSVN)
	assert.Equal(t, uint64(0x25), res.PlatformInfo)
	assert.Equal(t, enclave.KeyDigest{1}, res.IDKeyDigest)
	assert.Equal(t, enclave.KeyDigest{2}, res.AuthorKeyDigest)
	assert.Equal(t, [32]byte{3}, res.ReportID)
	assert.Equal(t, [32]byte{4}, res.HostData)
	assert.Equal(t, uint64(5), res.LaunchMitigations)
	assert.Equal(t, uint64(6), res.CurrentMitigations)
	r.Version = 3
	res = snp.Verify(r.Marshal(), snp.Chain{}, snp.Options{})
	assert.Zero(t, res.LaunchMitigations|res.CurrentMitigations, "version 3 has no such fields")
}
