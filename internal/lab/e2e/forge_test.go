//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
)

const (
	// tcpSink writes what the one who connects sends to a file; tcpSource sends once and stays.
	tcpSink = `use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => $ARGV[0], Listen => 5, ReuseAddr => 1) or die $!;
open my $f, ">>", $ARGV[1]; $f->autoflush(1); my $c = $s->accept; while ($c->sysread(my $b, 2048)) { print $f "$b\n" }`
	tcpSource = `use IO::Socket::INET; my $c = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1]) or die $!; sleep 1;
$c->syswrite($ARGV[2]); sleep 60`
)

func TestP2ForgedPacketsAreDropped(t *testing.T) {
	idle(t)
	id := sleeper(t, "alice", "n1,n2")
	const port = 7706
	got := "/dev/shm/got"
	background(t, "n1", "alice", "perl", "-e", udpServer, strconv.Itoa(port), got)
	// The flow is real: n2's user has sent through the tunnel with these addresses and ports.
	must(t, "n2", "alice", "perl", "-e", udpSend, address(t, "n1"), strconv.Itoa(port), "REAL-1")
	eventually(t, 5*time.Second, func() bool { return strings.Contains(on(t, "n1", "root", "cat", got).out, "REAL-1") },
		func() string { return "the real packet did not arrive" })
	for i := range 5 {
		forge(t, "n2", "n1", port, fmt.Sprintf("FORGED-%d", i))
	}
	time.Sleep(300 * time.Millisecond)
	assert.NotContains(t, must(t, "n1", "root", "cat", got), "FORGED")
	counters := must(t, "n1", "root", "nft", "list", "counters", "table", "inet", "enclave_"+id)
	assert.Regexp(t, `packets [1-9]`, counters)

	t.Run("control: with the table taken away one arrives", func(t *testing.T) {
		blind(t, "n1")
		must(t, "n1", "root", "nft", "delete", "table", "inet", "enclave_"+id)
		forge(t, "n2", "n1", port, "FORGED-9")
		eventually(t, 5*time.Second, func() bool { return strings.Contains(on(t, "n1", "root", "cat", got).out, "FORGED-9") },
			func() string { return "the forged packet did not arrive" })
	})
}

// The forger knows all that is to know of the flow: addresses, ports and the next sequence number.
func TestP2ForgedSegmentsAreDropped(t *testing.T) {
	idle(t)
	id := sleeper(t, "alice", "n1,n2")
	const port = 7709
	got := "/dev/shm/stream"
	read := func() string { return on(t, "n1", "root", "cat", got).out }
	background(t, "n1", "alice", "perl", "-e", tcpSink, strconv.Itoa(port), got)
	eventually(t, 5*time.Second, func() bool { return on(t, "n1", "root", "test", "-e", got).status == 0 }, func() string { return "no server" })
	tap := listenInside(t, "n1", "enc"+id)
	background(t, "n2", "alice", "perl", "-e", tcpSource, address(t, "n1"), strconv.Itoa(port), "REAL-1")
	eventually(t, 10*time.Second, func() bool { return strings.Contains(read(), "REAL-1") }, func() string { return "the real segment did not arrive" })
	last := tap.segment(t, "REAL-1")
	injected := func() string { return counter(t, "n1", id, "injected") }
	assert.Equal(t, "0", injected())
	for i := range 5 {
		put(t, "n1", last.next(fmt.Sprintf("FORGED-%d", i)))
	}
	time.Sleep(300 * time.Millisecond)
	assert.NotContains(t, read(), "FORGED")
	assert.Equal(t, "5", injected())

	t.Run("control: with the table taken away one arrives", func(t *testing.T) {
		blind(t, "n1")
		must(t, "n1", "root", "nft", "delete", "table", "inet", "enclave_"+id)
		put(t, "n1", last.next("FORGED-9"))
		eventually(t, 5*time.Second, func() bool { return strings.Contains(read(), "FORGED-9") },
			func() string { return "the forged segment did not arrive" })
	})
}

// counter is the packets of one counter of a job's fence.
func counter(t *testing.T, node, id, name string) string {
	t.Helper()
	words := strings.Fields(must(t, node, "root", "nft", "list", "counter", "inet", "enclave_"+id, name))
	for i, w := range words {
		if w == "packets" && i+1 < len(words) {
			return words[i+1]
		}
	}
	require.Fail(t, "no counter", "%v", words)
	return ""
}

// forge puts a UDP datagram with another node's address on the wire to a node.
func forge(t *testing.T, from, to string, port uint16, text string) {
	t.Helper()
	src, dst := netip.MustParseAddr(address(t, from)), netip.MustParseAddr(address(t, to))
	put(t, to, packettest.IP(src, dst, unix.IPPROTO_UDP, packettest.UDP(port, port, text)))
}

// put sends a packet out of the switch to a node, as a neighbour on the underlay could.
func put(t *testing.T, to string, ip []byte) {
	t.Helper()
	mac, err := net.ParseMAC(strings.TrimSpace(must(t, to, "root", "cat", "/sys/class/net/eth0/address")))
	require.NoError(t, err)
	b := append(append([]byte{}, mac...), 2, 0, 0, 0, 0, 99, 8, 0)
	b = append(b, ip...)
	inLab(t, func() error {
		link, err := net.InterfaceByName("lab-" + to)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: link.Index})
	})
}

// tap is a socket that sees the packets of a tunnel as they come out of it.
type tap int

func listenInside(t *testing.T, node, device string) tap {
	t.Helper()
	var fd int
	inNode(t, node, func() error {
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL))); err != nil {
			return err
		}
		if err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: link.Index}); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	})
	t.Cleanup(func() { _ = unix.Close(fd) })
	return tap(fd)
}

// segment is a TCP segment as it came: IPv4 header, TCP header, data.
type segment []byte

// segment waits for the segment that holds the text.
func (s tap) segment(t *testing.T, text string) segment {
	t.Helper()
	b := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(int(s), b, 0)
		require.NoError(t, err, "no segment holds %s", text)
		if bytes.HasSuffix(b[:n], []byte(text)) {
			return bytes.Clone(b[:n])
		}
	}
}

// next is the segment that the sender would send next.
func (s segment) next(text string) []byte {
	head := int(s[0]&15) * 4
	tcp := bytes.Clone(s[head : head+20])
	data := len(s) - head - int(s[head+12]>>4)*4
	binary.BigEndian.PutUint32(tcp[4:], binary.BigEndian.Uint32(tcp[4:])+uint32(data))
	tcp[12] = 5 << 4
	return packettest.IP(netip.AddrFrom4([4]byte(s[12:])), netip.AddrFrom4([4]byte(s[16:])), unix.IPPROTO_TCP, append(tcp, text...))
}

// inNode runs f on a thread in a host's network namespace.
func inNode(t *testing.T, node string, f func() error) {
	t.Helper()
	lab := state(t)
	for _, h := range lab.Hosts {
		if h.Name == node {
			inNamespace(t, fmt.Sprintf("/proc/%d/root/proc/%d/ns/net", lab.Supervisor, h.PID), f)
			return
		}
	}
	require.Fail(t, "no such host", node)
}
