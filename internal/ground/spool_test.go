package ground_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/ground"
)

func TestSpoolDirectory(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "/var/spool/slurmd",
		"SlurmdSpoolDir=/var/spool/slurm/d\n":    "/var/spool/slurm/d",
		"slurmdspooldir=/local/%h/slurmd.%n\n":   "/local/host1/slurmd.node1",
		"SlurmdSpoolDir=/a\nSlurmdSpoolDir=/b\n": "/b",
		"SlurmdSpoolDir=/a/%x\n":                 "/a/%x",
	} {
		dir, refusal := ground.SpoolDirectory(tree{files: map[string]string{"/etc/slurm/slurm.conf": text}}, "/etc/slurm/slurm.conf", "node1", "host1.example.org")
		require.Nil(t, refusal)
		assert.Equal(t, want, dir, text)
	}
	dir, refusal := ground.SpoolDirectory(tree{}, "/etc/slurm/slurm.conf", "", "host1.example.org")
	require.Nil(t, refusal, "a configless node that has not asked yet")
	assert.Equal(t, "/var/spool/slurmd", dir)
	dir, refusal = ground.SpoolDirectory(tree{files: map[string]string{"/c": "SlurmdSpoolDir=/s.%n\n"}}, "/c", "", "host1.example.org")
	require.Nil(t, refusal)
	assert.Equal(t, "/s.host1", dir, "a node whose name nobody said")
	_, refusal = ground.SpoolDirectory(tree{files: map[string]string{"/c": "Include /c\n"}}, "/c", "", "h")
	assert.NotNil(t, refusal)
}
