package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPlan(t *testing.T) {
	t.Run("every host has a name and an address of its own", func(t *testing.T) {
		names, addresses := map[string]bool{}, map[string]bool{}
		for _, h := range (Spec{Nodes: MaxNodes, Plain: 2}).Hosts() {
			assert.False(t, names[h.Name], h.Name)
			assert.False(t, addresses[h.Address.Addr().String()], h.Name)
			names[h.Name], addresses[h.Address.Addr().String()] = true, true
		}
		assert.Len(t, names, MaxNodes+4)
	})
	t.Run("a lab of no nodes or too many is refused", func(t *testing.T) {
		require.Error(t, Spec{}.Check())
		require.Error(t, Spec{Nodes: MaxNodes + 1, Plain: 1}.Check())
		require.NoError(t, Spec{Nodes: 1, Plain: 1}.Check())
		require.Error(t, Spec{Nodes: 1}.Check())
	})
	t.Run("a suite that is none is refused", func(t *testing.T) {
		require.NoError(t, Spec{Nodes: 1, Plain: 1, Suite: "trixie"}.Check())
		require.ErrorContains(t, Spec{Nodes: 1, Plain: 1, Suite: "../x"}.Check(), "find suite")
	})
}

func TestSlurmConf(t *testing.T) {
	t.Run("enclave nodes are in the enclave partition only", func(t *testing.T) {
		conf := slurmConf(Spec{Nodes: 3, Plain: 1}, base{}, true)
		assert.Contains(t, conf, "PartitionName=cpu Nodes=c1 ")
		assert.NotContains(t, conf, "cpu-sev")
		partition, err := partitionConf(Spec{Nodes: 5})
		require.NoError(t, err)
		assert.Contains(t, partition, "PartitionName=cpu-sev Nodes=n[1-5] OverSubscribe=EXCLUSIVE ")
	})
	t.Run("a lab of one node is a hostlist Slurm reads", func(t *testing.T) {
		assert.Equal(t, "n1", Spec{}.hostlist("n", 1))
	})
	t.Run("Slurm's names may end in a domain, the hosts' own do not", func(t *testing.T) {
		s := Spec{Nodes: 3, Plain: 1, Domain: "hpc.example.org"}
		require.NoError(t, s.Check())
		conf := slurmConf(s, base{}, true)
		assert.Contains(t, conf, "NodeName=n3.hpc.example.org NodeHostname=n3 NodeAddr=10.93.1.3 ")
		assert.Contains(t, conf, "PartitionName=cpu Nodes=c1.hpc.example.org ")
		partition, err := partitionConf(s)
		require.NoError(t, err)
		assert.Contains(t, partition, "Nodes=n1.hpc.example.org,n2.hpc.example.org,n3.hpc.example.org ")
		assert.Contains(t, hostsFile(s), "\n10.93.1.3 n3 n3.hpc.example.org\n")
		assert.Contains(t, hostsFile(Spec{Nodes: 3, Plain: 1}), "\n10.93.1.3 n3\n")
		s.Domain = "hpc; x"
		require.ErrorContains(t, s.Check(), "domain")
	})
	t.Run("the samples of etc are included, not repeated", func(t *testing.T) {
		conf := slurmConf(Spec{Nodes: 1, Plain: 1}, base{}, true)
		assert.Contains(t, conf, "Include /etc/slurm/slurm.conf.d/enclave.conf")
		assert.NotContains(t, conf, "PrologFlags")
	})
}

func TestBase(t *testing.T) {
	t.Run("the release is read from what slurmctld says", func(t *testing.T) {
		for said, want := range map[string]string{"slurm-wlm 22.05.8\n": "22.05", "slurm 24.11.5": "24.11", "slurm-wlm 26.05.5\n": "26.05"} {
			got, err := releaseOf(said)
			require.NoError(t, err)
			assert.Equal(t, want, got)
		}
		_, err := releaseOf("chroot: failed to run command")
		require.ErrorContains(t, err, "find the release of Slurm")
	})
	t.Run("shared objects come from the suite's own build, programs from one for all", func(t *testing.T) {
		s := Spec{Suite: "trixie"}
		assert.Equal(t, "/p/trixie/enclave.so", from(s, "/p", "enclave.so"))
		assert.Equal(t, "/p/enclaved", from(s, "/p", "enclaved"))
		assert.Equal(t, "/p/enclave.so", from(Spec{}, "/p", "enclave.so"))
	})
	t.Run("where Slurm has no PMIx, steps start by PMI-2", func(t *testing.T) {
		assert.Contains(t, slurmConf(Spec{Nodes: 1, Plain: 1}, base{pmix: true}, true), "MpiDefault=pmix\n")
		assert.Contains(t, slurmConf(Spec{Nodes: 1, Plain: 1}, base{}, true), "MpiDefault=pmi2\n")
	})
}

func TestLayer(t *testing.T) {
	t.Run("users of the machine are kept, users of the lab added once", func(t *testing.T) {
		passwd := addUsers("root:x:0:0::/root:/bin/sh\nalice:x:5:5::/:/bin/sh")
		assert.Contains(t, passwd, "root:x:0:0")
		assert.Equal(t, 1, strings.Count(passwd, "alice:"))
		assert.Contains(t, passwd, "\nbob:*:2002:2002:bob:/home/bob:/bin/bash\n")
	})
	t.Run("an owner is looked up in the hosts' own table", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, give(path, "me", fmt.Sprintf("root:x:0:0\nme:x:%d:%d:::\n", os.Getuid(), os.Getgid())))
		require.ErrorContains(t, give(path, "munge", "root:x:0:0\n"), "the hosts' passwd has none")
	})
	t.Run("secrets are their owner's", func(t *testing.T) {
		files, err := layerFiles(Spec{Nodes: 1}, base{}, true, "", "")
		require.NoError(t, err)
		for _, f := range files {
			if f.path == "etc/munge/munge.key" {
				assert.EqualValues(t, 0o400, f.mode)
				assert.Equal(t, "munge", f.owner)
				assert.Len(t, f.text, 1024)
				return
			}
		}
		assert.Fail(t, "no munge key")
	})
}

func TestQuote(t *testing.T) {
	assert.Equal(t, `'a b' 'it'\''s' '$(x)' ''`, quote([]string{"a b", "it's", "$(x)", ""}))
}
