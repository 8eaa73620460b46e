package tunnel_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
)

// TestClosed is a node between jobs.
func TestClosed(t *testing.T) {
	l := build(t)
	n1 := l.nodes[0]
	closed, err := fence.Closed(1000, []fence.Service{{Name: "slurmd", Proto: "tcp", Port: 6818}},
		fence.Streams{Hosts: []netip.Addr{netip.MustParseAddr("10.77.0.100")}, Ports: fence.PortRange{First: 61001, Last: 61200}})
	require.NoError(t, err)
	n1.Must(func() error { return fence.Up(t.Context(), filter.Kernel{}, closed) })
	serve(t, l.x, 0, "udp", "10.77.0.100:7000")
	serve(t, n1.Node, 0, "tcp", "10.77.0.1:6818")
	serve(t, n1.Node, 0, "tcp", ":7001")
	person := func() bool {
		return act(t, n1.Node, user, role{Proto: "udp", Address: "10.77.0.100:7000", Payload: secret}).says("got", 400*time.Millisecond)
	}
	reach := func(address string) bool {
		return act(t, l.x, 0, role{Proto: "tcp", Address: address, Payload: "x"}).says("got", 700*time.Millisecond)
	}
	assert.False(t, person(), "people send nothing")
	assert.Zero(t, l.wire.holds(secret))
	assert.True(t, act(t, n1.Node, user, role{Proto: "tcp", Address: "127.0.0.1:7001", Payload: "x"}).says("got", 5*time.Second), "but to the node itself")
	assert.True(t, act(t, n1.Node, 0, role{Proto: "udp", Address: "10.77.0.100:7000", Payload: "x"}).says("got", 5*time.Second), "daemons are free")
	serve(t, l.x, 0, "tcp", "10.77.0.100:61001")
	stream := role{Proto: "tcp", Address: "10.77.0.100:61001", Payload: "x"}
	assert.True(t, act(t, n1.Node, user, stream).says("got", 5*time.Second), "a refused job's streams are")
	assert.True(t, reach("10.77.0.1:6818"), "a service is reached")
	assert.False(t, reach("10.77.0.1:7001"), "nothing else is")
	t.Run("control: without the fence", func(t *testing.T) {
		n1.Must(func() error { return filter.Kernel{}.Replace(t.Context(), fence.Table{}, fence.ClosedName) })
		assert.True(t, person())
		assert.True(t, reach("10.77.0.1:7001"))
	})
}
