// Package meshtest is a node's network for tests of the mesh: it keeps state, refuses what the
// kernel refuses (a second add, a route through a device that is not there) and prints itself
// as text. It does nothing to the machine it runs on.
package meshtest

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// ErrExists and ErrAbsent are what the kernel says of a second add and a second delete.
var (
	ErrExists = errors.New("file exists")
	ErrAbsent = errors.New("no such process")
)

// Host is one node. The zero Host has no WireGuard in its kernel and nothing set up. Its methods
// may be called from several goroutines; Log is to be read when they are done.
type Host struct {
	KernelWireGuard bool
	Fail            map[string]error // by the name of an act ("add rule"): that act fails
	Forget          map[string]bool  // by the name of an act: it succeeds and does nothing
	Log             []string         // the acts, in order

	mu      sync.Mutex
	links   map[string]mesh.Link
	tunnels map[string]mesh.Tunnel
	routes  []mesh.Route
	rules   []mesh.Rule
}

// Kernel is the host as the mesh wants it.
func (h *Host) Kernel() mesh.Kernel {
	return mesh.Kernel{Links: h, Routes: h, Rules: h, WireGuard: h, Peers: h, Lookup: h}
}

// Keeper makes the userspace device as enclave-keeper does.
func (h *Host) Keeper(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.init()
	h.links[name] = mesh.Link{Name: name, Driver: mesh.DriverKeeper}
}

// KeeperDies takes a userspace device away, and with it its addresses and routes.
func (h *Host) KeeperDies(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(name)
}

func (h *Host) init() {
	if h.links == nil {
		h.links, h.tunnels = map[string]mesh.Link{}, map[string]mesh.Tunnel{}
	}
}

func (h *Host) act(name, what string) (bool, error) {
	h.init()
	h.Log = append(h.Log, name+" "+what)
	return !h.Forget[name], h.Fail[name]
}

// Link reads an interface.
func (h *Host) Link(_ context.Context, name string) (mesh.Link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.init()
	return h.links[name], h.Fail["read link"]
}

// PutLink makes an interface as wanted.
func (h *Host) PutLink(_ context.Context, want mesh.Link) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	do, err := h.act("put link", want.Name)
	if err != nil || !do {
		return err
	}
	if _, ok := h.links[want.Name]; !ok && (want.Driver != mesh.DriverKernel || !h.KernelWireGuard) {
		return fmt.Errorf("make %s: operation not supported", want.Name)
	}
	h.links[want.Name] = want
	return nil
}

// DeleteLink deletes an interface if it is there.
func (h *Host) DeleteLink(_ context.Context, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	do, err := h.act("delete link", name)
	if err == nil && do {
		h.drop(name)
	}
	return err
}

func (h *Host) drop(name string) {
	delete(h.links, name)
	delete(h.tunnels, name)
	h.routes = slices.DeleteFunc(h.routes, func(r mesh.Route) bool { return r.Device == name })
}

// Routes reads a table.
func (h *Host) Routes(_ context.Context, table uint32) ([]mesh.Route, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []mesh.Route
	for _, r := range h.routes {
		if r.Table == table {
			out = append(out, r)
		}
	}
	return out, h.Fail["read routes"]
}

// AddRoutes refuses a route that is there, or whose device or source is not.
func (h *Host) AddRoutes(_ context.Context, list []mesh.Route) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range list {
		do, err := h.act("add route", r.To.String())
		if err != nil {
			return err
		}
		if !do {
			continue
		}
		link := h.links[r.Device]
		if slices.Contains(h.routes, r) || !link.Up || !slices.Contains(link.Addresses, r.Source) {
			return ErrExists
		}
		h.routes = append(h.routes, r)
	}
	return nil
}

// DeleteRoute refuses a route that is not there.
func (h *Host) DeleteRoute(_ context.Context, r mesh.Route) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	do, err := h.act("delete route", r.To.String())
	if err != nil || !do {
		return err
	}
	i := slices.Index(h.routes, r)
	if i < 0 {
		return ErrAbsent
	}
	h.routes = slices.Delete(h.routes, i, i+1)
	return nil
}

// Rules reads all policy rules.
func (h *Host) Rules(context.Context) ([]mesh.Rule, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.rules), h.Fail["read rules"]
}

