package server

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOneHostDoesNotHoldEveryConnection(t *testing.T) {
	t.Parallel()
	fresh := func() *limited {
		return limit(nil, func(host string) bool { return host[:6] == "fd00:a" }).(*limited)
	}
	fill := func(l *limited, n int, host string) (in int) {
		for i := range n {
			if l.enter(fmt.Sprintf(host, i)) {
				in++
			}
		}
		return in
	}
	t.Run("from every address of its network", func(t *testing.T) {
		t.Parallel()
		l := fresh()
		require.Equal(t, maxPerNetwork, fill(l, 10_000, "fd00:b::%x"))
		assert.True(t, l.enter("fd00:c::1"), "another network")
		assert.True(t, l.enter("10.0.0.1"))
		l.exit("fd00:b::1")
		assert.True(t, l.enter("fd00:b::ffff"), "one that left makes room")
	})
	t.Run("the inventory's nodes may be in one network, and each has its own", func(t *testing.T) {
		t.Parallel()
		l := fresh()
		assert.Equal(t, 16384, fill(l, 16384, "fd00:a::%x"))
		for range maxPerSource - 1 {
			require.True(t, l.enter("fd00:a::1"))
		}
		assert.False(t, l.enter("fd00:a::1"))
	})
	t.Run("nor do many", func(t *testing.T) {
		t.Parallel()
		l := fresh()
		require.Equal(t, maxTogether, fill(l, 50_000, "h%d"))
		for i := range maxTogether {
			l.exit(fmt.Sprintf("h%d", i))
		}
		assert.Empty(t, l.open)
		assert.Zero(t, l.all)
	})
}

func TestOneNodeDoesNotTakeEveryTurn(t *testing.T) {
	t.Parallel()
	b := &busy{n: map[string]int{}}
	for range maxPerNode {
		require.True(t, b.enter("n1"))
	}
	assert.False(t, b.enter("n1"))
	assert.True(t, b.enter("n2"))
	b.leave("n1")
	assert.True(t, b.enter("n1"))
}

func TestANetworkIsOneSource(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"10.0.0.1": "10.0.0.1", "::ffff:10.0.0.1": "::ffff:10.0.0.1", "fd00::1:2:3:4": "fd00::/64", "fe80::1%eth0": "fe80::/64", "@": "@",
	} {
		assert.Equal(t, want, wide(host))
	}
}
