package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

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

// answerTime is how long a keeper may take to take note of a caller.
const answerTime = 2 * time.Second

// control opens WireGuard's control. wgctrl waits for ever for a keeper that was stopped or hangs,
// and with it would the epilog; so the keeper is first seen to answer a caller who says nothing.
func control(ctx context.Context, device string) (*wgctrl.Client, error) {
	d := net.Dialer{Timeout: answerTime}
	if s, err := d.DialContext(ctx, "unix", filepath.Join(controlDirectory, device+".sock")); err == nil {
		defer func() { _ = s.Close() }()
		_ = s.SetDeadline(time.Now().Add(answerTime))
		if end, ok := s.(*net.UnixConn); ok {
			_ = end.CloseWrite()
		}
		if _, err = s.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, fmt.Errorf("open WireGuard control of %s: enclave-keeper does not answer: %w", device, err)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("open WireGuard control: %w", err)
	}
	return c, nil
}

// Configure implements mesh.WireGuard, over genetlink for the kernel's devices and over the
// control socket for the keeper's. The device's own settings go first, and the old peers with them.
func (Kernel) Configure(ctx context.Context, device string, t mesh.Tunnel) error {
	c, err := control(ctx, device)
	if err != nil {
		return err
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
	c, err := control(ctx, device)
	if err != nil {
		return err
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
	c, err := control(ctx, device)
	if err != nil {
		return mesh.State{}, err
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
