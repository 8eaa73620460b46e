// Package nettest makes nodes for tests: each is a thread in network and mount namespaces of
// its own, joined to the others by a bridge in a further one. It is for tests only, needs root,
// and touches nothing outside the namespaces that it makes.
package nettest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/againtest"
)

// Node is one set of namespaces.
type Node struct {
	Name string

	t    testing.TB
	work chan func()
	ns   *os.File // its network namespace
}

// New makes a node that lasts as long as the test. /run is an empty tmpfs of its own, since
// userspace WireGuard keeps its sockets there.
func New(t testing.TB, name string) *Node {
	t.Helper()
	againtest.Root(t)
	n := &Node{Name: name, t: t, work: make(chan func())}
	ready := make(chan error)
	go n.serve(ready)
	if err := <-ready; err != nil {
		t.Fatalf("make namespaces of %s: %s", name, err)
	}
	t.Cleanup(func() { close(n.work); _ = n.ns.Close() })
	return n
}

// serve runs the node's work on a thread that is never given back: it ends with the goroutine,
// and its namespaces with it.
func (n *Node) serve(ready chan<- error) {
	runtime.LockOSThread()
	ready <- n.enter()
	for f := range n.work {
		f()
	}
}

func (n *Node) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	var err error
	if n.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// Do runs f inside the node. A test's FailNow must not be called from it: return an error.
func (n *Node) Do(f func() error) error {
	done := make(chan error, 1)
	n.work <- func() {
		defer func() {
			if r := recover(); r != nil {
				done <- fmt.Errorf("panic in %s: %v", n.Name, r)
			}
		}()
		done <- f()
	}
	return <-done
}

// Beside runs f on a further thread in the node's namespaces, beside the node's own one.
func (n *Node) Beside(f func() error) error {
	done := make(chan error, 1)
	var mounts *os.File
	err := n.Do(func() error {
		var err error
		mounts, err = os.Open("/proc/thread-self/ns/mnt")
		return err
	})
	if err != nil {
		return err
	}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		defer func() { _ = mounts.Close() }()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(n.ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = unix.Setns(int(mounts.Fd()), unix.CLONE_NEWNS)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// Must runs f inside the node and ends the test on an error.
func (n *Node) Must(f func() error) {
	n.t.Helper()
	if err := n.Do(f); err != nil {
		n.t.Fatalf("%s: %s", n.Name, err)
	}
}

// Run runs a program inside the node and gives its output; an error ends the test.
func (n *Node) Run(argv ...string) string {
	n.t.Helper()
	out, err := n.Try("", argv...)
	if err != nil {
		n.t.Fatalf("%s: %s: %s\n%s", n.Name, strings.Join(argv, " "), err, out)
	}
	return out
}

// Try runs a program inside the node with the given standard input.
func (n *Node) Try(input string, argv ...string) (string, error) {
	var out []byte
	err := n.Do(func() error {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin = strings.NewReader(input)
		var err error
		out, err = cmd.CombinedOutput()
		return err
	})
	return string(out), err
}

// Start starts a program inside the node; the caller waits for it.
func (n *Node) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Join connects a node's eth0 to the bridge br0 of the switch and gives it the addresses.
func (n *Node) Join(sw *Node, mtu int, addresses ...string) {
	n.t.Helper()
	n.JoinBy("eth0", sw, mtu, addresses...)
}

// JoinBy is Join by another card; each card takes a switch of its own.
func (n *Node) JoinBy(card string, sw *Node, mtu int, addresses ...string) {
	n.t.Helper()
	port := "p-" + n.Name
	sw.Must(func() error {
		br, err := bridge(mtu)
		if err != nil {
			return err
		}
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: port, MTU: mtu, MasterIndex: br.Attrs().Index},
			PeerName:  card, PeerNamespace: netlink.NsFd(int(n.ns.Fd())),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add port %s: %w", port, err)
		}
		return netlink.LinkSetUp(veth)
	})
	n.Must(func() error {
		eth, err := netlink.LinkByName(card)
		if err != nil {
			return err
		}
		// No duplicate detection: the addresses are there from the first moment.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+card+"/accept_dad", []byte("0"), 0); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(eth); err != nil {
			return err
		}
		for _, a := range addresses {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(eth, addr); err != nil {
				return fmt.Errorf("add %s: %w", a, err)
			}
		}
		return nil
	})
}

func bridge(mtu int) (netlink.Link, error) {
	if l, err := netlink.LinkByName("br0"); err == nil {
		return l, nil
	}
	off := false
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", MTU: mtu}, MulticastSnooping: &off}
	if err := netlink.LinkAdd(br); err != nil {
		return nil, fmt.Errorf("add br0: %w", err)
	}
	return br, netlink.LinkSetUp(br)
}
