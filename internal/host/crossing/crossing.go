// Package crossing keeps one of two WireGuard handshakes that cross on their way.
//
// When both ends of a tunnel begin a handshake in the same moment, each forgets its own when it
// answers the other's: neither answer finds the handshake that it answers, and both ends wait five
// seconds until they try again. Ranks that compute for more than three minutes and then all speak
// at once meet this with every peer.
//
// A Bind of this package stands between WireGuard and the sockets and looks at the kinds of messages,
// at nothing inside them but the ephemeral key that a handshake begins with. Of two that cross,
// both ends see both beginnings, and that with the lower key goes on. Its sender holds the other one
// back until its own is answered, or until it has become unlikely that it will be. What is held is
// given on afterwards: a message waits, and none is lost that WireGuard needs.
package crossing

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// Hold is how long a beginning waits for an answer: many round trips of a network between nodes,
// and little beside the five seconds.
const Hold = 200 * time.Millisecond

// WireGuard's messages, protocol version 1.
const (
	kindBegin  = 1
	kindAnswer = 2

	sizeBegin   = 148
	sizeAnswer  = 92
	ephemeralAt = 8
	keySize     = 32
)

// Bind wraps a bind. It is safe for several goroutines, as that one is.
type Bind struct {
	conn.Bind

	mu    sync.Mutex
	pairs map[string]*pair // by the peer's address, as WireGuard was told it
	back  chan held        // beginnings of others that were held long enough; nil when closed
	shut  chan struct{}
}

// pair is what is under way with one peer.
type pair struct {
	begun     time.Time     // when this end began a handshake that is not answered yet
	ephemeral [keySize]byte // its key
	theirs    *time.Timer   // the other end's beginning, which is held

	came time.Time   // when WireGuard got the other end's beginning, which it has not answered yet
	ours *time.Timer // this end's beginning, which is held
}

type held struct {
	message [sizeBegin]byte
	from    conn.Endpoint
}

// Wrap puts a Bind around another one.
func Wrap(b conn.Bind) *Bind { return &Bind{Bind: b, pairs: map[string]*pair{}} }

// ParseEndpoint implements conn.Bind. WireGuard is told of its peers by this: nobody else's
// messages are kept in mind, however many there are.
func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	e, err := b.Bind.ParseEndpoint(s)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if address := e.DstToString(); b.pairs[address] == nil {
		b.pairs[address] = &pair{}
	}
	return e, nil
}

// Open implements conn.Bind. The last function gives on what was held.
func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	list, actual, err := b.Bind.Open(port)
	if err != nil {
		return nil, 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	back, shut := make(chan held), make(chan struct{})
	b.back, b.shut = back, shut
	for i, receive := range list {
		list[i] = func(packets [][]byte, sizes []int, from []conn.Endpoint) (int, error) {
			n, err := receive(packets, sizes, from)
			for j := range n {
				if m := packets[j][:sizes[j]]; isHandshake(m) && b.received(m, from[j]) {
					sizes[j] = 0 // WireGuard passes over it
				}
			}
			return n, err
		}
	}
	return append(list, func(packets [][]byte, sizes []int, from []conn.Endpoint) (int, error) {
		select {
		case h := <-back:
			sizes[0], from[0] = copy(packets[0], h.message[:]), h.from
			return 1, nil
		case <-shut:
			return 0, net.ErrClosed
		}
	}), actual, nil
}

// Close implements conn.Bind.
func (b *Bind) Close() error {
	b.mu.Lock()
	if b.shut != nil {
		close(b.shut)
		b.back, b.shut = nil, nil
	}
	for _, p := range b.pairs {
		p.answered()
		p.gaveAnswer()
	}
	b.mu.Unlock()
	return b.Bind.Close()
}

// Send implements conn.Bind. WireGuard sends its handshakes one by one.
func (b *Bind) Send(list [][]byte, to conn.Endpoint) error {
	if len(list) == 1 && isHandshake(list[0]) && b.sending(list[0], to) {
		return nil
	}
	return b.Bind.Send(list, to)
}

func isHandshake(m []byte) bool {
	return len(m) == sizeBegin && binary.LittleEndian.Uint32(m) == kindBegin ||
		len(m) == sizeAnswer && binary.LittleEndian.Uint32(m) == kindAnswer
}

// received says of a message that came in whether it is to wait.
func (b *Bind) received(m []byte, from conn.Endpoint) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pairs[from.DstToString()]
	if p == nil {
		return false
	}
	if m[0] == kindAnswer { // whose sender has given up what it began itself
		p.answered()
		return false
	}
	left := Hold - time.Since(p.begun)
	if left > 0 && bytes.Compare(p.ephemeral[:], m[ephemeralAt:ephemeralAt+keySize]) < 0 {
		b.holdTheirs(p, m, from, left)
		return true
	}
	p.came = time.Now()
	return false
}

// holdTheirs forgets what was held before: of two beginnings the later one counts.
func (b *Bind) holdTheirs(p *pair, m []byte, from conn.Endpoint, left time.Duration) {
	h := held{from: from}
	copy(h.message[:], m)
	back, shut := b.back, b.shut
	stop(&p.theirs)
	p.theirs = time.AfterFunc(left, func() {
		b.mu.Lock()
		p.begun, p.came = time.Time{}, time.Now()
		b.mu.Unlock()
		select {
		case back <- h:
		case <-shut:
		}
	})
}

// sending says of a message that goes out whether it is to wait: a beginning does while the other
// end's lies with WireGuard, which will most likely answer that one and so forget its own.
func (b *Bind) sending(m []byte, to conn.Endpoint) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pairs[to.DstToString()]
	if p == nil {
		return false
	}
	if m[0] == kindAnswer {
		p.gaveAnswer()
		return false
	}
	if left := Hold - time.Since(p.came); left > 0 {
		b.holdOurs(p, bytes.Clone(m), to.DstToString(), left)
		return true
	}
	p.begin(m)
	return false
}

func (b *Bind) holdOurs(p *pair, m []byte, to string, left time.Duration) {
	stop(&p.ours)
	p.ours = time.AfterFunc(left, func() {
		b.mu.Lock()
		if b.shut == nil || p.ours == nil {
			b.mu.Unlock()
			return
		}
		p.ours, p.came = nil, time.Time{}
		p.begin(m)
		b.mu.Unlock()
		if e, err := b.Bind.ParseEndpoint(to); err == nil {
			_ = b.Bind.Send([][]byte{m}, e) // one that is lost is tried again by WireGuard
		}
	})
}

func (p *pair) begin(m []byte) {
	stop(&p.theirs)
	p.begun = time.Now()
	copy(p.ephemeral[:], m[ephemeralAt:])
}

// answered: the other end has answered this one's beginning.
func (p *pair) answered() {
	stop(&p.theirs)
	p.begun = time.Time{}
}

// gaveAnswer: this end has answered the other's.
func (p *pair) gaveAnswer() {
	stop(&p.ours)
	p.came = time.Time{}
}

func stop(t **time.Timer) {
	if *t != nil {
		(*t).Stop()
		*t = nil
	}
}
