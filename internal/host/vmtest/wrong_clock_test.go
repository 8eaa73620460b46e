//go:build vm || e2e

package vmtest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/host/vmtest"
)

// setClock sets a machine's wall clock off by so much until the test ends. Each machine has a kernel and so a
// clock of its own, which the hosts of a lab have not.
func setClock(t *testing.T, m *vmtest.Machine, by time.Duration) {
	t.Helper()
	set := func(by time.Duration) {
		out, ok := m.Try("sh", "-c", fmt.Sprintf("date -s @$(($(date +%%s) + %d))", int(by.Seconds())))
		assert.True(t, ok, out)
	}
	before := wall(t, m)
	set(by)
	t.Cleanup(func() { set(-by) })
	require.InDelta(t, by.Seconds(), wall(t, m)-before, 60, "control: it is another time there")
}

func wall(t *testing.T, m *vmtest.Machine) (seconds float64) {
	t.Helper()
	_, err := fmt.Sscanf(m.Run(t, "date", "+%s"), "%f", &seconds)
	require.NoError(t, err)
	return seconds
}

// TestP5WrongClocks: a wall clock is set an hour forward or back while a job runs, and the next one begins
// under it. Nobody's evidence is refused for that, no lifetime ends early or late, and each start has its end.
func TestP5WrongClocks(t *testing.T) {
	s := installation.ready(t)
	before := len(s.enclaved.Output()) // other tests' nodes were broken
	for i, c := range []struct {
		name string
		m    *vmtest.Machine
		by   time.Duration
	}{
		{"a node's, an hour ahead", s.nodes[1].Machine, time.Hour},
		{"a node's, an hour behind", s.nodes[1].Machine, -time.Hour},
		{"the controller's, an hour ahead", s.controller, time.Hour},
		{"the controller's, an hour behind", s.controller, -time.Hour},
	} {
		if size < 3 && i%3 != 0 {
			continue // the smoke run has the first and the last
		}
		t.Run(c.name, func(t *testing.T) {
			j := s.next()
			j.begin(t)
			setClock(t, c.m, c.by)
			for _, n := range s.nodes {
				at, first := n.uptime(t), n.expires(t)
				assert.LessOrEqual(t, first, at+s.grace, "GO ends on a clock that nobody sets")
				require.Eventually(t, func() bool { return n.expires(t) > first }, patience, time.Second, "%s is renewed", n.Name)
				assert.True(t, n.admitted(t), n.Name)
				assert.LessOrEqual(t, n.expires(t), n.uptime(t)+s.grace)
			}
			j.end(t)
			next := s.next()
			next.begin(t)
			next.end(t)
			s.closed(t)
			for _, code := range []string{"E511", "E530", "E531", "E546"} { // drains, storms, overdue nodes, evidence that can't be judged
				assert.NotContains(t, s.enclaved.Output()[before:], code)
			}
		})
	}
}
