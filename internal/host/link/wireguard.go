package link

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// controlDirectory holds the control sockets of userspace WireGuard: wgctrl and wireguard-go
// know no other place.
const controlDirectory = "/var/run/wireguard"

// peersAtOnce is how many peers wgctrl puts into one message. Of a longer list it makes one
// message for each, and repeats the device's own settings in all of them: the kernel then goes
// through all peers that it has for each that is added.
const peersAtOnce = 32

// Configure implements mesh.WireGuard, over genetlink for the kernel's devices and over the
// control socket for the keeper's. The device's own settings go first, and the old peers with them.
func (Kernel) Configure(ctx context.Context, device string, t mesh.Tunnel) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := wgctrl.New()
	if err != nil {
		return fmt.Errorf("open WireGuard control: %w", err)
	}
	defer func() { _ = c.Close() }()
	key := wgtypes.Key(t.PrivateKey.Bytes())
	port, mark := int(t.ListenPort), int(t.FwMark)
	peers := make([]wgtypes.PeerConfig, 0, len(t.Peers))
	for _, p := range t.Peers {
		psk := wgtypes.Key(p.PSK.Bytes())
		pc := wgtypes.PeerConfig{
			PublicKey: wgtypes.Key(p.Key), PresharedKey: &psk,
			Endpoint: net.UDPAddrFromAddrPort(p.Endpoint), ReplaceAllowedIPs: true,
		}
		for _, a := range p.Addresses {
			pc.AllowedIPs = append(pc.AllowedIPs, *single(a))
		}
		peers = append(peers, pc)
	}
	defer func() {
		clear(key[:])
		for i := range peers {
			clear(peers[i].PresharedKey[:])
		}
	}()
	err = c.ConfigureDevice(device, wgtypes.Config{PrivateKey: &key, ListenPort: &port, FirewallMark: &mark, ReplacePeers: true})
	if err != nil {
		return fmt.Errorf("configure WireGuard device %s: %w", device, err)
	}
	for some := range slices.Chunk(peers, peersAtOnce) {
		if err := c.ConfigureDevice(device, wgtypes.Config{Peers: some}); err != nil {
			return fmt.Errorf("add peers to WireGuard device %s: %w", device, err)
		}
	}
	return nil
}

// Narrow implements mesh.Peers. The peers that go are the first: one message may be cut into
// several for the kernel.
func (Kernel) Narrow(ctx context.Context, device string, gone []enclave.PublicKey, stay []mesh.Peer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := wgctrl.New()
	if err != nil {
		return fmt.Errorf("open WireGuard control: %w", err)
	}
	defer func() { _ = c.Close() }()
	var peers []wgtypes.PeerConfig
	for _, key := range gone {
		peers = append(peers, wgtypes.PeerConfig{PublicKey: wgtypes.Key(key), Remove: true})
	}
	for _, p := range stay {
		psk := wgtypes.Key(p.PSK.Bytes())
		defer clear(psk[:])
		peers = append(peers, wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.Key), UpdateOnly: true, PresharedKey: &psk})
	}
	if err := c.ConfigureDevice(device, wgtypes.Config{Peers: peers}); err != nil {
		return fmt.Errorf("change peers of WireGuard device %s: %w", device, err)
	}
	return nil
}

// State implements mesh.WireGuard.
func (Kernel) State(ctx context.Context, device string) (mesh.State, error) {
	if err := ctx.Err(); err != nil {
		return mesh.State{}, err
	}
	c, err := wgctrl.New()
	if err != nil {
		return mesh.State{}, fmt.Errorf("open WireGuard control: %w", err)
	}
	defer func() { _ = c.Close() }()
	d, err := c.Device(device)
	if err != nil {
		return mesh.State{}, fmt.Errorf("read WireGuard device %s: %w", device, err)
	}
	defer clear(d.PrivateKey[:])
	s := mesh.State{Key: enclave.PublicKey(d.PublicKey), ListenPort: uint16(d.ListenPort), FwMark: uint32(d.FirewallMark)}
	for _, p := range d.Peers {
		ps := mesh.PeerState{
			Key: enclave.PublicKey(p.PublicKey), PSK: enclave.NewSecret(p.PresharedKey[:]),
			Received: p.ReceiveBytes, Sent: p.TransmitBytes, Handshake: p.LastHandshakeTime,
		}
		if p.Endpoint != nil {
			e := p.Endpoint.AddrPort()
			ps.Endpoint = netip.AddrPortFrom(e.Addr().Unmap(), e.Port())
		}
		for _, a := range p.AllowedIPs {
			addr, _ := netip.AddrFromSlice(a.IP)
			ones, _ := a.Mask.Size()
			ps.Allowed = append(ps.Allowed, netip.PrefixFrom(addr.Unmap(), ones))
		}
		s.Peers = append(s.Peers, ps)
	}
	return s, nil
}
