package machine

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Loopback brings lo of the calling process's network namespace up.
func Loopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// Bridge makes the switch that the machines' links plug into.
func Bridge(name string) error {
	b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := netlink.LinkAdd(b); err != nil {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(b); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// Plug joins the network namespace of pid to the bridge: the far end is eth0 there, the near
// end is called port here.
func Plug(bridge, port string, pid int) error {
	b, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", bridge, err)
	}
	v := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: port, MasterIndex: b.Attrs().Index},
		PeerName:      "eth0",
		PeerNamespace: netlink.NsPid(pid),
	}
	if err := netlink.LinkAdd(v); err != nil {
		return fmt.Errorf("add port %s: %w", port, err)
	}
	if err := netlink.LinkSetUp(v); err != nil {
		return fmt.Errorf("set %s up: %w", port, err)
	}
	return nil
}

// Address gives eth0 of the calling process's network namespace its address and brings it up.
func Address(prefix netip.Prefix) error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("find eth0: %w", err)
	}
	ip := net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
	if err := netlink.AddrReplace(eth0, &netlink.Addr{IPNet: &ip}); err != nil {
		return fmt.Errorf("add address %s: %w", prefix, err)
	}
	if err := netlink.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("set eth0 up: %w", err)
	}
	return nil
}

// Hostname names the calling process's UTS namespace.
func Hostname(name string) error {
	return os.NewSyscallError("sethostname", unix.Sethostname([]byte(name)))
}
