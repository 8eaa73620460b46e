package tunnel

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
)

// Codes of the probe's refusals.
const (
	CodeUnreachable enclave.Code = "E420" // a neighbour does not answer through the tunnel
)

// Port is where the nodes of a job answer each other's probes, inside the tunnel only.
const Port = 51821

const (
	interval = 100 * time.Millisecond
	// holdBack is how long the second of two neighbours leaves the first handshake to the
	// first one, unless it hears from it. Both starting at once costs WireGuard's retry, five
	// seconds; but a first one that came up earlier has lost its start, and then this is time
	// lost. The barrier lets all nodes of a job go within a few milliseconds of each other.
	holdBack = 60 * time.Millisecond

	ask    = "slurm-enclave probe 1"
	answer = "slurm-enclave reply 1"
	size   = len(ask) + tokenSize + 16

	tokenSize = 16
)

// Token tells the probes of one roster from those of another; it is no secret.
type Token [tokenSize]byte

// Answer answers the neighbours' probes until ctx is cancelled. The socket is bound to the
// device, so that nothing is answered that came another way, and carries the mark, by which the
// policy rules find the tunnel's routes. Ready, if not nil, is called when it listens; heard gets
// who asked, as long as it has room.
func Answer(ctx context.Context, device string, port uint16, mark uint32, token Token, ready func(), heard chan<- netip.Addr) error {
	c, err := listen(ctx, device, netip.AddrPortFrom(netip.IPv6Unspecified(), port), mark)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if ready != nil {
		ready()
	}
	b := make([]byte, size+1)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if ctx.Err() != nil { // cancelled is how it ends
			return nil
		}
		if err != nil {
			return fmt.Errorf("read probe on %s: %w", device, err)
		}
		if n != size || !bytes.HasPrefix(b, []byte(ask)) || Token(b[len(ask):len(ask)+tokenSize]) != token {
			continue
		}
		select {
		case heard <- from.Addr().Unmap():
		default: // nil, or nobody waits any more
		}
		copy(b, answer)
		// A lost answer is asked for again.
		_, _ = c.WriteToUDPAddrPort(b[:n], from)
	}
}

// Probe asks each neighbour through the device and returns nil when all have answered. It asks
// every 100 ms until then or until ctx ends; the refusal names who is missing.
//
// WireGuard sends its first packet when it has data for a peer. A node whose peers are not
// configured yet drops it, and WireGuard repeats it only after five seconds; but whoever of two
// neighbours comes up last finds the other one ready. So both ask. And since two handshakes
// that start in the same moment destroy each other, the neighbour that is not First holds its
// first question back, until heard says that the other one's has arrived.
func Probe(ctx context.Context, device string, port uint16, mark uint32, token Token, list []mesh.Neighbour, heard <-chan netip.Addr) error {
	if len(list) == 0 {
		return nil
	}
	c, err := listen(ctx, device, netip.AddrPortFrom(netip.IPv6Unspecified(), 0), mark)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	p := &prober{conn: c, token: token, port: port, missing: map[netip.Addr]mesh.Neighbour{}, start: time.Now()}
	if _, err := rand.Read(p.nonce[:]); err != nil {
		return fmt.Errorf("make probe: %w", err)
	}
	for _, n := range list {
		p.missing[n.Address] = n
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	go p.listenTo(asking, heard)
	for len(p.missing) > 0 {
		p.ask()
		if err := p.collect(ctx); err != nil {
			return err
		}
	}
	return nil
}

// listenTo asks back whoever has asked: its question came through the tunnel, so no handshake
// can be crossed any more.
func (p *prober) listenTo(ctx context.Context, heard <-chan netip.Addr) {
	for {
		select {
		case a := <-heard:
			_, _ = p.conn.WriteToUDPAddrPort(p.packet(ask), netip.AddrPortFrom(a, p.port))
		case <-ctx.Done():
			return
		}
	}
}

// Warm has WireGuard shake hands with every peer of the list that this node is First of, one
// each pace, and waits for nobody. It is for the time after the second barrier, when all nodes
// are configured: ranks that first speak to each other in an all-to-all start in the same
// moment from both ends, and would wait five seconds.
func Warm(ctx context.Context, device string, port uint16, mark uint32, list []mesh.Neighbour, pace time.Duration) error {
	c, err := listen(ctx, device, netip.AddrPortFrom(netip.IPv6Unspecified(), 0), mark)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	tick := time.NewTicker(max(pace, time.Microsecond))
	defer tick.Stop()
	for _, n := range list {
		if !n.First {
			continue
		}
		// A packet that is lost costs no more than not to have been sent.
		_, _ = c.WriteToUDPAddrPort([]byte(ask), netip.AddrPortFrom(n.Address, port))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

type prober struct {
	conn    *net.UDPConn
	token   Token
	nonce   [16]byte
	port    uint16
	missing map[netip.Addr]mesh.Neighbour
	start   time.Time
}

func (p *prober) packet(head string) []byte {
	b := append([]byte(head), p.token[:]...)
	return append(b, p.nonce[:]...)
}

func (p *prober) ask() {
	for a, n := range p.missing {
		if !n.First && time.Since(p.start) < holdBack {
			continue
		}
		// A lost question is asked again.
		_, _ = p.conn.WriteToUDPAddrPort(p.packet(ask), netip.AddrPortFrom(a, p.port))
	}
}

// collect takes answers for one interval.
func (p *prober) collect(ctx context.Context) error {
	until := time.Now().Add(interval)
	b := make([]byte, size+1)
	for len(p.missing) > 0 {
		if ctx.Err() != nil {
			return p.refuse()
		}
		if err := p.conn.SetReadDeadline(until); err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		n, from, err := p.conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		// An ICMP error of a neighbour that does not listen yet comes out here.
		if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("read answer to probe: %w", err)
		}
		if err == nil && from.Port() == p.port && bytes.Equal(b[:n], p.packet(answer)) {
			delete(p.missing, from.Addr().Unmap())
		}
	}
	return nil
}

func (p *prober) refuse() error {
	var names []string
	for _, n := range p.missing {
		names = append(names, n.Node)
	}
	return enclave.Refuse(CodeUnreachable, enclave.FaultService, "no answer through the tunnel from %v after %s", names, time.Since(p.start).Round(time.Millisecond))
}

// listen opens a UDP socket of both families that is bound to a device.
func listen(ctx context.Context, device string, at netip.AddrPort, mark uint32) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		control := raw.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0))
		})
		return errors.Join(control, err)
	}}
	c, err := lc.ListenPacket(ctx, "udp", at.String())
	if err != nil {
		return nil, fmt.Errorf("open probe socket on %s: %w", device, err)
	}
	return c.(*net.UDPConn), nil //nolint:forcetypeassert // "udp" gives no other
}
