//go:build e2e

package e2e_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// exhaust uses up what a user can of his node and says how much it was: sockets; the processor, with
// datagrams to WireGuard's port of each address given until the file stop exists; and when the file fill
// does, conntrack.
func exhaust(args []string) error {
	stop, fill, addresses := args[0], args[1], args[2:]
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	c, err := net.ListenUDP("udp4", nil) // before no port is left
	if err != nil {
		return err
	}
	sockets, processes, err := takePorts()
	if err != nil {
		return err
	}
	fmt.Printf("%s: sockets %d in %d processes\n", host, sockets, processes)
	most, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	if err != nil {
		return err
	}
	flows, err := strconv.Atoi(strings.TrimSpace(string(most)))
	if err != nil {
		return err
	}
	go func() {
		for !exists(fill) {
			time.Sleep(100 * time.Millisecond)
		}
		fmt.Printf("%s: flows %d\n", host, fillFlows(c, flows))
	}()
	sent, err := floodUntil(c, stop, addresses)
	fmt.Printf("%s: flood %d\n", host, sent)
	return err
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// takePorts starts processes that hold a socket on each port a user can have, of UDP all, of TCP those
// below what the kernel hands out: without these his own srun could not work.
func takePorts() (sockets, processes int, err error) {
	const share = 16000
	for _, space := range []struct {
		proto       string
		first, last int
	}{{"udp", 1024, 65535}, {"tcp", 1024, 32767}, {"tcp", 0, 2 * share}} {
		for first := space.first; first < space.last; first += share {
			count := min(share, space.last+1-first)
			if space.first == 0 {
				count = share
			}
			c := exec.Command("/proc/self/exe", space.proto, strconv.Itoa(first), strconv.Itoa(count), strconv.FormatBool(space.first != 0))
			c.Env = append(os.Environ(), escapeIn+"=sockets")
			c.Stderr = os.Stderr
			if _, err := c.StdinPipe(); err != nil { // it holds them until we are gone
				return sockets, processes, err
			}
			out, err := c.StdoutPipe()
			if err != nil {
				return sockets, processes, err
			}
			if err := c.Start(); err != nil {
				return sockets, processes, err
			}
			n := 0
			if _, err := fmt.Fscan(out, &n); err != nil {
				return sockets, processes, err
			}
			sockets, processes = sockets+n, processes+1
		}
	}
	return sockets, processes, nil
}

// holdPorts opens sockets of a kind, bound to the ports from one on or to none, as many as its limits
// allow, prints their number, and holds them until its standard input ends.
func holdPorts(args []string) error {
	kind := unix.SOCK_STREAM
	if args[0] == "udp" {
		kind = unix.SOCK_DGRAM
	}
	first, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	made := 0
	for ; made < count; made++ {
		fd, err := unix.Socket(unix.AF_INET6, kind, 0)
		if errors.Is(err, unix.EMFILE) {
			break
		}
		if err != nil {
			return fmt.Errorf("after %d: %w", made, err)
		}
		if args[3] == "true" {
			err = unix.Bind(fd, &unix.SockaddrInet6{Port: first + made})
		}
		if err != nil && !errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("after %d: %w", made, err)
		}
	}
	fmt.Println(made)
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil
}

// fillFlows makes flows of the node to itself, each to another address of its own and each with answers,
// so that conntrack takes them for streams and gives none up for a new one.
func fillFlows(c *net.UDPConn, flows int) (made int) {
	port := c.LocalAddr().(*net.UDPAddr).Port
	home := [4]byte{127, 0, 0, 1}
	for _, pass := range []string{"question", "answer", "stream"} {
		if pass == "stream" {
			time.Sleep(2100 * time.Millisecond) // what lasts longer than 2 s is a stream
		}
		made = 0
		for i := range flows {
			from, to := home, [4]byte{127, byte(1 + i>>16), byte(i >> 8), byte(i)}
			if pass == "answer" {
				from, to = to, from
			}
			oob := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from})
			if _, _, err := c.WriteMsgUDPAddrPort([]byte("x"), oob, netip.AddrPortFrom(netip.AddrFrom4(to), uint16(port))); err == nil {
				made++
			}
		}
	}
	return made
}

// floodUntil sends what looks like WireGuard's four kinds of messages until the file exists, a minute and a half at
// most, 20,000 in a second at most: the lab's nodes share the processors, with those that look on as well.
func floodUntil(c *net.UDPConn, file string, addresses []string) (sent int, err error) {
	var to []netip.AddrPort
	for _, a := range addresses {
		address, err := netip.ParseAddr(a)
		if err != nil {
			return 0, err
		}
		to = append(to, netip.AddrPortFrom(address, tunnelPort))
	}
	message := make([]byte, 1200)
	fmt.Println("floods")
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); {
		if exists(file) {
			return sent, nil
		}
		time.Sleep(50 * time.Millisecond)
		for i := range 1000 {
			message[0] = byte(1 + i%4)
			length := []int{148, 92, 64, 1200}[i%4]
			if _, err := c.WriteToUDPAddrPort(message[:length], to[i/4%len(to)]); err == nil {
				sent++
			}
		}
	}
	return sent, errors.New("nobody said stop")
}
