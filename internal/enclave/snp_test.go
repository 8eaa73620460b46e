package enclave_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

func TestTCBPartsAreComparedOneByOne(t *testing.T) {
	minimum := enclave.TCB{FMC: 1, Bootloader: 4, TEE: 0, SNP: 24, Microcode: 219}
	assert.True(t, minimum.AtLeast(minimum))
	assert.Equal(t, "4/0/24/219", minimum.String())
	for name, tcb := range map[string]enclave.TCB{
		"fmc":        {FMC: 0, Bootloader: 255, TEE: 255, SNP: 255, Microcode: 255},
		"bootloader": {FMC: 255, Bootloader: 3, TEE: 255, SNP: 255, Microcode: 255},
		"snp":        {FMC: 255, Bootloader: 255, TEE: 255, SNP: 23, Microcode: 255},
		"microcode":  {FMC: 255, Bootloader: 255, TEE: 255, SNP: 255, Microcode: 218},
	} {
		assert.False(t, tcb.AtLeast(minimum), "an old %s is not made up for by the other parts", name)
	}
}

func TestMeasurementText(t *testing.T) {
	var m enclave.Measurement
	text := strings.Repeat("0a", 48)
	require.NoError(t, m.UnmarshalText([]byte(text)))
	assert.Equal(t, text, m.String())
	require.Error(t, m.UnmarshalText([]byte(text[2:])))
	require.Error(t, m.UnmarshalText([]byte(strings.Repeat("zz", 48))))
}
