package filter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
)

// Read implements fence.Kernel. It compares the kernel's own bytes: google/nftables can write
// every expression that the fence needs, but not read every one (byteorder is missing).
func (Kernel) Read(ctx context.Context, t fence.Table) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := open()
	if err != nil {
		return fmt.Errorf("%w: %w", fence.ErrUnreadable, err)
	}
	defer func() { _ = c.CloseLasting() }()
	table := &nftables.Table{Name: t.Name, Family: nftables.TableFamilyINet}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list tables: %w: %w", fence.ErrUnreadable, err)
	}
	if !slices.ContainsFunc(tables, func(o *nftables.Table) bool { return o.Name == t.Name }) {
		return fence.ErrAbsent
	}
	i := slices.IndexFunc(tables, func(o *nftables.Table) bool { return o.Name == t.Name })
	if tables[i].Flags != 0 {
		return fmt.Errorf("table is dormant or owned: flags %#x", tables[i].Flags)
	}
	return errors.Join(readChains(c, t), readSets(c, table, t), readRules(t))
}

func readChains(c *nftables.Conn, t fence.Table) error {
	all, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list chains: %w: %w", fence.ErrUnreadable, err)
	}
	have := map[string]string{}
	for _, ch := range all {
		if ch.Table.Name == t.Name {
			have[ch.Name] = describe(ch)
		}
	}
	if len(have) != len(t.Chains) {
		return fmt.Errorf("have %d chains, want %d", len(have), len(t.Chains))
	}
	for _, ch := range t.Chains {
		if want := describe(chain(&nftables.Table{Name: t.Name}, ch)); have[ch.Name] != want {
			return fmt.Errorf("chain %s: have %q, want %q", ch.Name, have[ch.Name], want)
		}
	}
	return nil
}

func describe(c *nftables.Chain) string {
	if c.Hooknum == nil || c.Priority == nil || c.Policy == nil {
		return "no hook"
	}
	return fmt.Sprintf("type %s hook %d priority %d policy %d", c.Type, *c.Hooknum, *c.Priority, *c.Policy)
}

func readRules(t fence.Table) error {
	have, err := dump(t.Name)
	if err != nil {
		return err
	}
	ids := map[string]uint32{}
	for _, s := range t.Sets {
		ids[s.Name] = 1
	}
	for _, ch := range t.Chains {
		rules := have[ch.Name]
		if len(rules) != len(ch.Rules) {
			return fmt.Errorf("chain %s: have %d rules, want %d", ch.Name, len(rules), len(ch.Rules))
		}
		for i, r := range ch.Rules {
			want, err := marshal(r, ids)
			if err != nil {
				return err
			}
			if err := contains(rules[i], want); err != nil {
				return fmt.Errorf("chain %s: rule %d is not %q: %w", ch.Name, i+1, r, err)
			}
		}
	}
	return nil
}

// marshal is the rule's list of expressions as the kernel is told it.
func marshal(r fence.Rule, ids map[string]uint32) ([]byte, error) {
	exprs, err := compile(r, ids)
	if err != nil {
		return nil, err
	}
	var list []netlink.Attribute
	for _, e := range exprs {
		if l, ok := e.(*expr.Lookup); ok {
			l.SetID = 0
		}
		b, err := expr.Marshal(byte(nftables.TableFamilyINet), e)
		if err != nil {
			return nil, fmt.Errorf("encode rule %q: %w", r, err)
		}
		list = append(list, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: b})
	}
	return netlink.MarshalAttributes(list)
}

