package link_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/link"
	"github.com/slurm-enclave/slurm-enclave/internal/host/nettest"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

func TestRoutes(t *testing.T) {
	n := nettest.New(t, "n")
	k := link.Kernel{}
	const table = 268435463
	n.Run("ip", "link", "add", "enc7", "type", "bridge")
	n.Run("ip", "addr", "add", "10.78.255.1/32", "dev", "enc7")
	n.Run("ip", "-6", "addr", "add", "fd78::ffff:1/128", "dev", "enc7", "nodad")
	n.Run("ip", "link", "set", "enc7", "up")
	routes := func(from, to int) (list []mesh.Route) {
		for i := from; i < to; i++ {
			r := mesh.Route{Table: table, Device: "enc7", To: netip.AddrFrom4([4]byte{10, 78, byte(i >> 8), byte(i)}), Source: netip.MustParseAddr("10.78.255.1")}
			if i%3 == 0 {
				r.To, r.Source = netip.MustParseAddr(fmt.Sprintf("fd78::%x", i+1)), netip.MustParseAddr("fd78::ffff:1")
			}
			list = append(list, r)
		}
		return list
	}
	have := func() (list []mesh.Route) {
		n.Must(func() (err error) { list, err = k.Routes(t.Context(), table); return err })
		return list
	}
	add := func(list []mesh.Route) error { return n.Do(func() error { return k.AddRoutes(t.Context(), list) }) }

	t.Run("of a large job are all there, and as they were written", func(t *testing.T) {
		require.NoError(t, add(routes(0, 1000)))
		byAddress := func(a, b mesh.Route) int { return a.To.Compare(b.To) }
		require.Equal(t, slices.SortedFunc(slices.Values(routes(0, 1000)), byAddress), slices.SortedFunc(slices.Values(have()), byAddress))
	})
	t.Run("no route at all is none", func(t *testing.T) {
		require.NoError(t, add(nil))
		assert.Len(t, have(), 1000)
	})
	t.Run("one that is there already is named, wherever in the list it stands", func(t *testing.T) {
		for _, at := range []int{0, 100, 300, 599} {
			list := routes(1000+at, 1000+at+600)
			list = slices.Insert(list[:599:599], at, routes(17, 18)...)
			err := add(list)
			require.ErrorIs(t, err, unix.EEXIST)
			require.ErrorContains(t, err, routes(17, 18)[0].To.String())
			for _, r := range list {
				if r.To != routes(17, 18)[0].To { // of the page after the one with the fault nothing was added, and that is no error
					n.Must(func() error { return k.DeleteRoute(t.Context(), r) })
				}
			}
			require.Equal(t, 1000, len(have()), "all others can be deleted") //nolint:testifylint // Len would print a thousand routes
		}
	})
	t.Run("a list of which every one fails gives the first", func(t *testing.T) {
		err := add(routes(0, 1000))
		require.ErrorIs(t, err, unix.EEXIST)
		assert.ErrorContains(t, err, routes(0, 1)[0].To.String())
	})
	t.Run("an interface that is not there is named", func(t *testing.T) {
		list := routes(5000, 5001)
		list[0].Device = "enc8"
		assert.ErrorContains(t, add(list), "no interface enc8")
	})
	t.Run("they go with the interface", func(t *testing.T) {
		n.Must(func() error { return k.DeleteLink(t.Context(), "enc7") })
		assert.Empty(t, have())
	})
}
