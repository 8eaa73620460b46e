//go:build vm || e2e

package vmtest_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/vmtest"
)

// parse reads an Ethernet frame; ok is false for what is not IP, and for neighbour discovery.
func parse(frame []byte) (p packettest.Packet, ok bool) {
	if len(frame) < 14 {
		return p, false
	}
	switch kind := binary.BigEndian.Uint16(frame[12:]); kind {
	case unix.ETH_P_IP, unix.ETH_P_IPV6:
		p, ok = packettest.Parse(frame[14:])
	}
	return p, ok && p.Proto != unix.IPPROTO_ICMPV6 && p.Proto != 0
}

// forge is an Ethernet frame to a machine with whatever IPv4 source the attacker likes.
func forge(to byte, src, dst netip.Addr, proto byte, transport []byte) []byte {
	head := slices.Concat(vmtest.Ethernet(0, to), vmtest.Ethernet(0, 0xee), []byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff})
	return append(head, packettest.IP(src, dst, proto, transport)...)
}

// onlyWireGuard says that of all IP packets on the wire those between two nodes were WireGuard's.
func onlyWireGuard(t *testing.T, wire *vmtest.Hub, a, b *node) {
	t.Helper()
	seen := 0
	ends := slices.Concat(a.orders.Own.Addresses, b.orders.Own.Addresses)
	for _, frame := range wire.Frames() {
		p, ok := parse(frame)
		switch {
		case !ok, !slices.Contains(ends, p.Src), !slices.Contains(ends, p.Dst):
		case p.Proto == unix.IPPROTO_UDP && p.SPort == 51820 && p.DPort == 51820:
			seen++
		default:
			t.Errorf("on the wire: %s", p)
		}
	}
	require.Positive(t, seen, "nothing was captured")
}
