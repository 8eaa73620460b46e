package certs_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

func TestNamesInTheStore(t *testing.T) {
	t.Parallel()
	milan := certs.Key{Product: "milan", Chip: enclave.ChipID{0xab, 63: 1}, TCB: enclave.TCB{Bootloader: 4, SNP: 24, Microcode: 219}}
	turin := certs.Key{Product: "turin", Chip: enclave.ChipID{0xab}, TCB: enclave.TCB{FMC: 1, Bootloader: 2, TEE: 3, SNP: 4, Microcode: 81}}
	assert.Equal(t, "milan/ab"+strings.Repeat("0", 124)+"01/4-0-24-219.der", milan.Path())
	assert.Equal(t, "turin/ab"+strings.Repeat("0", 126)+"/1-2-3-4-81.der", turin.Path())
	for _, k := range []certs.Key{milan, turin} {
		require.True(t, k.Valid())
		got, err := certs.ParsePath(k.Path())
		require.NoError(t, err)
		assert.Equal(t, k, got)
	}
	for name, p := range map[string]string{
		"another product":      strings.Replace(milan.Path(), "milan", "rome", 1),
		"a short chip":         "milan/ab/4-0-24-219.der",
		"capitals":             strings.ToUpper(milan.Path()[:20]) + milan.Path()[20:],
		"a level too many":     strings.Replace(milan.Path(), "219", "219-1", 1),
		"a level of 256":       strings.Replace(milan.Path(), "219", "256", 1),
		"a level with a zero":  strings.Replace(milan.Path(), "219", "0219", 1),
		"a masked chip":        certs.Key{Product: "milan"}.Path(),
		"a long chip on Turin": strings.Replace(milan.Path(), "milan", "turin", 1),
		"another directory":    "../" + milan.Path(),
		"another suffix":       milan.Path() + "x",
	} {
		_, err := certs.ParsePath(p)
		require.Error(t, err, name)
	}
}

func TestCandidatesOfReports(t *testing.T) {
	t.Parallel()
	r := enclave.SNPReport{Version: 2, Signer: "VCEK", ChipID: enclave.ChipID{1}}
	assert.Len(t, certs.Candidates(r), 2, "version 2 does not name its product")
	r.Product = "genoa"
	assert.Equal(t, []certs.Key{{Product: "genoa", Chip: r.ChipID}}, certs.Candidates(r))
	r.ChipID = enclave.ChipID{}
	assert.Empty(t, certs.Candidates(r), "a masked chip")
	assert.Empty(t, certs.Candidates(enclave.SNPReport{Version: 3, Signer: "VLEK", ChipID: enclave.ChipID{1}, Product: "milan"}))
	assert.Empty(t, certs.Candidates(enclave.SNPReport{}))
}

func FuzzParsePath(f *testing.F) {
	f.Add(certs.Key{Product: "milan", Chip: enclave.ChipID{1}}.Path())
	f.Add(certs.Key{Product: "turin", Chip: enclave.ChipID{1}, TCB: enclave.TCB{FMC: 1}}.Path())
	f.Add("milan/../x.der")
	f.Fuzz(func(t *testing.T, p string) {
		k, err := certs.ParsePath(p)
		if err == nil && (k.Path() != p || !k.Valid()) {
			t.Fatalf("%q is %q", p, k.Path())
		}
	})
}
