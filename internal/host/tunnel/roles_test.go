package tunnel_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/keepertest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/nettest"
)

// role is what a copy of the test program does in a node, as a user of its own.
type role struct {
	Serve   bool   // echo server; else a client that sends Payload and prints what comes back
	Proto   string // tcp, udp, mptcp, sctp, ping, fill, sockets, crowd, rawudp, rawping or frame
	Address string
	Local   string // address to bind, or ""
	Device  string // SO_BINDTODEVICE, or ""
	Payload string
	Times   int // how often the payload is sent, 0 is once
	Mark    uint32
}

const roleEnv = "TUNNEL_TEST_ROLE"

// TestMain is the keeper, or plays a role, when a test started the program as such.
func TestMain(m *testing.M) {
	playWay()
	keepertest.Play()
	if spec := os.Getenv(roleEnv); spec != "" {
		var r role
		if err := json.Unmarshal([]byte(spec), &r); err != nil {
			panic(err)
		}
		if err := r.play(); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		select {}
	}
	os.Exit(m.Run())
}

func (r role) play() error {
	switch r.Proto {
	case "fill":
		return r.fill()
	case "crowd":
		return r.crowd()
	case "sockets":
		return r.sockets()
	case "rawudp", "rawping":
		return r.marked()
	case "frame":
		return r.frame()
	}
	if r.Proto == "ping" || r.Proto == "sctp" {
		return r.raw()
	}
	control := func(_, _ string, c syscall.RawConn) error {
		var err error
		if r.Device != "" {
			_ = c.Control(func(fd uintptr) {
				err = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, r.Device)
			})
		}
		if r.Mark != 0 {
			_ = c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(r.Mark)) })
		}
		return err
	}
	lc := net.ListenConfig{Control: control}
	switch {
	case r.Serve && r.Proto == "udp":
		c, err := lc.ListenPacket(context.Background(), "udp", r.Address)
		if err != nil {
			return err
		}
		fmt.Println("listening")
		b := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return err
			}
			fmt.Printf("heard %q\n", b[:n])
			if _, err := c.WriteTo(append([]byte("echo:"), b[:n]...), from); err != nil {
				fmt.Println("no answer", err)
			}
		}
	case r.Serve:
		l, err := lc.Listen(context.Background(), "tcp", r.Address)
		if err != nil {
			return err
		}
		fmt.Println("listening")
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			go func() {
				defer func() { _ = c.Close() }()
				b := make([]byte, 1<<20)
				for sum := 0; ; {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					sum += n
					fmt.Printf("heard %q sum %d\n", b[:min(n, 100)], sum)
					if _, err := c.Write(append([]byte("echo:"), b[:n]...)); err != nil {
						return
					}
				}
			}()
		}
	default:
		return r.client(control)
	}
}

func (r role) client(control func(string, string, syscall.RawConn) error) error {
	network := r.Proto
	d := net.Dialer{Control: control, Timeout: 3 * time.Second}
	if network == "mptcp" {
		network = "tcp"
		d.SetMultipathTCP(true)
	}
	if r.Local != "" {
		if network == "tcp" {
			a, err := net.ResolveTCPAddr("tcp", r.Local)
			if err != nil {
				return err
			}
			d.LocalAddr = a
		} else {
			a, err := net.ResolveUDPAddr("udp", r.Local)
			if err != nil {
				return err
			}
			d.LocalAddr = a
		}
	}
	c, err := d.Dial(network, r.Address)
	if err != nil {
		return err
	}
	fmt.Println("local", c.LocalAddr())
	ended := make(chan error, 1)
	go func() { ended <- hear(c) }() // at once: a server that is not heard hears no more itself
	if _, err := io.WriteString(c, strings.Repeat(r.Payload, max(1, r.Times))); err != nil {
		return err
	}
	go func() {
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			_, _ = io.WriteString(c, s.Text())
		}
	}()
	return <-ended
}

func hear(c net.Conn) error {
	b := make([]byte, 1<<20)
	for {
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		fmt.Printf("got %q\n", b[:min(n, 200)])
	}
}

// raw sends one packet of a protocol that package net has not.
func (r role) raw() error {
	host, _, err := net.SplitHostPort(r.Address)
	if err != nil {
		return err
	}
	to := &unix.SockaddrInet4{Port: 7000, Addr: [4]byte(net.ParseIP(host).To4())}
	kind, proto, data := unix.SOCK_DGRAM, unix.IPPROTO_ICMP, append([]byte{8, 0, 0, 0, 0, 0, 0, 1}, r.Payload...)
	if r.Proto == "sctp" {
		kind, proto, data = unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP, []byte(r.Payload)
	}
	fd, err := unix.Socket(unix.AF_INET, kind, proto)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.Sendto(fd, data, 0, to); err != nil {
		return err
	}
	fmt.Println("local")
	b := make([]byte, 2000)
	for {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return err
		}
		fmt.Printf("got %q\n", b[:n])
	}
}

// actor is a role at work.
type actor struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Writer
	lines chan string
	seen  []string
	ended sync.Once
}

// act starts a role in a node as a user id, with these capabilities.
func act(t *testing.T, n *nettest.Node, uid uint32, r role, caps ...uintptr) *actor {
	t.Helper()
	spec, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleEnv + "=" + string(spec)}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, AmbientCaps: caps}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(cmd); err != nil {
		t.Fatalf("%s: start: %s", n.Name, err)
	}
	a := &actor{t: t, cmd: cmd, stdin: stdin, lines: make(chan string, 10000)}
	go func() {
		defer close(a.lines)
		s := bufio.NewScanner(out)
		s.Buffer(nil, 1<<22)
		for s.Scan() {
			a.lines <- s.Text()
		}
	}()
	t.Cleanup(a.stop)
	return a
}

// stop ends it; it may be called twice.
func (a *actor) stop() {
	a.ended.Do(func() { _ = a.cmd.Process.Kill(); _ = a.cmd.Wait() })
}

// say has a client send a line.
func (a *actor) say(line string) {
	a.t.Helper()
	if _, err := io.WriteString(a.stdin, line+"\n"); err != nil {
		a.t.Fatal(err)
	}
}

// says waits for a line with this in it.
func (a *actor) says(what string, atMost time.Duration) bool {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-a.lines:
			if !ok {
				return false
			}
			a.seen = append(a.seen, line)
			if strings.Contains(line, what) {
				return true
			}
		case <-timer.C:
			return false
		}
	}
}

// must ends the test where the line does not come.
func (a *actor) must(what string) string {
	a.t.Helper()
	if !a.says(what, 40*time.Second) {
		a.t.Fatalf("waited for %q, heard %q", what, a.seen)
	}
	return a.seen[len(a.seen)-1]
}

func serve(t *testing.T, n *nettest.Node, uid uint32, proto, address string) *actor {
	t.Helper()
	a := act(t, n, uid, role{Serve: true, Proto: proto, Address: address})
	a.must("listening")
	return a
}
