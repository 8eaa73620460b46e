package posture_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/posture"
)

func TestFacts(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "slurm.conf")
	put(t, conf, []byte("PrologFlags=Alloc,Contain\nInclude more.conf\n"))
	put(t, filepath.Join(dir, "more.conf"), []byte("SrunPortRange=61001-61200 # ours\n"))
	m := posture.Machine{
		Config: filepath.Join(dir, "enclave.yaml"), Marker: filepath.Join(dir, "marker"), SlurmConf: conf, Release: "1",
		Attest: func(context.Context, [64]byte) (enclave.Evidence, error) {
			return enclave.Evidence{}, errors.New("busy")
		},
	}
	f := m.Facts(t.Context())
	assert.NotEmpty(t, f.Processor.Vendor)
	assert.NotEmpty(t, f.Encryption.Kernel)
	assert.Equal(t, os.Geteuid() == 0, f.Root)
	assert.Contains(t, f.Slurm.ConfigError, "enclave.yaml")
	assert.False(t, f.Slurm.Marker)
	assert.Equal(t, map[string]string{"prologflags": "Alloc,Contain", "srunportrange": "61001-61200"}, f.Slurm.Settings)
	assert.NotEmpty(t, f.Slurm.LocalPorts)
	assert.Equal(t, f.Root && f.Encryption.TSM, f.Attester.Refusal != nil, "a report is asked for where the kernel serves them")
	t.Run("a slurm.conf in a circle is said", func(t *testing.T) {
		require.NoError(t, os.WriteFile(conf, []byte("Include slurm.conf\n"), 0o644))
		assert.Contains(t, m.Facts(t.Context()).Slurm.ConfError, "includes")
	})
}
