//go:build e2e

package e2e_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// release is that of the lab's Slurm, as in "24.11"; later ones are greater as text.
func release(t *testing.T) string {
	t.Helper()
	found := regexp.MustCompile(`\d{2}\.\d{2}`).FindString(must(t, "n0", "root", "slurmctld", "-V"))
	require.NotEmpty(t, found)
	return found
}

func TestP1StepsOfAStepManagerOnTheNode(t *testing.T) {
	idle(t)
	if release(t) < "24.05" {
		assert.Contains(t, refused(t, "alice", "srun hostname", "--partition=cpu-sev", "--stepmgr"), "unrecognized option")
		return
	}
	id := submit(t, "alice", "srun hostname | sort", "--partition=cpu-sev", "--nodes=3", "--stepmgr")
	await(t, id, "COMPLETED")
	assert.Equal(t, []string{"n1", "n2", "n3"}, strings.Fields(output(t, "alice", id)))
	idle(t)
}

// ofRelease is the plugin as if it had been built against another Slurm: SPANK_PLUGIN puts the
// headers' version into the symbol plugin_version, major, minor and micro in a byte each.
func ofRelease(t *testing.T, version uint32) []byte {
	t.Helper()
	plugin, err := os.ReadFile(filepath.Join(programs(), suite(), "enclave.so"))
	require.NoError(t, err)
	f, err := elf.NewFile(bytes.NewReader(plugin))
	require.NoError(t, err)
	symbols, err := f.DynamicSymbols()
	require.NoError(t, err)
	for _, s := range symbols {
		if s.Name == "plugin_version" {
			in := f.Sections[s.Section]
			binary.LittleEndian.PutUint32(plugin[s.Value-in.Addr+in.Offset:], version)
			return plugin
		}
	}
	require.Fail(t, "the plugin has no plugin_version")
	return nil
}

func TestP1APluginOfAnotherReleaseOfSlurmLetsNothingRun(t *testing.T) {
	idle(t)
	const path = "/usr/lib/x86_64-linux-gnu/slurm-wlm/enclave.so"
	other := string(ofRelease(t, 23<<16|2<<8|7))
	for _, host := range []string{"n1", "login"} {
		must(t, host, "root", "cp", "-p", path, "/root/enclave.so")
		t.Cleanup(func() { must(t, host, "root", "sh", "-c", "cp -p /root/enclave.so "+path+" && rm /root/enclave.so") })
	}
	t.Cleanup(func() { resume(t, "n1") })

	t.Run("on a node whose slurmd still runs", func(t *testing.T) {
		require.Zero(t, onWithInput(t, "n1", "root", other, "sh", "-c", "cat >"+path).status)
		id := submit(t, "alice", "srun touch /lustre/ran-$SLURM_JOB_ID", "--partition=cpu-sev", "--nodes=2", "--nodelist=n1,n2", "--no-requeue")
		eventually(t, 60*time.Second, func() bool { return drained(t, "n1") != "" },
			func() string { return must(t, "n0", "root", "scontrol", "show", "job", id) })
		on(t, "n0", "root", "scancel", id)
		eventually(t, 60*time.Second, func() bool { return on(t, "n1", "root", "enclave", "host", "check").status == 0 },
			func() string { return on(t, "n1", "root", "enclave", "host", "check").String() })
		assert.NotContains(t, must(t, "n1", "root", "ls", "/srv/enclave-fs/lab/proj/digimed"), "ran-"+id)
	})
	t.Run("in a submit client", func(t *testing.T) {
		require.Zero(t, onWithInput(t, "login", "root", other, "sh", "-c", "cat >"+path).status)
		r := on(t, "login", "alice", "srun", "--partition=cpu", "hostname")
		assert.NotZero(t, r.status)
		assert.Contains(t, r.errOut, "Incompatible")
	})
}
