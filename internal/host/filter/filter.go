// Package filter puts the fence's tables into the kernel's nftables and reads them back.
//
// It translates what package fence planned, expression by expression as nft itself does, and
// decides nothing. No program is run: a compute node needs no nft binary for its fence.
package filter

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/fence"
)

// Kernel is the packet filter of the network namespace of the calling thread. It implements
// fence.Kernel. The zero Kernel is ready.
type Kernel struct{}

var _ fence.Kernel = Kernel{}

const (
	// A whole table with all its answers must fit into the socket's buffers: google/nftables
	// writes the batch at once and reads the acknowledgements afterwards.
	socketBuffer = 16 << 20
)

// Replace implements fence.Kernel.
func (Kernel) Replace(ctx context.Context, t fence.Table, gone ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseLasting() }()
	for _, name := range append([]string{t.Name}, gone...) {
		if name == "" {
			continue
		}
		// Added first, so that deleting it can't fail; all of it is one transaction.
		c.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
		c.DelTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
	}
	if len(t.Chains) > 0 {
		if err := put(c, t); err != nil {
			return err
		}
	}
	if err := c.Flush(); errors.Is(err, unix.ENOENT) && len(t.Chains) > 0 {
		// One answer for each rule, and none of them says which.
		return fmt.Errorf("commit nftables transaction: %w: the kernel lacks what the rules need: modules %s", unix.ENOENT, modules)
	} else if err != nil {
		return fmt.Errorf("commit nftables transaction: %w", err)
	}
	return nil
}

// modules hold what the fence's rules are made of, where the kernel does not have it built in.
const modules = "nf_tables, nf_conntrack, nft_ct, nft_objref, nft_reject_inet"

func open() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetReadBuffer(socketBuffer), c.SetWriteBuffer(socketBuffer))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	return c, nil
}

func put(c *nftables.Conn, t fence.Table) error {
	table := c.AddTable(&nftables.Table{Name: t.Name, Family: nftables.TableFamilyINet})
	for _, name := range t.Counters {
		c.AddObj(&nftables.NamedObj{Table: table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	}
	ids := map[string]uint32{}
	for _, s := range t.Sets {
		id, err := putSet(c, table, s)
		if err != nil {
			return err
		}
		ids[s.Name] = id
	}
	// A chain must be there before a rule jumps to it.
	for _, ch := range t.Chains {
		c.AddChain(chain(table, ch))
	}
	for _, ch := range t.Chains {
		for _, r := range ch.Rules {
			exprs, err := compile(r, ids)
			if err != nil {
				return fmt.Errorf("chain %s: rule %q: %w", ch.Name, r, err)
			}
			c.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: ch.Name, Table: table}, Exprs: exprs})
		}
	}
	return nil
}

func chain(table *nftables.Table, ch fence.Chain) *nftables.Chain {
	out := &nftables.Chain{Name: ch.Name, Table: table}
	if ch.Hook != "" {
		hook, priority, policy := hooks[ch.Hook], nftables.ChainPriority(ch.Priority), nftables.ChainPolicyAccept
		out.Hooknum, out.Priority, out.Policy, out.Type = &hook, &priority, &policy, nftables.ChainType(ch.Type)
	}
	return out
}

// hooks is a table of constants.
var hooks = map[string]nftables.ChainHook{
	"prerouting":  unix.NF_INET_PRE_ROUTING,
	"input":       unix.NF_INET_LOCAL_IN,
	"forward":     unix.NF_INET_FORWARD,
	"output":      unix.NF_INET_LOCAL_OUT,
	"postrouting": unix.NF_INET_POST_ROUTING,
}

// Counters implements fence.Kernel.
func (Kernel) Counters(ctx context.Context, table string) (map[string]fence.Count, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.CloseLasting() }()
	objects, err := c.GetNamedObjects(&nftables.Table{Name: table, Family: nftables.TableFamilyINet})
	if err != nil {
		return nil, fmt.Errorf("read counters of table %s: %w", table, err)
	}
	out := map[string]fence.Count{}
	for _, o := range objects {
		named, ok := o.(*nftables.NamedObj)
		if !ok {
			continue
		}
		if n, ok := named.Obj.(*expr.Counter); ok {
			out[named.Name] = fence.Count{Packets: n.Packets, Bytes: n.Bytes}
		}
	}
	return out, nil
}
