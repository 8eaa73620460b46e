package server

import (
	"log"
	"maps"
	"net"
	"sync"

	"golang.org/x/time/rate"
)

// counters count what was turned away, by a fixed set of names.
type counters struct {
	mu sync.Mutex
	n  map[string]uint64
}

func newCounters() *counters { return &counters{n: map[string]uint64{}} }

func (c *counters) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[name]++
}

// Refused counts the calls that were turned away, by what was wrong with them.
func (s *Server) Refused() map[string]uint64 { return s.counters.all() }

func (c *counters) all() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}

// log counts what net/http would print: strangers must not fill the log.
func (c *counters) log(name string) *log.Logger { return log.New(&counting{c, name}, "", 0) }

type counting struct {
	counters *counters
	name     string
}

func (w *counting) Write(b []byte) (int, error) {
	w.counters.add(w.name)
	return len(b), nil
}

// What strangers may do: five calls a second each, fifty together. Calls with an enrolled
// certificate are not limited here: the verifier bounds what a node may hold.
const (
	strangerRate  = 5
	strangerBurst = 20
	togetherRate  = 50
	togetherBurst = 200
	maxSources    = 4096
	maxPerSource  = 64
)

// gate limits strangers per source and together. The table of sources is bounded; when it is
// full it is emptied, and the common limit still holds.
type gate struct {
	mu      sync.Mutex
	sources map[string]*rate.Limiter
	common  *rate.Limiter
}

func newGate() *gate {
	return &gate{sources: map[string]*rate.Limiter{}, common: rate.NewLimiter(togetherRate, togetherBurst)}
}

func (g *gate) allow(source string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.sources[source]
	if l == nil {
		if len(g.sources) >= maxSources {
			clear(g.sources)
		}
		l = rate.NewLimiter(strangerRate, strangerBurst)
		g.sources[source] = l
	}
	return l.Allow() && g.common.Allow()
}

// spent is true for a source that has no call left. It costs none to ask, and what others did does not count.
func (g *gate) spent(source string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.sources[source]
	return l != nil && l.Tokens() < 1
}

// limited accepts at most maxPerSource connections of one address at a time, so that a stranger
// can't hold all the process may have.
type limited struct {
	net.Listener
	mu   sync.Mutex
	open map[string]int
}

func limit(l net.Listener) net.Listener { return &limited{Listener: l, open: map[string]int{}} }

// Accept closes connections over the limit at once and waits for the next.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(c.RemoteAddr().String())
		if err != nil {
			host = c.RemoteAddr().String()
		}
		if l.enter(host) {
			return &counted{Conn: c, leave: func() { l.exit(host) }}, nil
		}
		_ = c.Close() // the stranger's loss
	}
}

func (l *limited) enter(host string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[host] >= maxPerSource {
		return false
	}
	l.open[host]++
	return true
}

func (l *limited) exit(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[host]--; l.open[host] <= 0 {
		delete(l.open, host)
	}
}

type counted struct {
	net.Conn
	once  sync.Once
	leave func()
}

// Close closes the connection and gives its place back, once.
func (c *counted) Close() error {
	c.once.Do(c.leave)
	return c.Conn.Close()
}
