package tunnel_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/packettest"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// marked sends one packet with the role's mark from a raw socket: a UDP datagram from the port of Local, or a ping.
func (r role) marked() error {
	to, err := netip.ParseAddrPort(r.Address)
	if err != nil {
		return err
	}
	proto, data := unix.IPPROTO_UDP, append(make([]byte, 8), r.Payload...)
	if r.Proto == "rawping" {
		proto = unix.IPPROTO_ICMP
		data[0], data[7] = 8, 1
		binary.BigEndian.PutUint16(data[2:], packettest.Checksum(nil, data))
	} else {
		local, localErr := netip.ParseAddrPort(r.Local)
		if localErr != nil {
			return localErr
		}
		data = packettest.UDP(local.Port(), to.Port(), r.Payload) // IPv4 takes it without a checksum
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, proto)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(r.Mark)); err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	if r.Device != "" {
		if err = unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, r.Device); err != nil {
			return err
		}
	}
	if err = unix.Sendto(fd, data, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
		return err
	}
	fmt.Println("sent")
	return nil
}

// frame puts a UDP datagram on the card itself.
func (r role) frame() error {
	to, err := netip.ParseAddrPort(r.Address)
	if err != nil {
		return err
	}
	card, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	data := packettest.UDP(7100, to.Port(), r.Payload)
	head, d := make([]byte, 20), to.Addr().As4()
	head[0], head[8], head[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(head[2:], uint16(20+len(data)))
	copy(head[16:], d[:])
	everybody := unix.SockaddrLinklayer{Protocol: uint16(htons(unix.ETH_P_IP)), Ifindex: card.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	return unix.Sendto(fd, append(head, data...), 0, &everybody)
}

// marks are attempts of a user's program that has CAP_NET_RAW, as ping has it by its file: it sets the mark of
// WireGuard's own packets.
func marks() map[string]role {
	const own = "10.77.0.1:51820"
	return map[string]role{
		"UDP to a peer":                           {Proto: "udp", Address: "10.77.0.2:7000"},
		"UDP on IPv6 to a peer":                   {Proto: "udp", Address: "[fd77::2]:7000"},
		"UDP to another host":                     {Proto: "udp", Address: "10.77.0.100:7000"},
		"UDP to a peer, bound to the card":        {Proto: "udp", Address: "10.77.0.2:7000", Device: "eth0"},
		"TCP to a peer":                           {Proto: "tcp", Address: "10.77.0.2:7000"},
		"a ping to a peer":                        {Proto: "rawping", Address: "10.77.0.2:0"},
		"a ping to another host":                  {Proto: "rawping", Address: "10.77.0.100:0"},
		"a ping to a peer, bound to the card":     {Proto: "rawping", Address: "10.77.0.2:0", Device: "eth0"},
		"raw UDP to a peer":                       {Proto: "rawudp", Address: "10.77.0.2:7000", Local: "10.77.0.1:7100"},
		"raw UDP to a peer from WireGuard's port": {Proto: "rawudp", Address: "10.77.0.2:7000", Local: own},
		"raw UDP to a peer's WireGuard from ours": {Proto: "rawudp", Address: "10.77.0.2:51820", Local: own},
	}
}

// forgeries have port and mark of WireGuard's own packets.
func forgeries() map[string]role {
	const own = "10.77.0.1:51820"
	return map[string]role{
		"raw UDP to another host from WireGuard's port":              {Proto: "rawudp", Address: "10.77.0.100:7000", Local: own},
		"raw UDP to a peer from WireGuard's port, bound to the card": {Proto: "rawudp", Address: "10.77.0.2:7000", Local: own, Device: "eth0"},
	}
}

func TestMarksOfTheTunnelsOwn(t *testing.T) {
	protected, plain := enclaveUp(t), build(t)
	for _, l := range []*lab{protected, plain} {
		serve(t, l.nodes[1].Node, user, "udp", ":7000")
		serve(t, l.nodes[1].Node, user, "tcp", ":7000")
	}
	seen := func(t *testing.T, l *lab, r role, name string) int {
		t.Helper()
		r.Mark, r.Payload = mesh.FwMark(job), secret+"-"+name
		a := act(t, l.nodes[0].Node, user, r, unix.CAP_NET_RAW)
		a.says("got", 300*time.Millisecond)
		a.stop()
		return l.wire.holds(r.Payload)
	}
	for name, r := range marks() {
		t.Run(name+" is in the tunnel or refused", func(t *testing.T) {
			assert.Zero(t, seen(t, protected, r, name))
			assert.Positive(t, seen(t, plain, r, name), "control: without an enclave")
		})
	}
	for name, r := range forgeries() {
		t.Run(name+" is refused where the keeper is WireGuard", func(t *testing.T) {
			before := protected.nodes[0].counters(t).Rejected
			leaked := seen(t, protected, r, name)
			if protected.driver == mesh.DriverKeeper {
				assert.Zero(t, leaked)
				assert.Greater(t, protected.nodes[0].counters(t).Rejected.Packets, before.Packets)
			} else {
				assert.Positive(t, leaked, "the threat model says that it is not held with the kernel's")
			}
			assert.Positive(t, seen(t, plain, r, name), "control: without an enclave")
		})
	}
	t.Run("a frame of the user's own is not held, as the threat model says", func(t *testing.T) {
		assert.Positive(t, seen(t, protected, role{Proto: "frame", Address: "10.77.0.2:7000"}, "frame"))
	})
}
