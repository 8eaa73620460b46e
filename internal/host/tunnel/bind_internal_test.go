package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

func TestAlike(t *testing.T) {
	t.Parallel()
	packets := func(sizes ...int) (all [][]byte) {
		for _, n := range sizes {
			all = append(all, make([]byte, n))
		}
		return all
	}
	many := make([]int, 100)
	for i := range many {
		many[i] = 1000
	}
	for name, c := range map[string]struct {
		sizes []int
		want  int
	}{
		"one is one":                       {[]int{100}, 1},
		"all of one size":                  {[]int{100, 100, 100}, 3},
		"a smaller one is the last":        {[]int{100, 100, 50, 50}, 3},
		"a larger one begins the next":     {[]int{100, 200, 200}, 1},
		"no more than the kernel takes":    {many, segments},
		"no more than a datagram can hold": {[]int{40000, 40000}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.want, alike(packets(c.sizes...)))
		})
	}
}

// ends are two binds on the loopback, and the second one's functions to receive.
func ends(t *testing.T) (a, b *bind, port uint16, receive []conn.ReceiveFunc) {
	t.Helper()
	a, b = newBind(), newBind()
	_, _, err := a.Open(0)
	require.NoError(t, err)
	receive, port, err = b.Open(0)
	require.NoError(t, err)
	require.Len(t, receive, 2)
	t.Cleanup(func() { assert.NoError(t, a.Close()); assert.NoError(t, b.Close()) })
	return a, b, port, receive
}

func TestBind(t *testing.T) {
	t.Parallel()
	for i, host := range []string{"127.0.0.1", "::1"} {
		t.Run("a batch arrives whole and in order at "+host, func(t *testing.T) {
			t.Parallel()
			a, b, port, receive := ends(t)
			to, err := a.ParseEndpoint(netip.AddrPortFrom(netip.MustParseAddr(host), port).String())
			require.NoError(t, err)
			var sent [][]byte
			for n := range 70 {
				sent = append(sent, bytes.Repeat([]byte{byte(n)}, 1300))
			}
			sent = append(sent, []byte("short"), []byte("longer than that"))
			require.NoError(t, a.Send(sent, to))
			var got [][]byte
			bufs, sizes, from := make([][]byte, b.BatchSize()), make([]int, b.BatchSize()), make([]conn.Endpoint, b.BatchSize())
			for n := range bufs {
				bufs[n] = make([]byte, maxPacket)
			}
			for len(got) < len(sent) {
				n, failure := receive[i](bufs, sizes, from)
				require.NoError(t, failure)
				for k := range n {
					got = append(got, bytes.Clone(bufs[k][:sizes[k]]))
				}
			}
			assert.Equal(t, sent, got)
			assert.Equal(t, host, from[0].DstIP().String())
			assert.Equal(t, host, from[0].SrcToString(), "answers leave from where the packet arrived")
			require.NoError(t, b.Send([][]byte{[]byte("answer")}, from[0]))
			from[0].ClearSrc()
			assert.Empty(t, from[0].SrcToString())
			require.NoError(t, b.Send([][]byte{[]byte("answer")}, from[0]))
		})
	}
	t.Run("closing ends who receives", func(t *testing.T) {
		t.Parallel()
		_, b, _, receive := ends(t)
		ended := make(chan error)
		go func() {
			_, err := receive[0]([][]byte{make([]byte, 100)}, make([]int, 1), make([]conn.Endpoint, 1))
			ended <- err
		}()
		require.NoError(t, b.Close())
		require.ErrorIs(t, <-ended, net.ErrClosed)
		require.NoError(t, b.Close())
	})
	t.Run("a bind is opened once, and sends nothing when closed", func(t *testing.T) {
		t.Parallel()
		a, _, port, _ := ends(t)
		_, _, err := a.Open(0)
		require.ErrorIs(t, err, conn.ErrBindAlreadyOpen)
		require.NoError(t, a.Close())
		to, err := a.ParseEndpoint(fmt.Sprintf("127.0.0.1:%d", port))
		require.NoError(t, err)
		require.Error(t, a.Send([][]byte{{1}}, to))
	})
	t.Run("another bind's endpoint is refused", func(t *testing.T) {
		t.Parallel()
		a, _, _, _ := ends(t)
		require.ErrorIs(t, a.Send([][]byte{{1}}, &conn.StdNetEndpoint{}), conn.ErrWrongEndpointType)
	})
}

// FuzzAnnounced reads control messages as the kernel writes them, and others.
func FuzzAnnounced(f *testing.F) {
	b := make([]byte, 24)
	binary.NativeEndian.PutUint64(b, 20)
	binary.NativeEndian.PutUint32(b[8:], unix.IPPROTO_UDP)
	binary.NativeEndian.PutUint32(b[12:], unix.UDP_GRO)
	binary.NativeEndian.PutUint32(b[16:], 1300)
	f.Add(b)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &socket{}
		s.header.SetControllen(copy(s.control[:], b))
		_, source := s.announced()
		require.LessOrEqual(t, len(source), len(s.control))
		e := newEndpoint(netip.MustParseAddrPort("10.0.0.1:1"))
		e.setSource(source)
		require.LessOrEqual(t, len(e.control()), len(e.source))
	})
}
