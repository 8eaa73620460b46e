package crossing_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"github.com/slurm-enclave/slurm-enclave/internal/host/crossing"
)

// kept holds on to all peers: wireguard-go has their queues emptied when they are collected, and
// nobody outside of a bubble may touch its channels.
var kept []*device.Peer

// latency of the test's network, one way.
const latency = time.Millisecond

// ether is a network between WireGuard devices. With the clock of a bubble it is exact.
type ether struct {
	mu    sync.Mutex
	ports map[string]*port
	lose  func(from, to string, message []byte) bool
	sent  map[byte]int // messages by kind
}

// count is how many messages of a kind were sent.
func (e *ether) count(kind byte) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sent[kind]
}

// port is a device's place on the network, and a conn.Bind.
type port struct {
	net  *ether
	own  end
	in   chan delivery
	shut chan struct{}
}

type delivery struct {
	message []byte
	from    end
}

type end netip.AddrPort

func (e end) ClearSrc()           {}
func (e end) SrcToString() string { return "" }
func (e end) DstToString() string { return netip.AddrPort(e).String() }
func (e end) DstToBytes() []byte  { b, _ := netip.AddrPort(e).MarshalBinary(); return b }
func (e end) DstIP() netip.Addr   { return netip.AddrPort(e).Addr() }
func (e end) SrcIP() netip.Addr   { return netip.Addr{} }

func (p *port) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	p.shut = make(chan struct{})
	shut := p.shut
	return []conn.ReceiveFunc{func(packets [][]byte, sizes []int, from []conn.Endpoint) (int, error) {
		select {
		case d := <-p.in:
			sizes[0], from[0] = copy(packets[0], d.message), d.from
			return 1, nil
		case <-shut:
			return 0, net.ErrClosed
		}
	}}, 51820, nil
}

func (p *port) Close() error {
	if p.shut != nil {
		close(p.shut)
		p.shut = nil
	}
	return nil
}

func (p *port) SetMark(uint32) error { return nil }
func (p *port) BatchSize() int       { return 1 }
func (p *port) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	return end(a), err
}

func (p *port) Send(list [][]byte, to conn.Endpoint) error {
	for _, m := range list {
		p.net.mu.Lock()
		p.net.sent[m[0]]++
		lost := p.net.lose != nil && p.net.lose(p.own.DstToString(), to.DstToString(), m)
		other := p.net.ports[to.DstToString()]
		p.net.mu.Unlock()
		if lost || other == nil {
			continue
		}
		d := delivery{append([]byte{}, m...), p.own}
		time.AfterFunc(latency, func() { other.in <- d })
	}
	return nil
}

// peer is one device and what it holds.
type peer struct {
	n       int
	key     *ecdh.PrivateKey
	port    *port
	tun     *tuntest.ChannelTUN
	device  *device.Device
	arrived chan int // who sent
}

func (p *peer) address() string { return fmt.Sprintf("10.0.%d.%d", p.n/250, 1+p.n%250) }

// mesh makes n devices that all know each other. Wrapped ones keep one of two crossed handshakes.
func mesh(t *testing.T, n int, wrapped bool) (*ether, []*peer) {
	t.Helper()
	e := &ether{ports: map[string]*port{}, sent: map[byte]int{}}
	var all []*peer
	for i := range n {
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		require.NoError(t, err)
		p := &peer{n: i, key: key, tun: tuntest.NewChannelTUN(), arrived: make(chan int, 100*n)}
		own := end(netip.AddrPortFrom(netip.MustParseAddr(strings.Replace(p.address(), "10.0", "192.168", 1)), 51820))
		p.port = &port{net: e, own: own, in: make(chan delivery, 1<<14)}
		e.ports[own.DstToString()] = p.port
		var bind conn.Bind = p.port
		if wrapped {
			bind = crossing.Wrap(p.port)
		}
		p.device = device.NewDevice(p.tun.TUN(), bind, device.NewLogger(device.LogLevelSilent, ""))
		all = append(all, p)
	}
	for _, p := range all {
		config := "private_key=" + hex.EncodeToString(p.key.Bytes()) + "\nlisten_port=51820\n"
		for _, o := range all {
			if o != p {
				config += fmt.Sprintf("public_key=%s\nendpoint=%s\nallowed_ip=%s/32\n", hex.EncodeToString(o.key.PublicKey().Bytes()), o.port.own.DstToString(), o.address())
			}
		}
		require.NoError(t, p.device.IpcSet(config))
		require.NoError(t, p.device.Up())
		for _, o := range all {
			if o != p {
				kept = append(kept, p.device.LookupPeer(device.NoisePublicKey(o.key.PublicKey().Bytes())))
			}
		}
		go p.listen()
	}
	return e, all
}

func (p *peer) listen() {
	for {
		select {
		case m := <-p.tun.Inbound:
			from := netip.AddrFrom4([4]byte(m[12:16])).As4()
			p.arrived <- int(from[2])*250 + int(from[3]) - 1
		case <-p.device.Wait():
			return
		}
	}
}

// say puts a packet for another one into the tunnel.
func (p *peer) say(o *peer) {
	m := tuntest.Ping(netip.MustParseAddr(o.address()), netip.MustParseAddr(p.address()))
	binary.BigEndian.PutUint16(m[2:], uint16(len(m)))
	p.tun.Outbound <- m
}

// patience is how long a packet is waited for: of those that cross two handshakes WireGuard loses one now and then.
const patience = time.Minute

// everybody sends one packet to everybody at the same moment, and says when the last one arrived: patience
// where one never did.
func everybody(t *testing.T, all []*peer) time.Duration {
	t.Helper()
	began := time.Now()
	var tasks sync.WaitGroup
	for _, p := range all {
		tasks.Go(func() {
			for i := 1; i < len(all); i++ {
				p.say(all[(p.n+i)%len(all)])
			}
		})
		tasks.Go(func() {
			over := time.After(patience)
			for range len(all) - 1 {
				select {
				case <-p.arrived:
				case <-over:
					return
				}
			}
		})
	}
	tasks.Wait()
	return time.Since(began)
}

func shut(all []*peer) {
	for _, p := range all {
		p.device.Close()
	}
}
