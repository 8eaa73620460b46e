package fence

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

const (
	loopback = "lo"

	original = 0
	reply    = 1

	firstOfUsers = 1024 // the smallest port that a user can have
)

// named is a server under the name of its set and counter.
type named struct {
	Server

	set string
}

// servers are the daemons whose flows are not tracked.
func (p *plan) servers() []named {
	return []named{{p.in.Slurmctld, CounterSlurmctld}, {p.in.Slurmd, CounterSlurmd}, {p.in.Enclaved, "enclaved"}}
}

func (p *plan) srunPorts() Match {
	return Match{Key: TCPTarget, From: uint32(p.in.SrunPorts.First), To: uint32(p.in.SrunPorts.Last)}
}

func target(s Service) Match {
	if s.Proto == "udp" {
		return num(UDPTarget, uint32(s.Port))
	}
	return num(TCPTarget, uint32(s.Port))
}

// origin is what a service's answers come from.
func origin(s Service) Match {
	if s.Proto == "udp" {
		return num(UDPSource, uint32(s.Port))
	}
	return num(TCPSource, uint32(s.Port))
}

func serviceSet(kind string, i int) string { return fmt.Sprintf("%s_%d", kind, i+1) }

// hosts are addresses as prefixes of one host each.
func hosts(addrs []netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addrs {
		if a = a.Unmap(); a.IsValid() {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}

// disjoint sorts the prefixes of one family and leaves out what lies within another: nftables
// refuses intervals that overlap.
func disjoint(list []netip.Prefix, v6 bool) []netip.Prefix {
	var all, out []netip.Prefix
	for _, p := range list {
		if p.Addr().Is6() == v6 {
			all = append(all, p.Masked())
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	for _, p := range all {
		if n := len(out); n == 0 || !out[n-1].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}

// each gives r once for each family that the prefixes have, matching the set of that family's
// prefixes, and remembers the set.
func (p *plan) each(set string, prefixes []netip.Prefix, key4, key6 Key, r Rule) []Rule {
	var out []Rule
	for _, v6 := range []bool{false, true} {
		key, s := key4, Set{Name: set + "4"}
		if v6 {
			key, s = key6, Set{Name: set + "6", IPv6: true}
		}
		if s.Prefixes = disjoint(prefixes, v6); len(s.Prefixes) == 0 {
			continue
		}
		if !slices.ContainsFunc(p.sets, func(o Set) bool { return o.Name == s.Name }) {
			p.sets = append(p.sets, s)
		}
		own := r
		own.Match = append([]Match{{Key: key, Name: s.Name}}, r.Match...)
		out = append(out, own)
	}
	return out
}

// inbound lets others reach the listed services, and the ICMPv6 that IPv6 does not work without.
func (p *plan) inbound(list []Service) []Rule {
	var out []Rule
	for i, s := range list {
		r := rule(Accept, "", target(s))
		if len(s.Addresses) == 0 {
			out = append(out, r)
			continue
		}
		out = append(out, p.each(serviceSet("inbound", i), s.Addresses, Source4, Source6, r)...)
	}
	return append(out, rule(Accept, "", Match{Key: ICMP6Type, From: icmp6FirstND, To: icmp6LastND}))
}