// dump reads the rules of a table: for each chain the expressions of its rules, in order.
func dump(table string) (map[string][][]byte, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket: %w: %w", fence.ErrUnreadable, err)
	}
	defer func() { _ = c.Close() }()
	name, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table), 0)}})
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(nftables.TableFamilyINet), unix.NFNETLINK_V0, 0, 0}, name...),
	})
	if err != nil {
		return nil, fmt.Errorf("list rules: %w: %w", fence.ErrUnreadable, err)
	}
	out := map[string][][]byte{}
	for _, m := range answers {
		attrs, err := netlink.UnmarshalAttributes(m.Data[min(4, len(m.Data)):])
		if err != nil {
			return nil, fmt.Errorf("list rules: %w: %w", fence.ErrUnreadable, err)
		}
		byType := index(attrs)
		if string(bytes.TrimRight(byType[unix.NFTA_RULE_TABLE], "\x00")) != table {
			continue
		}
		ch := string(bytes.TrimRight(byType[unix.NFTA_RULE_CHAIN], "\x00"))
		out[ch] = append(out[ch], byType[unix.NFTA_RULE_EXPRESSIONS])
	}
	return out, nil
}

const typeMask = 0x3fff // without the flags "nested" and "network byte order"

func index(attrs []netlink.Attribute) map[uint16][]byte {
	out := map[uint16][]byte{}
	for _, a := range attrs {
		out[a.Type&typeMask] = a.Data
	}
	return out
}

// contains says whether the kernel's list of expressions is the one that was sent: same
// expressions in the same order, and every attribute that was sent is there with its value.
// The kernel adds defaults of its own.
func contains(have, want []byte) error {
	h, errHave := netlink.UnmarshalAttributes(have)
	w, errWant := netlink.UnmarshalAttributes(want)
	if err := errors.Join(errHave, errWant); err != nil {
		return err
	}
	if len(h) != len(w) {
		return fmt.Errorf("%d expressions, want %d", len(h), len(w))
	}
	for i := range w {
		if err := within(h[i].Data, w[i].Data); err != nil {
			return fmt.Errorf("expression %d: %w", i+1, err)
		}
	}
	return nil
}

func within(have, want []byte) error {
	h, errHave := netlink.UnmarshalAttributes(have)
	w, errWant := netlink.UnmarshalAttributes(want)
	if err := errors.Join(errHave, errWant); err != nil {
		return err
	}
	byType := index(h)
	kind := string(bytes.TrimRight(byType[unix.NFTA_EXPR_NAME], "\x00"))
	for _, a := range w {
		got, ok := byType[a.Type&typeMask]
		switch {
		case kind == "lookup" && a.Type&typeMask == unix.NFTA_EXPR_DATA:
			if err := lookup(got, a.Data); err != nil {
				return err
			}
		case kind == "reject" && a.Type&typeMask == unix.NFTA_EXPR_DATA:
			if err := reject(got, a.Data); err != nil {
				return err
			}
		case !ok:
			return fmt.Errorf("attribute %d is missing", a.Type&typeMask)
		case a.Type&unix.NLA_F_NESTED != 0:
			if err := within(got, a.Data); err != nil {
				return err
			}
		case !bytes.Equal(bytes.TrimSuffix(got, []byte{0}), bytes.TrimSuffix(a.Data, []byte{0})):
			return fmt.Errorf("attribute %d is %x, want %x", a.Type&typeMask, got, a.Data)
		}
	}
	return nil
}

// reject compares type and code; of a reset the kernel says no code.
func reject(have, want []byte) error {
	h, w := &expr.Reject{}, &expr.Reject{}
	if err := errors.Join(expr.Unmarshal(0, have, h), expr.Unmarshal(0, want, w)); err != nil {
		return err
	}
	if *h != *w {
		return fmt.Errorf("rejects with type %d, code %d, want %d, %d", h.Type, h.Code, w.Type, w.Code)
	}
	return nil
}

// lookup compares all but the set's number, which only lives within a transaction.
func lookup(have, want []byte) error {
	h, w := &expr.Lookup{}, &expr.Lookup{}
	if err := errors.Join(expr.Unmarshal(0, have, h), expr.Unmarshal(0, want, w)); err != nil {
		return err
	}
	if h.SetID = 0; *h != *w {
		return fmt.Errorf("looks up %q, want %q", h.SetName, w.SetName)
	}
	return nil
}
