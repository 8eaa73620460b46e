package slurmconf_test

import (
	"io/fs"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/slurmconf"
)

type files map[string]string

func (f files) Read(name string) ([]byte, error) {
	if text, ok := f[name]; ok {
		return []byte(text), nil
	}
	return nil, fs.ErrNotExist
}

func read(t *testing.T, f files) slurmconf.Conf {
	t.Helper()
	c, err := slurmconf.Read(f, "/etc/slurm/slurm.conf")
	require.NoError(t, err)
	return c
}

func TestRead(t *testing.T) {
	t.Parallel()
	t.Run("a setting is found with its file and line, the later of two counts", func(t *testing.T) {
		t.Parallel()
		c := read(t, files{
			"/etc/slurm/slurm.conf": "# a cluster\nClusterName=one\n\nInclude more.conf\n",
			"/etc/slurm/more.conf":  "prologflags=Alloc,\\\n  Contain\nclustername = two # not one\nPrologFlags=\n",
		})
		v, ok := c.Get("ClusterName")
		require.True(t, ok)
		assert.Equal(t, slurmconf.Value{Key: "clustername", Text: "two", File: "/etc/slurm/more.conf", Line: 3}, v)
		assert.Equal(t, "/etc/slurm/more.conf line 3", v.Where())
		v, ok = c.Get("PrologFlags")
		require.True(t, ok, "one that is set to nothing is not set")
		assert.Equal(t, "Alloc,", v.Text, "space ends a value, on a continued line too")
		assert.Equal(t, 1, v.Line)
		_, ok = c.Get("Epilog")
		assert.False(t, ok)
	})
	t.Run("a line of several settings has them all, quoted ones whole", func(t *testing.T) {
		t.Parallel()
		c := read(t, files{"/etc/slurm/slurm.conf": `SlurmdPort=1 SlurmctldPort=2 LaunchParameters="a b=c" X=\#1` + "\n"})
		assert.Equal(t, map[string]string{"slurmdport": "1", "slurmctldport": "2", "launchparameters": "a b=c", "x": `\#1`}, c.Values())
	})
	t.Run("nodes and partitions inherit from DEFAULT and keep out of the cluster's settings", func(t *testing.T) {
		t.Parallel()
		c := read(t, files{"/etc/slurm/slurm.conf": "PartitionName=DEFAULT PreemptMode=REQUEUE State=UP\nPartitionName=a Nodes=n1\nPartitionName=b Nodes=n2 PREEMPTMODE=off\nPartitionName=DEFAULT State=DOWN\nPartitionName=c\n"})
		p := c.Sections("PartitionName")
		require.Len(t, p, 3)
		for i, want := range []string{"REQUEUE", "off", "REQUEUE"} {
			v, ok := p[i].Get("PreemptMode")
			require.True(t, ok)
			assert.Equal(t, want, v.Text)
		}
		v, _ := p[2].Get("State")
		assert.Equal(t, "DOWN", v.Text)
		assert.Equal(t, 3, p[1].Line)
		_, ok := c.Get("PreemptMode")
		assert.False(t, ok)
	})
	t.Run("includes in a circle, and names that only the daemon knows, are refused", func(t *testing.T) {
		t.Parallel()
		_, err := slurmconf.Read(files{"/c": "include /c\n"}, "/c")
		require.ErrorContains(t, err, "includes in each other")
		_, err = slurmconf.Read(files{"/c": "\ninclude %h.conf\n"}, "/c")
		require.ErrorContains(t, err, "/c line 2: include %h.conf")
	})
}

func FuzzRead(f *testing.F) {
	f.Add("A=b \\\nC=d # e\nInclude x\nPartitionName=DEFAULT X=1\nPartitionName=p Y=\"2 3\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := slurmconf.Read(files{"/c": text}, "/c")
		if err != nil {
			return
		}
		for key, value := range c.Values() {
			v, ok := c.Get(key)
			assert.True(t, ok)
			assert.Equal(t, value, v.Text)
			assert.NotEmpty(t, value)
		}
		for _, word := range []string{"NodeName", "PartitionName", "NodeSet"} {
			for _, s := range c.Sections(word) {
				assert.NotZero(t, s.Line)
			}
		}
	})
}
