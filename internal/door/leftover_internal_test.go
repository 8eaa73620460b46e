package door

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/closed"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/host/survey"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

func TestRuntimeDirectoriesOfLogins(t *testing.T) {
	t.Parallel()
	people := survey.People(uidMin)
	assert.True(t, ofLogin("/run/user/2002", people, nil), "of another than the job's user")
	assert.True(t, ofLogin("/run/user/2002/doc", people, nil))
	assert.False(t, ofLogin("/run/user/2002", people, []string{"/run/user/2002 of uid 2002"}), "it was there when the node was closed")
	assert.False(t, ofLogin("/run/user/2002", []enclave.UIDRange{{Start: 2001, Count: 1}}, nil))
	for _, other := range []string{"/run/user/0", "/run/user/998", "/run/user", "/run/user/x", "/run/users/2002", "/run/user/99999999999"} {
		assert.False(t, ofLogin(other, people, nil), other)
	}
}

func TestMountsOfPeople(t *testing.T) {
	t.Parallel()
	m := subtree.Mount{Point: "/opt/alices", FSType: "fuse.sshfs", Source: "x", Options: []string{"rw"}}
	view := subtree.Config{}
	lines := subtree.Watched(view, []subtree.Mount{m})
	require.Len(t, lines, 1)
	recorded := closed.Snapshot{Version: closed.Version}
	assert.True(t, unrecorded(m, view, nil, recorded), "wherever it is")
	recorded.Mounts = lines
	assert.False(t, unrecorded(m, view, nil, recorded), "it was there when the node was closed")
	assert.False(t, unrecorded(m, subtree.Config{Visible: []string{"/opt/alices"}}, nil, closed.Snapshot{Version: closed.Version}), "the site lets jobs see it")
	assert.False(t, unrecorded(m, view, []string{"/tmp"}, closed.Snapshot{}), "without a record the known places alone are gone through")
	assert.True(t, unrecorded(m, view, []string{"/opt"}, closed.Snapshot{}))
}
