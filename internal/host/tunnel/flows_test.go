package tunnel_test

import (
	"context"
	"fmt"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
)

// knows says whether conntrack knows a flow from or to a port on a node.
func (n *node) knows(port int) bool {
	flows := n.Run("cat", "/proc/net/nf_conntrack")
	return regexp.MustCompile(fmt.Sprintf(`[sd]port=%d\b`, port)).MatchString(flows)
}

// full is a table that says it is full, which takes a minute on an emulated processor. The lab fills its own: TestP2AUserWhoTakesAllHarmsHimselfAlone.
type full struct{ filter.Kernel }

func (full) Count(context.Context) (flows, most int, err error) { return 1, 1, nil }

// TestConntrackForgetsAJob: what a job leaves in conntrack goes with it, and nothing else.
func TestConntrackForgetsAJob(t *testing.T) {
	l := enclaveUp(t)
	n1, n2 := l.nodes[0], l.nodes[1]
	n1.Run("sh", "-c", "echo 600 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout") // none ends by itself
	ports := map[string]int{}
	talk := func(name string, server, client *node, uid uint32, proto, address string) *actor {
		port := 7200 + len(ports)
		ports[name] = port
		where := fmt.Sprintf("%s:%d", address, port)
		if server == nil {
			serve(t, l.x, 0, proto, where)
		} else {
			serve(t, server.Node, uid, proto, where)
		}
		a := act(t, client.Node, uid, role{Proto: proto, Address: where, Payload: secret})
		a.must("got")
		return a
	}
	talk("a user's datagrams on the node", n1, n1, user, "udp", "127.0.0.1")
	talk("a user's datagrams on the node, IPv6", n1, n1, user, "udp", "[::1]")
	talk("a sub-uid's", n1, n1, subUser, "udp", "127.0.0.1")
	talk("a user's datagrams to a peer", n2, n1, user, "udp", "10.77.0.2")
	talk("a peer's, IPv6", n1, n2, user, "udp", "[fd77::1]")
	talk("a connection on the node that has ended", n1, n1, user, "tcp", "127.0.0.1").stop()
	gone := len(ports)
	talk("a connection to a peer", n2, n1, user, "tcp", "10.77.0.2")
	talk("a connection to a peer that has ended", n2, n1, user, "tcp", "10.77.0.2").stop()
	talk("a daemon's datagrams", nil, n1, 0, "udp", "10.77.0.100")
	talk("a daemon's on the node", n1, n1, 0, "udp", "127.0.0.1")
	daemon := talk("a daemon's connection", nil, n1, 0, "tcp", "10.77.0.100")
	const many = 1000
	fill := act(t, n1.Node, user, role{Proto: "fill", Times: many})
	fill.must("made")
	for name, port := range ports {
		require.True(t, n1.knows(port), "control: %s", name)
	}
	flows := func() int { return integer(t, n1.Run("cat", "/proc/sys/net/netfilter/nf_conntrack_count")) }
	require.Greater(t, flows(), many)
	n1.close(t)
	n1.down(t)
	var forgot int
	n1.Must(func() (err error) { forgot, err = fence.Forget(t.Context(), full{}); return err })
	assert.GreaterOrEqual(t, forgot, many+gone)
	assert.Less(t, flows(), 100)
	for name, port := range ports {
		if port < 7200+gone {
			assert.False(t, n1.knows(port), name)
		} else {
			assert.True(t, n1.knows(port), name)
		}
	}
	daemon.say("GOES-ON")
	daemon.must("GOES-ON")
	assert.NotContains(t, n1.Run("nft", "list", "tables"), fence.Name(job))
}
