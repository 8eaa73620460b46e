//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBenchNetMeasuresPlainEnclaveAndOpenVPN(t *testing.T) {
	idle(t)
	c := exec.CommandContext(t.Context(), filepath.Join(programs(), "enclave"), "bench", "net", "--lab", "--baseline", "openvpn", "--repeat", "1", "--seconds", "1", "--json")
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	require.NoError(t, c.Run(), "%s", &errOut)
	var doc struct {
		Rows []struct {
			Name  string   `json:"name"`
			Nodes []string `json:"nodes"`
			MPI8  *float64 `json:"mpi8_us"`
			MPI1M *float64 `json:"mpi1m_us"`
			TCP   *float64 `json:"tcp_gbps"`
			CPU   *float64 `json:"cpu_s_per_gb"`
		} `json:"rows"`
		Comparable bool `json:"comparable"`
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &doc))
	assert.True(t, doc.Comparable, "%s", &out)
	require.Len(t, doc.Rows, 3)
	for i, name := range []string{"plain", "wireguard-userspace", "openvpn"} {
		row := doc.Rows[i]
		assert.Equal(t, name, row.Name)
		assert.Len(t, row.Nodes, 2)
		for figure, v := range map[string]*float64{"mpi8_us": row.MPI8, "mpi1m_us": row.MPI1M, "tcp_gbps": row.TCP} {
			require.NotNil(t, v, "%s of %s: %s", figure, name, &out)
			assert.Positive(t, *v)
		}
		require.NotNil(t, row.CPU)
		assert.Equal(t, name != "plain", *row.CPU > 0, "processor time of the tunnel of %s: %v", name, *row.CPU)
	}
	for _, host := range []string{"c1", "c2"} {
		assert.NotZero(t, on(t, host, "root", "pgrep", "-x", "openvpn").status, "OpenVPN is left on %s", host)
		assert.NotZero(t, on(t, host, "root", "test", "-e", "/run/enclave-bench").status, "files are left on %s", host)
	}
	assert.Empty(t, must(t, "login", "alice", "sh", "-c", "ls -A | grep -E 'enclave-(bench|netbench)'; true"))
}
