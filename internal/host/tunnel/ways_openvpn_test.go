package tunnel_test

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/bench"
	"github.com/slurm-enclave/slurm-enclave/internal/host/nettest"
)

// openVPN joins two nodes by the OpenVPN that `enclave bench net` compares with.
func openVPN(tb testing.TB, n [2]*nettest.Node) (address string, pids []int, down func()) {
	tb.Helper()
	program, err := exec.LookPath("openvpn")
	require.NoError(tb, err, "package openvpn")
	v := bench.VPN{
		Network: netip.MustParsePrefix("10.81.0.0/24"), Port: 11940,
		Ends: [2]bench.End{{Address: netip.MustParseAddr("10.79.0.1")}, {Address: netip.MustParseAddr("10.79.0.2")}},
	}
	configs, err := v.Configs()
	require.NoError(tb, err)
	var running []*exec.Cmd
	var logs []string
	for i := range n {
		dir := tb.TempDir()
		conf, log := filepath.Join(dir, "conf"), filepath.Join(dir, "log")
		require.NoError(tb, os.WriteFile(conf, []byte(configs[i]), 0o600))
		c := exec.Command(program, "--config", conf, "--log", log)
		require.NoError(tb, n[i].Start(c))
		running, logs, pids = append(running, c), append(logs, log), append(pids, c.Process.Pid)
	}
	for _, log := range logs {
		require.Eventually(tb, func() bool {
			b, _ := os.ReadFile(log)
			return strings.Contains(string(b), "Initialization Sequence Completed")
		}, 20*time.Second, 50*time.Millisecond, "OpenVPN is not up, see %s", log)
	}
	return "10.81.0.2", pids, func() {
		for _, c := range running {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}
}
