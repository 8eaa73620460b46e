package fence_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/fence/fencetest"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

func TestForget(t *testing.T) {
	const listening, established, finWait, timeWait, closed = 9, 3, 4, 7, 8
	tunnel, outside := mesh.Mark(4711), uint32(fence.MarkOutside)
	for name, tc := range map[string]struct {
		flow  fence.Flow
		stays bool
	}{
		"a stream of UDP in the tunnel":                             {flow: fence.Flow{Mark: tunnel, Protocol: unix.IPPROTO_UDP}},
		"a user's stream of UDP on the node":                        {flow: fence.Flow{Mark: outside, Protocol: unix.IPPROTO_UDP}},
		"a ping in the tunnel":                                      {flow: fence.Flow{Mark: tunnel, Protocol: unix.IPPROTO_ICMP}},
		"a connection on the node that is over":                     {flow: fence.Flow{Mark: outside, Protocol: unix.IPPROTO_TCP, TCPState: timeWait}},
		"a connection on the node that was reset":                   {flow: fence.Flow{Mark: outside, Protocol: unix.IPPROTO_TCP, TCPState: closed}},
		"of the last job that there can be":                         {flow: fence.Flow{Mark: mesh.Mark(1<<26 - 1), Protocol: unix.IPPROTO_UDP}},
		"a connection in the tunnel whose socket may still send":    {flow: fence.Flow{Mark: tunnel, Protocol: unix.IPPROTO_TCP, TCPState: established}, stays: true},
		"one in the tunnel that seems to be over":                   {flow: fence.Flow{Mark: tunnel, Protocol: unix.IPPROTO_TCP, TCPState: timeWait}, stays: true},
		"one in the tunnel that seems to be reset":                  {flow: fence.Flow{Mark: tunnel, Protocol: unix.IPPROTO_TCP, TCPState: closed}, stays: true},
		"one that waits for the peer's end":                         {flow: fence.Flow{Mark: tunnel, Protocol: unix.IPPROTO_TCP, TCPState: finWait}, stays: true},
		"one to a service that has not got all":                     {flow: fence.Flow{Mark: outside, Protocol: unix.IPPROTO_TCP, TCPState: finWait}, stays: true},
		"one that begins at both ends":                              {flow: fence.Flow{Mark: tunnel, Protocol: unix.IPPROTO_TCP, TCPState: listening}, stays: true},
		"a daemon's":                                                {flow: fence.Flow{Protocol: unix.IPPROTO_UDP}, stays: true},
		"a daemon's connection that is over":                        {flow: fence.Flow{Protocol: unix.IPPROTO_TCP, TCPState: timeWait}, stays: true},
		"one with a mark of the site's":                             {flow: fence.Flow{Mark: 0x4000, Protocol: unix.IPPROTO_UDP}, stays: true},
		"one with a mark of the site's that begins with other bits": {flow: fence.Flow{Mark: 0xb0000000, Protocol: unix.IPPROTO_UDP}, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := fencetest.Conntrack{Known: []fence.Flow{tc.flow}, Most: 8}
			n, err := fence.Forget(t.Context(), &c)
			require.NoError(t, err)
			assert.Equal(t, tc.stays, n == 0, "%s", &c)
			assert.Equal(t, tc.stays, len(c.Known) == 1, "%s", &c)
		})
	}
	left := func(flows, most int) int {
		c := fencetest.Conntrack{Known: slices.Repeat([]fence.Flow{{Mark: outside, Protocol: unix.IPPROTO_UDP}}, flows), Most: most}
		_, err := fence.Forget(t.Context(), &c)
		require.NoError(t, err)
		return len(c.Known)
	}
	t.Run("a table with much room is left alone", func(t *testing.T) { assert.Equal(t, 99, left(99, 800)) })
	t.Run("one that has less is not", func(t *testing.T) { assert.Zero(t, left(100, 800)) })
	t.Run("nor one without a limit", func(t *testing.T) { assert.Zero(t, left(1, 0)) })
	t.Run("a mark of the users' that is restored to a packet is none of WireGuard's", func(t *testing.T) {
		for _, job := range []uint32{1, 4711, 1<<26 - 1} {
			assert.NotEqual(t, outside, mesh.FwMark(job))
		}
	})
}
