package doctor_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/doctor"
	"github.com/slurm-enclave/slurm-enclave/internal/doctor/doctortest"
	"github.com/slurm-enclave/slurm-enclave/internal/slurmconf"
)

func TestAHostFindsItsNodeAsSlurmdDoes(t *testing.T) {
	t.Parallel()
	const text = `NodeName=DEFAULT CPUs=2
NodeName=n[1-3]
NodeName=n4.hpc.example.org,n5.hpc.example.org NodeHostname=n[4-5] NodeAddr=10.0.0.[4-5]
NodeName=rack7-[01-02] NodeHostname=blade[1-2]
NodeName=big.hpc.example.org
NodeName=virtual[1-2] NodeHostname=one,one Port=[7001-7002]
`
	c, err := slurmconf.Read(doctortest.Files{Text: map[string]string{"/etc/slurm/slurm.conf": text}}, "/etc/slurm/slurm.conf")
	require.NoError(t, err)
	for host, want := range map[string]string{
		"n2":                   "n2",
		"n2.hpc.example.org":   "n2",
		"n5":                   "n5.hpc.example.org",
		"n5.other.example.org": "n5.hpc.example.org",
		"blade2":               "rack7-02",
		"big.hpc.example.org":  "big.hpc.example.org",
		"one":                  "virtual1",
	} {
		node, errName := doctor.NodeName(c, host)
		require.NoError(t, errName, host)
		assert.Equal(t, want, node, host)
	}
	for _, host := range []string{"n7", "rack7-01", "big", "N2"} {
		node, errName := doctor.NodeName(c, host)
		require.ErrorContains(t, errName, host)
		assert.Empty(t, node)
	}
	_, err = doctor.NodeName(slurmconf.Conf{Path: "/etc/slurm/slurm.conf"}, "n1")
	require.ErrorIs(t, err, doctor.ErrNoNodes)
}
