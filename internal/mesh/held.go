package mesh

import (
	"context"
	"net/netip"
	"slices"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Codes of a mesh that was whole and is no longer, or that others' rules lead packets past.
const (
	CodeRouting   enclave.Code = "E427" // a rule or route of the job's is gone, or one was added
	CodeInterface enclave.Code = "E428" // the job's interface is gone, or is not as it was made
	CodeTunnel    enclave.Code = "E429" // WireGuard has other peers than the roster, another port or mark
	CodePath      enclave.Code = "E430" // a rule of the site's stands before the job's
)

// Held is what of a mesh has to stay as it was put up for as long as the job runs. It holds no
// secret and travels to the keeper.
type Held struct {
	Link   Link    `json:"link"`
	Routes []Route `json:"routes"`
	Rules  []Rule  `json:"rules"`
	Port   uint16  `json:"port"`
	FwMark uint32  `json:"fwmark"`
}

// Held is the part of a plan that the keeper watches.
func (d Device) Held() Held {
	return Held{Link: d.Link, Routes: d.Routes, Rules: d.Rules, Port: d.Tunnel.ListenPort, FwMark: d.Tunnel.FwMark}
}

// Check reads a running job's mesh back. Peers are those that the roster has left. A refusal says
// what is no longer as it was; any other error, that it could not be read.
func Check(ctx context.Context, k Kernel, h Held, peers []enclave.Peer) error {
	for _, part := range []func(context.Context, Kernel, Held, []enclave.Peer) error{checkLink, checkRouting, checkPaths, checkTunnel} {
		if err := part(ctx, k, h, peers); err != nil {
			return err
		}
	}
	return nil
}

func checkLink(ctx context.Context, k Kernel, h Held, _ []enclave.Peer) error {
	have, err := k.Links.Link(ctx, h.Link.Name)
	if err != nil {
		return err
	}
	if a, b := have.sorted().String(), h.Link.sorted().String(); a != b {
		return lost(CodeInterface, "interface", "have %q, want %q", a, b)
	}
	return nil
}

func checkRouting(ctx context.Context, k Kernel, h Held, _ []enclave.Peer) error {
	job := h.FwMark & jobBits
	routes, err := k.Routes.Routes(ctx, Table(job))
	if err != nil {
		return err
	}
	rules, err := rulesOf(ctx, k, job)
	if err != nil {
		return err
	}
	if len(routes) != len(h.Routes) || len(missing(h.Routes, routes)) != 0 {
		return lost(CodeRouting, "routing", "%d routes, want %d: missing %v, foreign %v",
			len(routes), len(h.Routes), few(missing(h.Routes, routes)), few(missing(routes, h.Routes)))
	}
	if len(rules) != len(h.Rules) || len(missing(h.Rules, rules)) != 0 {
		return lost(CodeRouting, "routing", "%d rules, want %d: missing %v, foreign %v",
			len(rules), len(h.Rules), few(missing(h.Rules, rules)), few(missing(rules, h.Rules)))
	}
	return nil
}

// checkPaths asks the kernel itself where packets to each peer go: those of each of the job's
// users, and those that only the mark leads. Rules of the site's that stand before the job's
// may be harmless or not, and nothing but a lookup tells. The fence stops what goes astray; but
// a job whose packets are stopped hangs and nobody knows why.
func checkPaths(ctx context.Context, k Kernel, h Held, _ []enclave.Peer) error {
	list := packets(h)
	devices, err := k.Lookup.Lookup(ctx, list)
	if err != nil {
		return err
	}
	for i, p := range list {
		if devices[i] == h.Link.Name {
			continue
		}
		why := lost(CodePath, "routing", "packets of the job to %s would leave by %q and not by %s", p.To, devices[i], h.Link.Name)
		why.Fix = "a rule of the site stands before the job's: give it a priority above 9902, or let it spare the peers"
		return why
	}
	return nil
}

// packets are two of the job's user to each peer, and to one peer of each family two of each other
// user of the job's and two that only the mark leads: one without a source and one with it, for a
// connection looks its route up twice, and rules for sources are what nodes with several
// interfaces have.
func packets(h Held) []Packet {
	others := []Packet{{Mark: Mark(h.FwMark & jobBits)}}
	for _, r := range h.Rules {
		if x := (Packet{UID: r.UIDs.Start}); r.Priority == priorityUID && !slices.Contains(others, x) {
			others = append(others, x)
		}
	}
	var out []Packet
	seen := map[Family]bool{}
	for _, r := range h.Routes {
		for i, p := range others {
			if i == 1 || !seen[r.family()] { // the first user is the job's own
				p.To = r.To
				out = append(out, p)
				p.From = r.Source
				out = append(out, p)
			}
		}
		seen[r.family()] = true
	}
	return out
}

// checkTunnel compares the peers' keys and addresses. That one is missing is the keeper's own
// doing at a change of the roster, and takes nothing from the others.
func checkTunnel(ctx context.Context, k Kernel, h Held, peers []enclave.Peer) error {
	s, err := k.WireGuard.State(ctx, h.Link.Name)
	if err != nil {
		return err
	}
	if s.ListenPort != h.Port || s.FwMark != h.FwMark {
		return lost(CodeTunnel, "tunnel", "WireGuard has port %d and fwmark %#x, want %d and %#x", s.ListenPort, s.FwMark, h.Port, h.FwMark)
	}
	known := map[enclave.PublicKey]enclave.Peer{}
	for _, p := range peers {
		known[p.Key] = p
	}
	for _, have := range s.Peers {
		p, ok := known[have.Key]
		if !ok {
			return lost(CodeTunnel, "tunnel", "WireGuard has peer %s, which is not on the roster", have.Key)
		}
		if !sameAddresses(have.Allowed, p.Addresses) {
			return lost(CodeTunnel, "tunnel", "WireGuard takes %v from %s, want %v", have.Allowed, p.Node, p.Addresses)
		}
	}
	return nil
}

// lost is the refusal of a mesh that somebody changed: a user can't, so it is the node's fault.
func lost(code enclave.Code, check, format string, args ...any) *enclave.Refusal {
	r := enclave.Refuse(code, enclave.FaultNode, format, args...)
	r.Check, r.Fix = check, "find the program that changed it, and have it spare enc* and the enclave's rules"
	return r
}

// few keeps a reason short: of a thousand routes that are gone the first ones tell enough.
func few[T any](list []T) []T { return list[:min(len(list), 2)] }

func (l Link) sorted() Link {
	l.Addresses = slices.SortedFunc(slices.Values(l.Addresses), netip.Addr.Compare)
	return l
}
