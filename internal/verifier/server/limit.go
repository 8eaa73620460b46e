package server

import (
	"log"
	"maps"
	"net"
	"net/netip"
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
	maxPerNetwork = 4096
	maxTogether   = 40_000 // two of each node of the largest job, and people
	maxPerNode    = 32     // announcements that one node has read at a time, of jobs that share it
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

// busy counts the announcements of each node that are read, or wait for it.
type busy struct {
	mu sync.Mutex
	n  map[string]int
}

func (b *busy) enter(node string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.n[node] >= maxPerNode {
		return false
	}
	b.n[node]++
	return true
}

func (b *busy) leave(node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.n[node]--; b.n[node] <= 0 {
		delete(b.n, node)
	}
}

// wide is the network of an IPv6 address: one host has all of it to call from.
func wide(host string) string {
	a, err := netip.ParseAddr(host)
	if err != nil || a.Unmap().Is4() {
		return host
	}
	return netip.PrefixFrom(a.WithZone(""), 64).Masked().String()
}

// limited accepts at most maxPerSource connections of one address at a time, maxPerNetwork of one IPv6
// network besides those of the inventory's nodes, which may all be in one, and maxTogether of all, so that
// a stranger can't hold all the process may have.
type limited struct {
	net.Listener
	known func(host string) bool
	mu    sync.Mutex
	open  map[string]int
	all   int
}

func limit(l net.Listener, known func(host string) bool) net.Listener {
	return &limited{Listener: l, known: known, open: map[string]int{}}
}

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

// network is what else an address is counted under, or nothing.
func (l *limited) network(host string) string {
	if w := wide(host); w != host && !l.known(host) {
		return w
	}
	return ""
}

func (l *limited) enter(host string) bool {
	network := l.network(host)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxTogether || l.open[host] >= maxPerSource || (network != "" && l.open[network] >= maxPerNetwork) {
		return false
	}
	l.all++
	l.open[host]++
	if network != "" {
		l.open[network]++
	}
	return true
}

func (l *limited) exit(host string) {
	network := l.network(host)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	for _, k := range []string{host, network} {
		if k == "" {
			continue
		}
		if l.open[k]--; l.open[k] <= 0 {
			delete(l.open, k)
		}
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
