//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/lab"
)

// elsewhere brings up a second lab for one test: on, must, submit and their like mean that one.
func elsewhere(t *testing.T, args ...string) {
	t.Helper()
	idle(t) // two labs at once are slow enough
	t.Setenv(lab.NameVariable, os.Getenv(lab.NameVariable)+"x")
	t.Cleanup(func() { require.NoError(t, labCommand("down").Run()) })
	require.NoError(t, labCommand(append([]string{"up", "--suite", suite()}, args...)...).Run())
}

// Slurm's name of a node, the name of its host and its address are three things; evidence, certificates, roster
// and inventory know the first alone.
func TestNodesWhoseNamesAreNotTheirHosts(t *testing.T) {
	const domain = "hpc.example.org"
	elsewhere(t, "--nodes", "2", "--domain", domain)
	id := submit(t, "alice", `srun sh -c 'echo $SLURMD_NODENAME is $(hostname), $ENCLAVE_VERDICT'`, "--partition=cpu-sev", "--nodes=2")
	await(t, id, "COMPLETED")
	for _, host := range []string{"n1", "n2"} {
		assert.Contains(t, output(t, "alice", id), host+"."+domain+" is "+host+", simulated\n")
	}
	var report struct {
		Verdict string
		Nodes   []struct{ Name string }
	}
	require.NoError(t, json.Unmarshal([]byte(must(t, "login", "alice", "enclave", "report", "--json", id)), &report))
	assert.Equal(t, "simulated", report.Verdict)
	assert.Equal(t, "[{n1."+domain+"} {n2."+domain+"}]", fmt.Sprint(report.Nodes))
	for _, host := range []string{"n0", "n1"} {
		found, status := examined(t, host)
		assert.Empty(t, faults(found), host)
		assert.Zero(t, status, host)
	}
	t.Run("a broken one is drained, proved and returned by that name", func(t *testing.T) {
		setFault(t, "n2", `{"old_tcb":true}`)
		id := submit(t, "alice", "true", "--partition=cpu-sev", "--nodes=2")
		eventually(t, 60*time.Second, func() bool { return drained(t, "n2."+domain) != "" }, func() string { return must(t, "n0", "root", "sinfo", "-R") })
		await(t, id, "PENDING")
		must(t, "n0", "root", "scancel", id)
		assert.Contains(t, must(t, "n0", "root", "enclave", "why", "n2."+domain), "E2")
		setFault(t, "n2", `{}`)
		eventually(t, 60*time.Second, func() bool { return on(t, "n2", "root", "enclave", "node", "prove").status == 0 },
			func() string { return on(t, "n2", "root", "enclave", "node", "prove").String() })
		must(t, "n0", "root", "enclave", "node", "return", "n2."+domain)
		idle(t)
	})
}

// thousand are hostlists of about a thousand nodes as slurm.conf may have them.
func thousand() map[string]string {
	full := make([]string, 1000)
	for i := range full {
		full[i] = fmt.Sprintf("node-%04d.compute.hpc.example.org", i+1)
	}
	return map[string]string{
		"plain numbers":       "n[1-1000]",
		"padded numbers":      "n[0001-1000]",
		"from 9 to 1008":      "cn-[9-1008]",
		"racks and slots":     "r[1-20]n[01-50]",
		"three dimensions":    "x[0-9]c[0-9]b[0-9]",
		"gaps":                "n[1-200,301-500,700,702,704,800-1396]",
		"several prefixes":    "n[1-300],gpu[001-300],big-[1-400]",
		"full domain names":   strings.Join(full, ","),
		"digits in the names": "hpc2-a[1-500],hpc2-b[1-500]",
	}
}

// What a job's nodelist says is what Slurm says that it says: it decides who has to prove itself.
func TestHostlistsOfAThousandNodesAreReadAsSlurmReadsThem(t *testing.T) {
	for name, list := range thousand() {
		t.Run(name, func(t *testing.T) {
			names := strings.Fields(must(t, "n0", "root", "scontrol", "show", "hostnames", list))
			require.Greater(t, len(names), 999)
			got, err := job.Expand(list)
			require.NoError(t, err)
			if name == "three dimensions" { // Slurm runs through the second number last; slurm.conf has at most two
				assert.ElementsMatch(t, names, got)
			} else {
				assert.Equal(t, names, got)
			}
			for _, form := range []string{"hostlist", "hostlistsorted"} { // as Slurm would write it into a job's environment
				folded := strings.TrimSpace(must(t, "n0", "root", "scontrol", "show", form, strings.Join(names, ",")))
				got, err = job.Expand(folded)
				require.NoError(t, err, folded)
				assert.ElementsMatch(t, names, got, folded)
			}
		})
	}
}
