package tunnel_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/nettest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
)

// neighbour is a machine on the nodes' network that belongs to no job and to nobody's Slurm. It
// sends what it likes, frame by frame.
type neighbour struct {
	*nettest.Node

	t    *testing.T
	own  net.HardwareAddr
	sent int // frames
}

func newNeighbour(t *testing.T, sw *nettest.Node) *neighbour {
	t.Helper()
	y := &neighbour{Node: nettest.New(t, "y"), t: t}
	y.Join(sw, 1500, "10.77.0.50/24", "fd77::50/64")
	y.own = hardware(t, y.Node)
	return y
}

func hardware(t *testing.T, n *nettest.Node) net.HardwareAddr {
	t.Helper()
	_, after, found := strings.Cut(n.Run("ip", "-o", "link", "show", "eth0"), "link/ether ")
	require.True(t, found)
	mac, err := net.ParseMAC(strings.Fields(after)[0])
	require.NoError(t, err)
	return mac
}

// put sends packets to a machine, whatever addresses they name.
func (y *neighbour) put(to net.HardwareAddr, packets ...[]byte) {
	y.t.Helper()
	y.Must(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		index, err := ifIndex("eth0")
		if err != nil {
			return err
		}
		for _, p := range packets {
			frame := append(append([]byte{}, to...), y.own...)
			frame = append(append(frame, etherType(p)...), p...)
			for {
				err = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index})
				if !errors.Is(err, unix.ENOBUFS) {
					break
				}
			}
			if err != nil {
				return err
			}
			y.sent++
		}
		return nil
	})
}

func etherType(p []byte) []byte {
	switch p[0] >> 4 {
	case 4:
		return []byte{0x08, 0x00}
	case 6:
		return []byte{0x86, 0xdd}
	default: // ARP begins with the kind of hardware, 0 and 1
		return []byte{0x08, 0x06}
	}
}

// fragments cuts an IPv4 packet in two, behind so many bytes of its payload; a multiple of eight.
func fragments(p []byte, behind int) [][]byte {
	const more = 0x2000
	src, dst, body := netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), p[20:]
	return [][]byte{
		append(packettest.Head4(src, dst, p[9], behind, more), body[:behind]...),
		append(packettest.Head4(src, dst, p[9], len(body)-behind, uint16(behind/8)), body[behind:]...),
	}
}

// icmp is an error about a packet that its receiver is said to have sent: type, code, the last
// four bytes of the head, and the packet.
func icmp(kind, code byte, rest uint32, about []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind, code, 0, 0}, rest)
	return append(b, about[:min(len(about), 60)]...)
}

// sctp is an INIT, with the sum (CRC-32C, RFC 9260, appendix A) without which a kernel that speaks SCTP is silent.
func sctp(sport, dport uint16) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, sport), dport)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)                       // no tag yet, the sum
	b = append(b, 1, 0, 0, 20, 0, 0, 0, 1)                      // INIT, its length, its tag
	b = append(b, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)           // window, streams out and in, first number
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) // of the packet with a sum of zero
	binary.LittleEndian.PutUint32(b[8:], sum)
	return b
}

// arp says that an address is at a machine, as an answer that nobody asked for.
func arp(is netip.Addr, at net.HardwareAddr, to netip.Addr, toAt net.HardwareAddr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 2}
	b = append(append(b, at...), is.AsSlice()...)
	return append(append(b, toAt...), to.AsSlice()...)
}

// advertisement is IPv6's word that an address is at a machine; it overrides what was known.
func advertisement(is netip.Addr, at net.HardwareAddr) []byte {
	const override = 0x20000000
	b := binary.BigEndian.AppendUint32([]byte{136, 0, 0, 0}, override)
	b = append(b, is.AsSlice()...)
	return append(append(b, 2, 1), at...)
}

// routerAdvertisement makes a neighbour the default router, and a prefix one that is on the link.
func routerAdvertisement(at net.HardwareAddr, prefix netip.Prefix) []byte {
	b := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
	b = append(append(b, 1, 1), at...)
	b = append(b, 3, 4, byte(prefix.Bits()), 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0)
	return append(b, prefix.Addr().AsSlice()...)
}
