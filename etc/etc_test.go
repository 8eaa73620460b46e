package etc_test

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/etc"
	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/tenants"
)

func sample(t *testing.T, name string) string {
	t.Helper()
	b, err := fs.ReadFile(etc.Samples, name)
	require.NoError(t, err)
	return string(b)
}

func TestPolicySample(t *testing.T) {
	t.Parallel()
	const blank = "REPLACE-WITH-96-HEXADECIMAL-DIGITS"
	text := sample(t, "policy.d/default.yaml")
	t.Run("as it is, it is refused", func(t *testing.T) {
		t.Parallel()
		_, err := appraise.Load(strings.NewReader(text))
		assert.ErrorContains(t, err, "measurement")
	})
	t.Run("with a measurement it loads, and says default where it is", func(t *testing.T) {
		t.Parallel()
		filled := strings.Replace(text, blank, strings.Repeat("ab", 48), 1)
		p, err := appraise.Load(strings.NewReader(filled))
		require.NoError(t, err)
		assert.Equal(t, "default", p.Name())
		assert.False(t, p.AllowsSimulated())
		without := regexp.MustCompile(`(?m)^.*# default;.*$|^.*# default$`).ReplaceAllString(filled, "")
		require.NotEqual(t, filled, without)
		q, err := appraise.Load(strings.NewReader(without))
		require.NoError(t, err)
		assert.Empty(t, appraise.Diff(p, q))
	})
}

func TestSamplesFitEachOther(t *testing.T) {
	t.Parallel()
	c, err := config.Load(strings.NewReader(sample(t, "enclave.yaml")))
	require.NoError(t, err)
	table, err := tenants.Load(strings.NewReader(sample(t, "tenants.yaml")))
	require.NoError(t, err)
	inventory, err := config.LoadInventory(strings.NewReader(sample(t, "inventory.yaml")))
	require.NoError(t, err)
	assert.Equal(t, c.Partitions, table.Partitions)
	for _, hook := range []string{"prolog-slurmctld", "epilog-slurmctld"} {
		assert.Contains(t, sample(t, hook), "--partition "+c.Partitions[0]+"\n")
	}
	policies := []string{c.Controller.Policy}
	for _, tenant := range table.Tenants {
		if tenant.Policy != "" {
			policies = append(policies, tenant.Policy)
		}
	}
	for _, p := range policies {
		assert.NotEmpty(t, sample(t, "policy.d/"+p+".yaml"))
	}
	nodes := regexp.MustCompile(`(?m)^PartitionName=cpu-sev Nodes=(\S+) `).FindStringSubmatch(sample(t, "slurm.conf.d/partition.conf"))
	require.Len(t, nodes, 2)
	names, err := job.Expand(nodes[1])
	require.NoError(t, err)
	var listed []string
	for _, n := range inventory.Nodes {
		listed = append(listed, n.Name)
	}
	assert.Equal(t, listed, names, "doctor would not let the samples pass")
	assert.Contains(t, sample(t, "slurm.conf.d/enclave.conf"), "SrunPortRange="+c.Slurm.SrunPorts.String()+"\n")
}

func TestModulesOfEveryFamilyAreKeptOut(t *testing.T) {
	t.Parallel()
	text := sample(t, "modprobe.d/slurm-enclave.conf")
	for _, family := range config.Families() {
		assert.Contains(t, text, "\nblacklist "+family+"\n")
	}
	for _, m := range regexp.MustCompile(`(?m)^blacklist (.+)$`).FindAllStringSubmatch(text, -1) {
		assert.Contains(t, text, "\ninstall "+m[1]+" /bin/false\n", "a module that something asks for by name is loaded in spite of a blacklist")
	}
	assert.NotContains(t, text, "af_alg")
}

func TestUnits(t *testing.T) {
	t.Parallel()
	t.Run("a node whose closing failed starts no slurmd", func(t *testing.T) {
		t.Parallel()
		unit := sample(t, "systemd/enclave-host.service")
		for _, line := range []string{"Type=oneshot", "Before=slurmd.service", "RequiredBy=slurmd.service", "ExecStart=/usr/bin/enclave host close"} {
			assert.Contains(t, unit, "\n"+line+"\n")
		}
	})
	t.Run("certificates are fetched by no root, and not by all sites at once", func(t *testing.T) {
		t.Parallel()
		unit, timer := sample(t, "systemd/enclave-certs.service"), sample(t, "systemd/enclave-certs.timer")
		for _, line := range []string{"Type=oneshot", "User=enclave", "ReadWritePaths=/var/lib/slurm-enclave", "ExecStart=/usr/bin/enclave certs sync"} {
			assert.Contains(t, unit, "\n"+line+"\n")
		}
		assert.NotContains(t, unit, "TimeoutStartSec", "a oneshot has none, and a first run takes hours")
		assert.Contains(t, timer, "\nRandomizedDelaySec=1d\n")
	})
	t.Run("enclaved is no root", func(t *testing.T) {
		t.Parallel()
		unit := sample(t, "systemd/enclaved.service")
		for _, line := range []string{"User=enclave", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "ExecStart=/usr/sbin/enclaved"} {
			assert.Contains(t, unit, "\n"+line+"\n")
		}
	})
}
