package tunnel_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// TestFlowsOlderThanTheFence: the user's, to servers of root's. Without the job's mark from their beginning, conntrack has to
// find out whose they are, whether it has seen them begin or not.
func TestFlowsOlderThanTheFence(t *testing.T) {
	for _, tracked := range []bool{true, false} {
		t.Run(fmt.Sprintf("conntrack at work before: %t", tracked), func(t *testing.T) {
			l := build(t)
			n1, n2 := l.nodes[0], l.nodes[1]
			if tracked {
				for _, n := range l.nodes {
					n.Run("nft", "add table inet track; add chain inet track in { type filter hook input priority 0; }; add rule inet track in ct state established accept")
				}
			}
			flows := map[string]role{
				"TCP":                         {Proto: "tcp", Address: "10.77.0.2:7010"},
				"TCP on IPv6":                 {Proto: "tcp", Address: "[fd77::2]:7010"},
				"TCP to a listed daemon":      {Proto: "tcp", Address: "10.77.0.2:22"},
				"TCP on IPv6 to a listed one": {Proto: "tcp", Address: "[fd77::2]:22"},
				"UDP":                         {Proto: "udp", Address: "10.77.0.2:7010"},
				"UDP to a listed daemon":      {Proto: "udp", Address: "10.77.0.2:161"},
			}
			clients := map[string]*actor{}
			for name, r := range flows {
				r.Payload = secret + "-before-" + name
				serve(t, n2.Node, 0, r.Proto, r.Address)
				clients[name] = act(t, n1.Node, user, r)
				clients[name].must("got")
				assert.Positive(t, l.wire.holds(r.Payload), "control: without an enclave")
			}
			for _, n := range l.nodes {
				n.up(t)
			}
			for name, c := range clients {
				t.Run(name+" goes on in the tunnel", func(t *testing.T) {
					l.wire.clear()
					c.say(secret + "-after")
					c.must("-after")
					l.wire.onlyWireGuard(t)
				})
			}
		})
	}
}

// TestListedDaemonsAnswerInTheTunnel: their flows to others are not tracked, and what a user of the job's has asked is answered
// where it was asked.
func TestListedDaemonsAnswerInTheTunnel(t *testing.T) {
	l := enclaveUp(t)
	for name, r := range map[string]role{
		"ssh":         {Proto: "tcp", Address: "10.77.0.2:22"},
		"ssh on IPv6": {Proto: "tcp", Address: "[fd77::2]:22"},
		"snmp":        {Proto: "udp", Address: "10.77.0.2:161"},
	} {
		t.Run(name, func(t *testing.T) {
			r.Payload = secret
			serve(t, l.nodes[1].Node, 0, r.Proto, r.Address)
			l.wire.clear()
			act(t, l.nodes[0].Node, user, r).must("got")
			l.wire.onlyWireGuard(t)
		})
	}
	t.Run("to a daemon of a peer's the same one answers outside, as it was asked", func(t *testing.T) {
		serve(t, l.nodes[0].Node, 0, "tcp", "10.77.0.1:22")
		assert.True(t, act(t, l.nodes[1].Node, 0, role{Proto: "tcp", Address: "10.77.0.1:22", Payload: "x"}).says("got", 10*time.Second))
	})
}
