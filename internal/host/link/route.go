package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// again repeats a dump that the kernel says was cut short by a change in the meantime.
func again[T any](dump func() ([]T, error)) ([]T, error) {
	const tries = 5
	var out []T
	var err error
	for range tries {
		if out, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return nil, err
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// Routes implements mesh.Routes. Table 0 is all of them.
func (Kernel) Routes(ctx context.Context, table uint32) ([]mesh.Route, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out []mesh.Route
	names := map[int]string{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := again(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Table: int(table)}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes of table %d: %w", table, err)
		}
		for _, r := range list {
			route := mesh.Route{Table: uint32(r.Table)}
			if r.Dst != nil {
				route.To, _ = netip.AddrFromSlice(r.Dst.IP)
			}
			route.Source, _ = netip.AddrFromSlice(r.Src)
			route.To, route.Source = route.To.Unmap(), route.Source.Unmap()
			if _, known := names[r.LinkIndex]; !known {
				if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
					names[r.LinkIndex] = l.Attrs().Name
				}
			}
			route.Device = names[r.LinkIndex]
			out = append(out, route)
		}
	}
	return out, nil
}

// DeleteRoute implements mesh.Routes.
func (Kernel) DeleteRoute(ctx context.Context, r mesh.Route) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// Without the device: it may be gone, and the address is one in the job's own table. Of any scope:
	// the kernel finds no route of a link under the scope of all.
	err := netlink.RouteDel(&netlink.Route{Table: int(r.Table), Dst: single(r.To), Scope: netlink.SCOPE_NOWHERE})
	if errors.Is(err, unix.ESRCH) {
		return nil // it went with its device
	}
	return err
}

// Rules implements mesh.Rules. Rules of the site's that use what we do not know come out with
// the parts that we do; the mesh takes only those with the job's mark for its own.
func (Kernel) Rules(ctx context.Context) ([]mesh.Rule, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out []mesh.Rule
	for native, family := range map[int]mesh.Family{netlink.FAMILY_V4: mesh.IPv4, netlink.FAMILY_V6: mesh.IPv6} {
		list, err := again(func() ([]netlink.Rule, error) { return netlink.RuleList(native) })
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		for _, r := range list {
			out = append(out, fromKernel(family, r))
		}
	}
	return out, nil
}

// Lookup implements mesh.Lookup.
func (Kernel) Lookup(ctx context.Context, list []mesh.Packet) ([]string, error) {
	names := map[int]string{0: ""}
	out := make([]string, len(list))
	for i, p := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		index, err := leavesBy(p)
		if err != nil {
			return nil, fmt.Errorf("look up route to %s: %w", p.To, err)
		}
		if _, known := names[index]; !known {
			l, err := netlink.LinkByIndex(index)
			if err != nil {
				return nil, fmt.Errorf("look up route to %s: %w", p.To, err)
			}
			names[index] = l.Attrs().Name
		}
		out[i] = names[index]
	}
	return out, nil
}

// leavesBy is the number of the interface, 0 when there is no route: rules may refuse, too.
func leavesBy(p mesh.Packet) (int, error) {
	routes, err := netlink.RouteGetWithOptions(p.To.AsSlice(), &netlink.RouteGetOptions{UID: &p.UID, Mark: p.Mark, SrcAddr: p.From.AsSlice()})
	for _, none := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, none) {
			return 0, nil
		}
	}
	if err != nil || len(routes) == 0 {
		return 0, err
	}
	return routes[0].LinkIndex, nil
}

func fromKernel(family mesh.Family, r netlink.Rule) mesh.Rule {
	out := mesh.Rule{Family: family, Priority: r.Priority, Mark: r.Mark, Table: uint32(r.Table)}
	if r.Mask != nil {
		out.Mask = *r.Mask
	}
	if r.UIDRange != nil {
		out.UIDs = enclave.UIDRange{Start: r.UIDRange.Start, Count: r.UIDRange.End - r.UIDRange.Start + 1}
	}
	if r.Dport != nil && r.IPProto == unix.IPPROTO_TCP && r.Dport.Start == r.Dport.End {
		out.TCPPort = r.Dport.Start
	}
	return out
}