// AddRule refuses a rule that is there.
func (h *Host) AddRule(_ context.Context, r mesh.Rule) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	do, err := h.act("add rule", fmt.Sprint(r.Priority))
	if err != nil || !do {
		return err
	}
	if slices.Contains(h.rules, r) {
		return ErrExists
	}
	h.rules = append(h.rules, r)
	return nil
}

// DeleteRule refuses a rule that is not there.
func (h *Host) DeleteRule(_ context.Context, r mesh.Rule) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	do, err := h.act("delete rule", fmt.Sprint(r.Priority))
	if err != nil || !do {
		return err
	}
	i := slices.Index(h.rules, r)
	if i < 0 {
		return ErrAbsent
	}
	h.rules = slices.Delete(h.rules, i, i+1)
	return nil
}

// Lookup goes through the rules in their order, as the kernel does; main leads to eth0.
func (h *Host) Lookup(_ context.Context, list []mesh.Packet) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	rules := slices.Clone(h.rules)
	slices.SortStableFunc(rules, func(a, b mesh.Rule) int { return a.Priority - b.Priority })
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = h.leavesBy(rules, p)
	}
	return out, h.Fail["lookup"]
}

func (h *Host) leavesBy(rules []mesh.Rule, p mesh.Packet) string {
	const main = 254
	for _, r := range rules {
		users := r.UIDs.Count == 0 || p.UID >= r.UIDs.Start && p.UID <= r.UIDs.Last()
		if !users || r.TCPPort != 0 || (r.Mark^p.Mark)&r.Mask != 0 {
			continue
		}
		for _, x := range h.routes {
			if x.Table == r.Table && x.To == p.To {
				return x.Device
			}
		}
		if r.Table == main {
			break
		}
	}
	return "eth0"
}

// Available says whether the kernel has WireGuard.
func (h *Host) Available(context.Context) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.KernelWireGuard, h.Fail["available"]
}

// Configure replaces a device's configuration.
func (h *Host) Configure(_ context.Context, device string, t mesh.Tunnel) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	do, err := h.act("configure", device)
	if err != nil || !do {
		return err
	}
	if h.links[device].Name == "" {
		return errors.New("no such device")
	}
	h.tunnels[device] = t
	return nil
}

// Narrow removes peers and replaces the pre-shared keys of others.
func (h *Host) Narrow(_ context.Context, device string, gone []enclave.PublicKey, stay []mesh.Peer) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	do, err := h.act("narrow", device)
	if err != nil || !do {
		return err
	}
	t, ok := h.tunnels[device]
	if !ok {
		return errors.New("no such device")
	}
	t.Peers = slices.DeleteFunc(slices.Clone(t.Peers), func(p mesh.Peer) bool { return slices.Contains(gone, p.Key) })
	for i := range t.Peers {
		for _, p := range stay {
			if p.Key == t.Peers[i].Key {
				t.Peers[i].PSK = enclave.NewSecret(slices.Clone(p.PSK.Bytes()))
			}
		}
	}
	h.tunnels[device] = t
	return nil
}

// State reads a device's configuration.
func (h *Host) State(_ context.Context, device string) (mesh.State, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.tunnels[device]
	s := mesh.State{ListenPort: t.ListenPort, FwMark: t.FwMark}
	if k, err := ecdh.X25519().NewPrivateKey(t.PrivateKey.Bytes()); err == nil {
		s.Key = enclave.PublicKey(k.PublicKey().Bytes())
	}
	for _, p := range t.Peers {
		ps := mesh.PeerState{Key: p.Key, PSK: p.PSK, Endpoint: p.Endpoint}
		for _, a := range p.Addresses {
			ps.Allowed = append(ps.Allowed, netip.PrefixFrom(a, a.BitLen()))
		}
		s.Peers = append(s.Peers, ps)
	}
	return s, h.Fail["read state"]
}

// String prints what the host holds; "" for a host that holds nothing.
func (h *Host) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	for name, l := range h.links {
		lines = append(lines, l.String())
		if t, ok := h.tunnels[name]; ok {
			lines = append(lines, t.String())
		}
	}
	slices.Sort(lines)
	for _, r := range h.routes {
		lines = append(lines, r.String())
	}
	for _, r := range h.rules {
		lines = append(lines, r.String())
	}
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}
