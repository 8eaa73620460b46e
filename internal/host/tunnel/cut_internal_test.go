package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// segment is a TCP packet with good checksums.
func segment(six bool, port uint16, sequence uint32, flags byte, payload []byte) []byte {
	start := ipv4Size
	if six {
		start = ipv6Size
	}
	p := make([]byte, start+tcpSize+12+len(payload))
	if six {
		p[0], p[6], p[7] = 0x60, protocolTCP, 64
		p[23], p[39] = 1, 2
	} else {
		p[0], p[8], p[9] = 0x45, 64, protocolTCP
		copy(p[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	}
	tcp := p[start:]
	binary.BigEndian.PutUint16(tcp, port)
	binary.BigEndian.PutUint16(tcp[2:], 443)
	binary.BigEndian.PutUint32(tcp[tcpSequence:], sequence)
	binary.BigEndian.PutUint32(tcp[8:], 77)
	tcp[12], tcp[tcpFlags] = 8<<4, flags
	copy(tcp[20:], []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2})
	copy(tcp[32:], payload)
	finish(p, start)
	return p
}

// slowSum is RFC 1071 as it is written, for the other one not to be judged by itself.
func slowSum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		word := uint32(b[i]) << 8
		if i+1 < len(b) {
			word |= uint32(b[i+1])
		}
		s += word
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func checksumsAreGood(t *testing.T, p []byte) {
	t.Helper()
	if p[0]>>4 == 4 {
		assert.Equal(t, uint16(0xffff), slowSum(p[:ipv4Size]), "IPv4")
		over := append(append([]byte{}, p[12:20]...), 0, p[9], byte((len(p)-ipv4Size)>>8), byte(len(p)-ipv4Size))
		assert.Equal(t, uint16(0xffff), slowSum(append(over, p[ipv4Size:]...)), "over IPv4")
		return
	}
	over := append(append([]byte{}, p[8:40]...), 0, 0, byte((len(p)-ipv6Size)>>8), byte(len(p)-ipv6Size), 0, 0, 0, p[6])
	assert.Equal(t, uint16(0xffff), slowSum(append(over, p[ipv6Size:]...)), "over IPv6")
}

const ahead = 16 // bytes before a packet, as WireGuard leaves them

// buffers are WireGuard's: large, with a packet in each.
func buffers(packets ...[]byte) [][]byte {
	var all [][]byte
	for _, p := range packets {
		b := make([]byte, ahead+len(p), maxPacket)
		copy(b[ahead:], p)
		all = append(all, b)
	}
	return all
}

// cutAll gives the packets that the kernel would see in the end.
func cutAll(t testing.TB, large [][]byte) [][]byte {
	t.Helper()
	var all [][]byte
	for _, l := range large {
		bufs, sizes := make([][]byte, 128), make([]int, 128)
		for i := range bufs {
			bufs[i] = make([]byte, 2000)
		}
		n, err := cut(bytes.Clone(l), bufs, sizes, ahead)
		require.NoError(t, err)
		for i := range n {
			all = append(all, bufs[i][ahead:ahead+sizes[i]])
		}
	}
	return all
}

// flowOf is all of a packet but what cutting may change: identity and checksum of IPv4.
func flowOf(p []byte) string {
	p = bytes.Clone(p)
	if len(p) >= ipv4Size && p[0]>>4 == 4 {
		clear(p[ipv4ID : ipv4ID+2])
		clear(p[ipv4Sum : ipv4Sum+2])
	}
	return string(p)
}

const ack = 0x10

func TestJoinAndCut(t *testing.T) {
	t.Parallel()
	payload := bytes.Repeat([]byte("0123456789"), 140)
	for _, six := range []bool{false, true} {
		t.Run(fmt.Sprintf("what is joined is cut into the same packets, IPv6 %v", six), func(t *testing.T) {
			t.Parallel()
			var sent [][]byte
			for i := range 20 {
				flags, part := byte(ack), payload
				if i == 19 {
					flags, part = ack|flagPSH, payload[:33]
				}
				sent = append(sent, segment(six, 1000, uint32(1<<32-5000+i*len(payload)), flags, part))
			}
			j := joiner{}
			joined := j.join(buffers(sent...), ahead)
			require.Len(t, joined, 1)
			got := cutAll(t, joined)
			require.Len(t, got, len(sent))
			for i := range sent {
				checksumsAreGood(t, got[i])
				assert.Equal(t, flowOf(sent[i]), flowOf(got[i]), "packet %d", i)
			}
		})
	}
	t.Run("flows that alternate are joined apart", func(t *testing.T) {
		t.Parallel()
		var sent [][]byte
		for i := range 6 {
			sent = append(sent, segment(false, uint16(1000+i%2), uint32(i/2*len(payload)), ack, payload))
		}
		j := joiner{}
		assert.Len(t, j.join(buffers(sent...), ahead), 2)
	})
	apart := map[string]func(second []byte) []byte{
		"a gap":                       func([]byte) []byte { return segment(false, 1000, uint32(2*len(payload)), ack, payload) },
		"the same bytes again":        func([]byte) []byte { return segment(false, 1000, 0, ack, payload) },
		"a packet that ends the flow": func([]byte) []byte { return segment(false, 1000, uint32(len(payload)), ack|flagFIN, payload) },
		"a larger packet": func([]byte) []byte {
			return segment(false, 1000, uint32(len(payload)), ack, append(bytes.Clone(payload), 1))
		},
		"a bad checksum":               func(p []byte) []byte { p[len(p)-1] ^= 1; return p },
		"a bad header checksum":        func(p []byte) []byte { p[ipv4Sum] ^= 1; return p },
		"a fragment":                   func(p []byte) []byte { p[6] |= 0x20; lengths(p, ipv4Size); return p },
		"another acknowledgement":      func(p []byte) []byte { p[ipv4Size+11]++; finish(p, ipv4Size); return p },
		"another window":               func(p []byte) []byte { p[ipv4Size+15]++; finish(p, ipv4Size); return p },
		"another option":               func(p []byte) []byte { p[ipv4Size+31]++; finish(p, ipv4Size); return p },
		"congestion was met":           func(p []byte) []byte { p[1] |= 3; finish(p, ipv4Size); return p },
		"another time to live":         func(p []byte) []byte { p[8]--; finish(p, ipv4Size); return p },
		"another address":              func(p []byte) []byte { p[15]++; finish(p, ipv4Size); return p },
		"no payload":                   func([]byte) []byte { return segment(false, 1000, uint32(len(payload)), ack, nil) },
		"a length that is not its own": func(p []byte) []byte { return append(p, 0) },
	}
	for name, change := range apart {
		t.Run(name+" is not joined", func(t *testing.T) {
			t.Parallel()
			first := segment(false, 1000, 0, ack, payload)
			second := change(segment(false, 1000, uint32(len(payload)), ack, payload))
			j := joiner{}
			joined := j.join(buffers(first, second), ahead)
			require.Len(t, joined, 2)
			assert.Equal(t, first, joined[0][headerSize:])
			assert.Equal(t, second, joined[1][headerSize:], "and arrives as it is")
			assert.Equal(t, make([]byte, headerSize), joined[1][:headerSize])
		})
	}
	t.Run("the packet that follows in order is joined, which shows that the others could be", func(t *testing.T) {
		t.Parallel()
		j := joiner{}
		assert.Len(t, j.join(buffers(segment(false, 1000, 0, ack, payload), segment(false, 1000, uint32(len(payload)), ack, payload)), ahead), 1)
	})
	t.Run("nothing goes on after a pushed or a shorter packet, and order stays", func(t *testing.T) {
		t.Parallel()
		sent := [][]byte{
			segment(false, 1000, 0, ack, payload), segment(false, 1000, 1400, ack, payload[:10]), segment(false, 1000, 1410, ack, payload),
			segment(false, 1000, 2810, ack|flagPSH, payload), segment(false, 1000, 4210, ack, payload),
		}
		j := joiner{}
		joined := j.join(buffers(sent...), ahead)
		require.Len(t, joined, 3)
		got := cutAll(t, joined)
		for i := range sent {
			assert.Equal(t, flowOf(sent[i]), flowOf(got[i]))
		}
	})
	t.Run("no packet grows over IP's limit", func(t *testing.T) {
		t.Parallel()
		var sent [][]byte
		for i := range 100 {
			sent = append(sent, segment(false, 1000, uint32(i*len(payload)), ack, payload))
		}
		j := joiner{}
		for _, l := range j.join(buffers(sent...), ahead) {
			assert.LessOrEqual(t, len(l), headerSize+maxPacket)
		}
	})
}

func TestCutFillsInTheChecksumThatTheKernelLeftOut(t *testing.T) {
	t.Parallel()
	p := segment(true, 1000, 5, ack, []byte("odd"))
	want := bytes.Clone(p)
	binary.BigEndian.PutUint16(p[ipv6Size+tcpSum:], fold(pseudo(p, len(p)-ipv6Size)))
	in := append(make([]byte, headerSize), p...)
	in[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(in[6:], ipv6Size)
	binary.NativeEndian.PutUint16(in[8:], tcpSum)
	got := cutAll(t, [][]byte{in})
	require.Len(t, got, 1)
	assert.Equal(t, want, got[0])
	checksumsAreGood(t, got[0])
}

func TestSum(t *testing.T) {
	t.Parallel()
	for n := range 200 {
		b := bytes.Repeat([]byte{0xff, 0xfe, byte(n)}, n)[:n]
		assert.Equal(t, slowSum(b), fold(sum(b, 0)), "%d bytes", n)
	}
}

func FuzzCut(f *testing.F) {
	large := make([]byte, 0, 4000)
	large = append(large, make([]byte, headerSize)...)
	large = append(large, segment(false, 1, 2, ack, make([]byte, 3000))...)
	large[1], large[4], large[5] = unix.VIRTIO_NET_HDR_GSO_TCPV4, 0x20, 3
	large[6], large[8] = ipv4Size, tcpSum
	f.Add(large)
	f.Fuzz(func(t *testing.T, in []byte) {
		bufs, sizes := make([][]byte, 8), make([]int, 8)
		for i := range bufs {
			bufs[i] = make([]byte, 2000)
		}
		n, err := cut(in, bufs, sizes, ahead)
		require.LessOrEqual(t, n, len(bufs))
		if err != nil {
			return
		}
		for _, s := range sizes[:n] {
			require.LessOrEqual(t, s, 2000-ahead)
		}
	})
}

// FuzzJoin plays flows of packets, good and bad: what arrives is what was sent, in the same order in every flow.
func FuzzJoin(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 1, 1, 0, 2, 8, 9, 0, 17, 3})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 24 {
			script = script[:24]
		}
		next := map[uint16]uint32{}
		var sent [][]byte
		for _, c := range script {
			port := uint16(c & 3)
			flags := byte(ack)
			if c&4 != 0 {
				flags |= flagPSH
			}
			n := 100 + int(c>>5)*8
			p := segment(c&8 != 0, port, next[port], flags, bytes.Repeat([]byte{c}, n))
			next[port] += uint32(n)
			if c&16 != 0 {
				p[len(p)-1] ^= 0x55
			}
			sent = append(sent, p)
		}
		j := joiner{}
		got := cutAll(t, j.join(buffers(sent...), ahead))
		require.Len(t, got, len(sent))
		flows := func(all [][]byte) map[string][]string {
			m := map[string][]string{}
			for _, p := range all {
				start := ipv4Size
				if p[0]>>4 == 6 {
					start = ipv6Size
				}
				k := fmt.Sprint(start) + string(p[start:start+4])
				m[k] = append(m[k], flowOf(p))
			}
			return m
		}
		require.Equal(t, flows(sent), flows(got))
	})
}
