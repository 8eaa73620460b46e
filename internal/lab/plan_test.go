package lab

import (
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
}

func TestSlurmConf(t *testing.T) {
	t.Run("enclave nodes are in the enclave partition only", func(t *testing.T) {
		conf := slurmConf(Spec{Nodes: 3, Plain: 1}, true)
		assert.Contains(t, conf, "PartitionName=cpu Nodes=c1 ")
		assert.NotContains(t, conf, "cpu-sev")
		partition, err := partitionConf(Spec{Nodes: 5})
		require.NoError(t, err)
		assert.Contains(t, partition, "PartitionName=cpu-sev Nodes=n[1-5] OverSubscribe=EXCLUSIVE ")
	})
	t.Run("a lab of one node is a hostlist Slurm reads", func(t *testing.T) {
		assert.Equal(t, "n1", hostlist("n", 1))
	})
	t.Run("the samples of etc are included, not repeated", func(t *testing.T) {
		conf := slurmConf(Spec{Nodes: 1, Plain: 1}, true)
		assert.Contains(t, conf, "Include /etc/slurm/slurm.conf.d/enclave.conf")
		assert.NotContains(t, conf, "PrologFlags")
	})
}

func TestLayer(t *testing.T) {
	t.Run("users of the machine are kept, users of the lab added once", func(t *testing.T) {
		passwd := addUsers("root:x:0:0::/root:/bin/sh\nalice:x:5:5::/:/bin/sh")
		assert.Contains(t, passwd, "root:x:0:0")
		assert.Equal(t, 1, strings.Count(passwd, "alice:"))
		assert.Contains(t, passwd, "\nbob:x:2002:2002:bob:/home/bob:/bin/bash\n")
	})
	t.Run("secrets are their owner's", func(t *testing.T) {
		files, err := layerFiles(Spec{Nodes: 1}, true, "", "")
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
