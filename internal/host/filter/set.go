package filter

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
)

// The kernel refuses netlink attributes beyond 64 KiB, so large sets are filled in parts.
const setChunk = 500

func putSet(c *nftables.Conn, table *nftables.Table, s fence.Set) (uint32, error) {
	set := &nftables.Set{Table: table, Name: s.Name, KeyType: nftables.TypeIPAddr, Interval: s.Interval()}
	if s.IPv6 {
		set.KeyType = nftables.TypeIP6Addr
	}
	if err := c.AddSet(set, nil); err != nil {
		return 0, fmt.Errorf("set %s: %w", s.Name, err)
	}
	for part := range slices.Chunk(elements(s), setChunk) {
		if err := c.SetAddElements(set, part); err != nil {
			return 0, fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	return set.ID, nil
}

// elements are a set's as the kernel has them: of single hosts one each; of an interval its
// first address and the one behind its last, marked as an end. An interval that reaches to the
// last address there is has no end.
func elements(s fence.Set) []nftables.SetElement {
	var out []nftables.SetElement
	for _, p := range s.Prefixes {
		out = append(out, nftables.SetElement{Key: p.Addr().AsSlice()})
		if end := after(p); s.Interval() && end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// after is the address behind a prefix's last, or none.
func after(p netip.Prefix) netip.Addr {
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(last)
	return a.Next()
}

func readSets(c *nftables.Conn, table *nftables.Table, t fence.Table) error {
	sets, err := c.GetSets(table)
	if err != nil {
		return fmt.Errorf("list sets: %w: %w", fence.ErrUnreadable, err)
	}
	if len(sets) != len(t.Sets) {
		return fmt.Errorf("have %d sets, want %d", len(sets), len(t.Sets))
	}
	for _, s := range t.Sets {
		i := slices.IndexFunc(sets, func(o *nftables.Set) bool { return o.Name == s.Name })
		if i < 0 {
			return fmt.Errorf("set %s is missing", s.Name)
		}
		if sets[i].Interval != s.Interval() {
			return fmt.Errorf("set %s: intervals %t, want %t", s.Name, sets[i].Interval, s.Interval())
		}
		have, err := c.GetSetElements(sets[i])
		if err != nil {
			return fmt.Errorf("set %s: %w: %w", s.Name, fence.ErrUnreadable, err)
		}
		if got, want := spell(have), spell(elements(s)); !slices.Equal(got, want) {
			return fmt.Errorf("set %s: have %v, want %v", s.Name, got, want)
		}
	}
	return nil
}

// spell writes elements down in an order of their own, the end of an interval as "<address".
func spell(list []nftables.SetElement) []string {
	var out []string
	for _, e := range list {
		a, _ := netip.AddrFromSlice(e.Key)
		word := a.String()
		if e.IntervalEnd {
			word = "<" + word
		}
		out = append(out, word)
	}
	slices.Sort(out)
	return out
}
