package packettest_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, ends := range [][2]string{{"10.77.0.2", "10.77.0.1"}, {"fd77::2", "fd77::1"}} {
		src, dst := netip.MustParseAddr(ends[0]), netip.MustParseAddr(ends[1])
		for name, tc := range map[string]struct {
			proto byte
			data  []byte
		}{
			"a datagram": {unix.IPPROTO_UDP, packettest.UDP(7000, 7100, "odd")},
			"a segment":  {unix.IPPROTO_TCP, packettest.TCP(7000, 7100, 5, 6, 0x18, "even")},
		} {
			t.Run(name+" "+ends[0], func(t *testing.T) {
				p, ok := packettest.Parse(packettest.IP(src, dst, tc.proto, tc.data))
				require.True(t, ok)
				assert.Equal(t, [2]netip.Addr{src, dst}, [2]netip.Addr{p.Src, p.Dst})
				assert.Equal(t, tc.proto, p.Proto)
				assert.Equal(t, [2]uint16{7000, 7100}, [2]uint16{p.SPort, p.DPort})
				pseudo := append(append(src.AsSlice(), dst.AsSlice()...), 0, tc.proto, 0, byte(len(p.Data)))
				assert.Zero(t, packettest.Checksum(pseudo, p.Data), "a sum over what holds its checksum is 0")
			})
		}
	}
	_, ok := packettest.Parse([]byte{0x45, 0})
	assert.False(t, ok)
}

// TestChecksum is the example of RFC 1071, section 3.
func TestChecksum(t *testing.T) {
	assert.Equal(t, ^uint16(0xddf2), packettest.Checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}))
}

func TestNext(t *testing.T) {
	a, b := netip.MustParseAddrPort("10.77.0.1:7000"), netip.MustParseAddrPort("10.77.0.2:7100")
	segment := func(from, to netip.AddrPort, seq uint32, flags byte, data string) packettest.Packet {
		p, ok := packettest.Parse(packettest.IP(from.Addr(), to.Addr(), unix.IPPROTO_TCP, packettest.TCP(from.Port(), to.Port(), seq, 0, flags, data)))
		require.True(t, ok)
		return p
	}
	const syn, ack = 0x02, 0x10
	seen := []packettest.Packet{
		segment(a, b, 0xfffffffe, syn, ""), segment(b, a, 100, syn|ack, ""), segment(a, b, 0xffffffff, ack, "four"),
		segment(b, a, 101, ack, "two"), segment(a, b, 2, ack, ""), // asks whether b is still there
	}
	seq, acked, found := packettest.Next(seen, a, b)
	require.True(t, found)
	assert.Equal(t, uint32(3), seq, "beyond the end of the numbers")
	assert.Equal(t, uint32(104), acked)
	_, _, found = packettest.Next(seen, b, netip.MustParseAddrPort("10.77.0.1:7001"))
	assert.False(t, found)
}
