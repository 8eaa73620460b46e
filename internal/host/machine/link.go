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

// Plug joins the network namespace of pid to the bridge: the far end is called card there, the
// near end is called port here.
func Plug(bridge, port, card string, pid int) error {
	b, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", bridge, err)
	}
	v := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: port, MasterIndex: b.Attrs().Index},
		PeerName:      card,
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

// Addresses gives a card of the calling process's network namespace its addresses and brings it up.
func Addresses(card string, prefixes []netip.Prefix) error {
	link, err := netlink.LinkByName(card)
	if err != nil {
		return fmt.Errorf("find %s: %w", card, err)
	}
	for _, p := range prefixes {
		ip := net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
		a := &netlink.Addr{IPNet: &ip}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // nobody else is there, and a daemon that binds at once must not wait
		}
		if err := netlink.AddrReplace(link, a); err != nil {
			return fmt.Errorf("add address %s: %w", p, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", card, err)
	}
	return nil
}

// Hostname names the calling process's UTS namespace.
func Hostname(name string) error {
	return os.NewSyscallError("sethostname", unix.Sethostname([]byte(name)))
}
