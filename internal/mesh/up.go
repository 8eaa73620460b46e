package mesh

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Links makes and deletes network interfaces.
type Links interface {
	// Link reads an interface; the zero Link when there is none.
	Link(ctx context.Context, name string) (Link, error)
	// PutLink makes the interface as wanted. It creates one of DriverKernel; one of
	// DriverKeeper must be there.
	PutLink(ctx context.Context, want Link) error
	// DeleteLink deletes the interface, and succeeds when there is none.
	DeleteLink(ctx context.Context, name string) error
}

// Routes reads and changes a routing table, both families.
type Routes interface {
	Routes(ctx context.Context, table uint32) ([]Route, error)
	// AddRoutes adds all, or some and gives the error of the first that it could not add.
	AddRoutes(ctx context.Context, list []Route) error
	DeleteRoute(ctx context.Context, r Route) error
}

// Rules reads and changes the policy rules, both families.
type Rules interface {
	Rules(ctx context.Context) ([]Rule, error)
	AddRule(ctx context.Context, r Rule) error
	DeleteRule(ctx context.Context, r Rule) error
}

// WireGuard configures a WireGuard interface, the kernel's or the keeper's.
type WireGuard interface {
	// Available says whether the kernel can make WireGuard interfaces.
	Available(ctx context.Context) (bool, error)
	// Configure replaces key, port, mark and all peers.
	Configure(ctx context.Context, device string, t Tunnel) error
	// State reads the interface.
	State(ctx context.Context, device string) (State, error)
}

// Peers changes the peers of an interface that carries traffic.
type Peers interface {
	// Narrow removes peers and gives others a new pre-shared key, in one act. What both sides
	// have of a session with a peer that stays goes on; the key counts from its next handshake.
	Narrow(ctx context.Context, device string, gone []enclave.PublicKey, stay []Peer) error
}

// Packet is what the kernel's choice of a route depends on.
type Packet struct {
	To   netip.Addr
	From netip.Addr // none: the kernel chooses
	UID  uint32
	Mark uint32
}

// Lookup asks the kernel for its choice of a route.
type Lookup interface {
	// Lookup names for each packet of this node's the interface that it would leave by, "" where
	// there is no route.
	Lookup(ctx context.Context, list []Packet) ([]string, error)
}

// Kernel is what the mesh needs of the node.
type Kernel struct {
	Links     Links
	Routes    Routes
	Rules     Rules
	WireGuard WireGuard
	Peers     Peers
	Lookup    Lookup
}

// State is a WireGuard interface as it is.
type State struct {
	Key        enclave.PublicKey
	ListenPort uint16
	FwMark     uint32
	Peers      []PeerState
}

// PeerState is a peer as WireGuard has it.
type PeerState struct {
	Key       enclave.PublicKey
	PSK       enclave.Secret
	Endpoint  netip.AddrPort
	Allowed   []netip.Prefix
	Received  int64 // bytes of the tunnel's packets, with WireGuard's own
	Sent      int64
	Handshake time.Time // of the last one, zero: none yet
}

// Bytes is what went through the tunnel: received and sent, with WireGuard's own overhead.
func (s State) Bytes() (received, sent int64) {
	for _, p := range s.Peers {
		received += p.Received
		sent += p.Sent
	}
	return received, sent
}

// Mode is the kernel's WireGuard where there is one, the keeper's elsewhere.
func Mode(ctx context.Context, k Kernel) (Driver, error) {
	ok, err := k.WireGuard.Available(ctx)
	if err != nil {
		return "", fmt.Errorf("mesh: choose driver: %w", err)
	}
	if ok {
		return DriverKernel, nil
	}
	return DriverKeeper, nil
}

// Up makes the kernel hold the device and reads each part back. It may be run again.
// In DriverKeeper the keeper has made the interface before.
//
// The routes come before the rules and the peers before the routes, so that nothing is sent
// to a place that is not there yet. What fails half way is for Down to clear.
func Up(ctx context.Context, k Kernel, d Device) error {
	steps := []struct {
		name string
		up   func(context.Context, Kernel, Device) error
	}{{"link", upLink}, {"peers", upTunnel}, {"start", upStart}, {"routes", upRoutes}, {"rules", upRules}, {"paths", upPaths}}
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("mesh: %s of %s: %w", s.name, d.Link.Name, err)
		}
		if err := s.up(ctx, k, d); err != nil {
			return fmt.Errorf("mesh: %s of %s: %w", s.name, d.Link.Name, err)
		}
	}
	return nil
}

func upLink(ctx context.Context, k Kernel, d Device) error {
	have, err := k.Links.Link(ctx, d.Link.Name)
	if err != nil {
		return err
	}
	switch {
	case have.Name == "" && d.Link.Driver == DriverKeeper:
		return enclave.Refuse(CodeNoDevice, enclave.FaultNode, "enclave-keeper has not made %s", d.Link.Name)
	case have.Name != "" && have.Driver != d.Link.Driver:
		return enclave.Refuse(CodeReadBack, enclave.FaultNode, "%s is of type %s, want %s", have.Name, have.Driver, d.Link.Driver)
	case have.Name != "":
		return nil
	}
	bare := d.Link
	bare.Up, bare.Addresses = false, nil
	return k.Links.PutLink(ctx, bare)
}

// upPaths sees to it that no rule of the site's stands before the job's.
func upPaths(ctx context.Context, k Kernel, d Device) error { return checkPaths(ctx, k, d.Held(), nil) }

func upTunnel(ctx context.Context, k Kernel, d Device) error {
	if err := k.WireGuard.Configure(ctx, d.Link.Name, d.Tunnel); err != nil {
		return err
	}
	s, err := k.WireGuard.State(ctx, d.Link.Name)
	if err != nil {
		return err
	}
	return d.Tunnel.holds(s)
}

func upStart(ctx context.Context, k Kernel, d Device) error {
	if err := k.Links.PutLink(ctx, d.Link); err != nil {
		return err
	}
	have, err := k.Links.Link(ctx, d.Link.Name)
	if err != nil {
		return err
	}
	if h, w := have.sorted().String(), d.Link.sorted().String(); h != w {
		return enclave.Refuse(CodeReadBack, enclave.FaultNode, "have %q, want %q", h, w)
	}
	return nil
}

// holds compares what WireGuard says with what it was told.
func (t Tunnel) holds(s State) error {
	if s.ListenPort != t.ListenPort || s.FwMark != t.FwMark || len(s.Peers) != len(t.Peers) {
		return enclave.Refuse(CodeReadBack, enclave.FaultNode, "WireGuard has port %d, fwmark %#x, %d peers; want %d, %#x, %d",
			s.ListenPort, s.FwMark, len(s.Peers), t.ListenPort, t.FwMark, len(t.Peers))
	}
	have := map[enclave.PublicKey]PeerState{}
	for _, p := range s.Peers {
		have[p.Key] = p
	}
	for _, p := range t.Peers {
		h, ok := have[p.Key]
		if !ok || h.Endpoint != p.Endpoint || !bytes.Equal(h.PSK.Bytes(), p.PSK.Bytes()) || !sameAddresses(h.Allowed, p.Addresses) {
			return enclave.Refuse(CodeReadBack, enclave.FaultNode, "WireGuard does not hold peer %s as planned", p.Node)
		}
	}
	return nil
}

func sameAddresses(have []netip.Prefix, want []netip.Addr) bool {
	if len(have) != len(want) {
		return false
	}
	for _, a := range want {
		if !slices.Contains(have, netip.PrefixFrom(a, a.BitLen())) {
			return false
		}
	}
	return true
}
