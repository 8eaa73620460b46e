// Package link is the node's interfaces, addresses, routes and policy rules, and WireGuard's
// configuration, as package mesh wants them. It does what it is told and decides nothing; all
// of it happens in the network namespace of the calling thread.
package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// Kernel is the network of the calling thread. The zero Kernel is ready.
type Kernel struct{}

var (
	_ mesh.Links     = Kernel{}
	_ mesh.Routes    = Kernel{}
	_ mesh.Rules     = Kernel{}
	_ mesh.WireGuard = Kernel{}
	_ mesh.Peers     = Kernel{}
	_ mesh.Lookup    = Kernel{}
)

// Mesh is the kernel as the mesh wants it.
func (k Kernel) Mesh() mesh.Kernel {
	return mesh.Kernel{Links: k, Routes: k, Rules: k, WireGuard: k, Peers: k, Lookup: k}
}

// probeName is an interface that lives for a moment, to see whether the kernel can make it.
const probeName = "encprobe"

// Available makes a WireGuard interface and deletes it: the module is loaded by that where
// there is one, and nothing else says for sure whether the kernel can.
func (Kernel) Available(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	l := &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: probeName}}
	err := netlink.LinkAdd(l)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	if err != nil && !errors.Is(err, unix.EEXIST) { // what a killed prolog left behind
		return false, fmt.Errorf("make %s: %w", probeName, err)
	}
	if err := netlink.LinkDel(l); err != nil {
		return false, fmt.Errorf("delete %s: %w", probeName, err)
	}
	return true, nil
}

// Link implements mesh.Links.
func (Kernel) Link(ctx context.Context, name string) (mesh.Link, error) {
	l, err := find(ctx, name)
	if err != nil || l == nil {
		return mesh.Link{}, err
	}
	out := mesh.Link{Name: name, Driver: driver(l), MTU: l.Attrs().MTU, Up: l.Attrs().RawFlags&unix.IFF_UP != 0}
	value, err := os.ReadFile(sysctl("ipv4", name, "rp_filter"))
	if err != nil {
		return mesh.Link{}, fmt.Errorf("read rp_filter of %s: %w", name, err)
	}
	if out.RPFilter, err = strconv.Atoi(strings.TrimSpace(string(value))); err != nil {
		return mesh.Link{}, fmt.Errorf("parse rp_filter of %s: %w", name, err)
	}
	list, err := again(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return mesh.Link{}, fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for _, a := range list {
		addr, ok := netip.AddrFromSlice(a.IP)
		if addr = addr.Unmap(); !ok || a.Mask == nil || a.IPNet.String() != netip.PrefixFrom(addr, addr.BitLen()).String() {
			return mesh.Link{}, fmt.Errorf("%s has address %s, which is not a single one", name, a.IPNet)
		}
		out.Addresses = append(out.Addresses, addr)
	}
	return out, nil
}

func driver(l netlink.Link) mesh.Driver {
	if l.Type() == "tuntap" {
		return mesh.DriverKeeper
	}
	return mesh.Driver(l.Type())
}

func find(ctx context.Context, name string) (netlink.Link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l, err := netlink.LinkByName(name)
	if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent {
		return nil, nil //nolint:nilnil // absence is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	return l, nil
}

// PutLink implements mesh.Links.
func (Kernel) PutLink(ctx context.Context, want mesh.Link) error {
	l, err := find(ctx, want.Name)
	if err != nil {
		return err
	}
	if l == nil {
		if want.Driver != mesh.DriverKernel {
			return fmt.Errorf("make %s: a %s device is made by its own process", want.Name, want.Driver)
		}
		made := &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: want.Name, MTU: want.MTU}}
		if err := netlink.LinkAdd(made); err != nil {
			return fmt.Errorf("make %s: %w", want.Name, err)
		}
		l = made
	}
	if err := netlink.LinkSetMTU(l, want.MTU); err != nil {
		return fmt.Errorf("set mtu of %s: %w", want.Name, err)
	}
	if err := tune(want); err != nil {
		return err
	}
	for _, a := range want.Addresses {
		if err := netlink.AddrReplace(l, address(a)); err != nil {
			return fmt.Errorf("add address %s to %s: %w", a, want.Name, err)
		}
	}
	if !want.Up {
		return nil
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", want.Name, err)
	}
	return nil
}

// address is a single address without duplicate detection, which would wait a second for an
// answer that a tunnel can't give, and without a route of its own in the main table.
func address(a netip.Addr) *netlink.Addr {
	out := &netlink.Addr{IPNet: single(a)}
	if a.Is6() {
		out.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
	}
	return out
}

// tune keeps the interface quiet: no address, router or redirect that nobody asked for.
func tune(want mesh.Link) error {
	v6 := "1"
	for _, a := range want.Addresses {
		if a.Is6() {
			v6 = "0"
		}
	}
	for _, s := range []struct{ family, name, value string }{
		{"ipv4", "rp_filter", strconv.Itoa(want.RPFilter)},
		{"ipv4", "accept_redirects", "0"},
		{"ipv6", "addr_gen_mode", "1"},
		{"ipv6", "accept_ra", "0"},
		{"ipv6", "accept_redirects", "0"},
		{"ipv6", "disable_ipv6", v6},
	} {
		err := os.WriteFile(sysctl(s.family, want.Name, s.name), []byte(s.value), 0)
		if s.family == "ipv6" && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return fmt.Errorf("set %s of %s: %w", s.name, want.Name, err)
		}
	}
	return nil
}

func sysctl(family, device, name string) string {
	return filepath.Join("/proc/sys/net", family, "conf", device, name)
}

// DeleteLink implements mesh.Links. The control socket that a killed keeper left behind goes
// with the interface.
func (Kernel) DeleteLink(ctx context.Context, name string) error {
	l, err := find(ctx, name)
	if err != nil {
		return err
	}
	if l != nil {
		// The keeper may end in this moment, and its device with it.
		if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("delete %s: %w", name, err)
		}
	}
	if err := os.Remove(filepath.Join(controlDirectory, name+".sock")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete control socket of %s: %w", name, err)
	}
	// The directory is wireguard-go's making; it stays where others have sockets in it.
	if err := unix.Rmdir(controlDirectory); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete %s: %w", controlDirectory, err)
	}
	return nil
}

// UnderlayMTU is the smallest MTU of the interfaces that lead to the endpoints.
func UnderlayMTU(endpoints []netip.Addr) (int, error) {
	smallest := 0
	for _, e := range endpoints {
		routes, err := netlink.RouteGet(e.AsSlice())
		if err != nil || len(routes) == 0 {
			return 0, fmt.Errorf("find route to %s: %w", e, err)
		}
		mtu := routes[0].MTU
		if mtu == 0 {
			l, err := netlink.LinkByIndex(routes[0].LinkIndex)
			if err != nil {
				return 0, fmt.Errorf("find interface to %s: %w", e, err)
			}
			mtu = l.Attrs().MTU
		}
		if smallest == 0 || mtu < smallest {
			smallest = mtu
		}
	}
	if smallest == 0 {
		return 0, errors.New("find underlay mtu: no endpoint")
	}
	return smallest, nil
}
