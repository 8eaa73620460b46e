package tunnel_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
)

// fill makes flows of the node to itself: Times of them, each to another address of its own, and
// each with answers, so that conntrack takes them for streams and gives none up for a new one.
func (r role) fill() error {
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return err
	}
	port := c.LocalAddr().(*net.UDPAddr).Port
	send := func(from, to [4]byte) error {
		oob := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from})
		_, _, err := c.WriteMsgUDP([]byte("x"), oob, &net.UDPAddr{IP: to[:], Port: port})
		return err
	}
	made := 0
	home := [4]byte{127, 0, 0, 1}
	for _, pass := range []string{"question", "answer", "stream"} {
		if pass == "stream" {
			time.Sleep(2100 * time.Millisecond) // what lasts longer than 2 s is a stream
		}
		made = 0
		for i := range r.Times {
			a := [4]byte{127, byte(1 + i>>16), byte(i >> 8), byte(i)}
			from, to := home, a
			if pass == "answer" {
				from, to = a, home
			}
			if send(from, to) == nil {
				made++
			}
		}
	}
	fmt.Println("made", made)
	return nil
}

// sockets opens Times sockets, each bound to a port of its own from the one in Address on.
func (r role) sockets() error {
	first, err := strconv.Atoi(r.Address)
	if err != nil {
		return err
	}
	kind, made := unix.SOCK_STREAM, 0
	if r.Payload == "udp" {
		kind = unix.SOCK_DGRAM
	}
	for i := range r.Times {
		fd, err := unix.Socket(unix.AF_INET6, kind, 0)
		if err != nil {
			return fmt.Errorf("after %d: %w", made, err)
		}
		err = unix.Bind(fd, &unix.SockaddrInet6{Port: first + i})
		if err != nil && !errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("after %d: %w", made, err)
		}
		made++
	}
	fmt.Println("made", made)
	return nil
}

// reach says that a machine on the network gets an answer of a server on n1.
func (x *inward) reach(t *testing.T, address string) {
	t.Helper()
	began := time.Now()
	a := act(t, x.l.x, 0, role{Proto: "tcp", Address: address, Payload: "HELLO"})
	defer a.stop()
	a.must("HELLO")
	t.Logf("%s answered after %d ms", address, time.Since(began).Milliseconds())
}

// goesOn says that a flow that was there before still carries packets through the tunnel.
func (x *inward) goesOn(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		x.flow.say(text)
		return x.flow.says(text, time.Second)
	}, 20*time.Second, 10*time.Millisecond, "%s", x.flow.seen)
}

func integer(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(text))
	require.NoError(t, err)
	return n
}

// TestExhaustion: a job's user, or a neighbour, uses up what the node has.
func TestExhaustion(t *testing.T) {
	x := newInward(t)
	t.Run("a user fills conntrack", func(t *testing.T) {
		most := integer(t, x.n1.Run("cat", "/proc/sys/net/netfilter/nf_conntrack_max"))
		count := func() int { return integer(t, x.n1.Run("cat", "/proc/sys/net/netfilter/nf_conntrack_count")) }
		a := act(t, x.n1.Node, user, role{Proto: "fill", Times: most - count()})
		if !a.says("made", time.Minute) {
			t.Fatalf("%q", a.seen)
		}
		t.Logf("%d of %d flows", count(), most)
		require.Greater(t, count(), most*9/10)
		x.reach(t, "10.77.0.1:6818")
		x.reach(t, "[fd77::1]:6818")
		x.reach(t, "10.77.0.1:22")
		x.goesOn(t, "WHILE-CONNTRACK-IS-FULL")
		n1 := act(t, x.n1.Node, 0, role{Proto: "tcp", Address: "10.77.0.100:6830", Payload: "x"})
		n1.must("refused") // nobody listens there in this test: the question and the answer got through
		assert.Zero(t, x.n1.counters(t).Unlisted())
		t.Run("control: a port whose flows are tracked is not to be had", func(t *testing.T) {
			for range 32 { // flows that ended in between left their places; each of these takes one, for minutes
				if !act(t, x.l.x, 0, role{Proto: "tcp", Address: "10.77.0.1:9100", Payload: "HELLO"}).says("HELLO", 1500*time.Millisecond) {
					return
				}
			}
			assert.Fail(t, "a full table refuses nobody", "%d of %d flows", count(), most)
		})
		x.n1.Run("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_udp_timeout_stream=1")
		a.stop()
	})
	t.Run("a neighbour floods WireGuard's port", func(t *testing.T) {
		var junk [][]byte
		for i := range 100_000 {
			m := make([]byte, []int{148, 92, 64, 1400, 32, 1}[i%6])
			_, _ = rand.Read(m[:min(len(m), 40)])
			if len(m) > 4 {
				copy(m, []byte{byte(1 + i%4), 0, 0, 0})
			}
			src := x.ay
			if i%2 == 0 {
				src = x.a2 // as the peer
			}
			junk = append(junk, packettest.IP(src, x.a1, unix.IPPROTO_UDP, packettest.UDP(51820, 51820, string(m))))
		}
		before := len(x.inner.packets(0))
		done := make(chan struct{})
		go func() { defer close(done); x.put(junk...) }()
		x.reach(t, "10.77.0.1:6818")
		x.goesOn(t, "UNDER-A-FLOOD")
		<-done
		x.goesOn(t, "AFTER-A-FLOOD")
		assert.Less(t, len(x.inner.packets(0))-before, 200, "none of it came out of the tunnel")
		x.reach(t, "10.77.0.1:6818")
	})
	t.Run("a user opens 100,000 sockets, and takes every port", func(t *testing.T) {
		made := 0
		for _, proto := range []string{"tcp", "udp"} {
			for first := 1024; first < 65535; first += 16128 {
				a := act(t, x.n1.Node, user, role{Proto: "sockets", Address: fmt.Sprint(first), Payload: proto, Times: min(16128, 65536-first)})
				if !a.says("made", time.Minute) {
					t.Fatalf("%q", a.seen)
				}
				made += integer(t, strings.TrimPrefix(a.seen[len(a.seen)-1], "made "))
			}
		}
		t.Logf("%d sockets", made)
		require.GreaterOrEqual(t, made, 100_000)
		x.reach(t, "10.77.0.1:6818")
		x.goesOn(t, "AMONG-SOCKETS")
	})
	x.n1.down(t)
	assert.Empty(t, x.n1.Run("sh", "-c", "ip rule | grep 990; nft list tables | grep enclave; true"), "the epilog's work is done as ever")
}
