package tunnel_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/host/filter"
)

// member is a socket that is in a group on a node's card, until the test's end or leave.
type member struct{ fd int }

func join(t *testing.T, n *node, group string, sources ...string) member {
	t.Helper()
	m := member{-1}
	a := netip.MustParseAddr(group)
	n.Must(func() error {
		card, err := ifIndex("eth0")
		if err != nil {
			return err
		}
		if a.Is6() {
			if m.fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0); err != nil {
				return err
			}
			return unix.SetsockoptIPv6Mreq(m.fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: a.As16(), Interface: uint32(card)})
		}
		if m.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); err != nil {
			return err
		}
		if len(sources) == 0 {
			return unix.SetsockoptIPMreqn(m.fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: a.As4(), Ifindex: int32(card)})
		}
		four, here := a.As4(), n.own.Addresses[0].As4()
		for _, s := range sources {
			from := netip.MustParseAddr(s).As4()
			request := append(append(append([]byte(nil), four[:]...), here[:]...), from[:]...) // struct ip_mreq_source
			if err = unix.SetsockoptString(m.fd, unix.IPPROTO_IP, unix.IP_ADD_SOURCE_MEMBERSHIP, string(request)); err != nil {
				return err
			}
		}
		return nil
	})
	t.Cleanup(func() { m.leave() })
	return m
}

func (m *member) leave() {
	if m.fd >= 0 {
		_ = unix.Close(m.fd)
	}
	m.fd = -1
}

// reported says whether the node tells the network of these bytes when a socket joins, or leaves.
func (l *lab) reported(group string, sources ...string) bool {
	l.t.Helper()
	l.wire.clear()
	m := join(l.t, l.nodes[0], group, sources...)
	time.Sleep(300 * time.Millisecond)
	m.leave()
	time.Sleep(300 * time.Millisecond)
	b := netip.MustParseAddr(group).AsSlice()
	if len(sources) > 0 {
		b = netip.MustParseAddr(sources[0]).AsSlice()
	}
	return l.wire.holds(string(b)) > 0
}

// TestGroups: what a socket joins, the kernel tells the network by a socket of its own.
func TestGroups(t *testing.T) {
	l := build(t)
	n1 := l.nodes[0]
	secret6 := netip.AddrFrom16([16]byte([]byte("\xff\x02GROUP-SECRET-6"))).String()
	type attempt struct {
		name, group string
		sources     []string
		let         bool
	}
	attempts := []attempt{
		{"bytes of the user's as an IPv6 group", secret6, nil, false},
		{"an IPv6 group near that of neighbour discovery", "ff02::1:fe12:3456", nil, false},
		{"an IPv4 group", "239.77.0.1", nil, false},
		{"an IPv6 group of neighbour discovery", "ff02::1:ff12:3456", nil, true},
		{"a listed IPv6 group", "ff05::1:3", nil, true},
		{"a listed IPv4 group", "239.2.11.71", nil, true},
		{"sources of a listed IPv4 group", "239.2.11.72", []string{"83.69.67.82"}, false},
	}
	n1.up(t)
	for _, a := range attempts {
		assert.Equal(t, a.let, l.reported(a.group, a.sources...), "in the fence: %s", a.name)
	}
	n1.Must(func() error {
		c, err := fence.ReadCounters(t.Context(), filter.Kernel{}, job)
		assert.Positive(t, c.Groups.Packets)
		return err
	})
	n1.down(t)
	n1.close(t)
	assert.False(t, l.reported(secret6), "between jobs")
	n1.unclose(t)
	for _, a := range attempts {
		assert.True(t, l.reported(a.group, a.sources...), "control: without a fence: %s", a.name)
	}
	n1.up(t)
	t.Run("a switch that asks hears of the node's own groups", func(t *testing.T) {
		asked := func() int {
			l.wire.clear()
			l.sw.Run("ip", "link", "set", "br0", "type", "bridge", "mcast_snooping", "1", "mcast_query_response_interval", "100", "mcast_mld_version", "2", "mcast_querier", "0")
			l.sw.Run("ip", "link", "set", "br0", "type", "bridge", "mcast_querier", "1")
			time.Sleep(2500 * time.Millisecond)
			// One report of both: neighbour discovery's for fd77::1, and the listed one.
			own, listed := netip.MustParseAddr("ff02::1:ff00:1").As16(), netip.MustParseAddr("ff05::1:3").As16()
			return l.wire.holds(string(own[:]), string(listed[:]))
		}
		join(t, n1, "ff05::1:3")
		assert.Positive(t, asked())
		foreign := join(t, n1, secret6)
		assert.Zero(t, asked(), "a report that holds another group, too, is held back")
		foreign.leave()
	})
}
