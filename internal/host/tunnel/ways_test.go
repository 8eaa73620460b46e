package tunnel_test

import (
	"bufio"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/unix"

	"github.com/slurm-enclave/slurm-enclave/internal/host/nettest"
	"github.com/slurm-enclave/slurm-enclave/internal/host/tunnel"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
)

// player is what a copy of the test program does for BenchmarkWays, in a node of its own: hold one
// end of a tunnel, or be one end of a measurement.
type player struct {
	Hold    *holding
	Measure string // ping, stream
	Serve   bool
	Address string // host:port
}

// holding is one end of a WireGuard tunnel, and how its process runs.
type holding struct {
	Key, Peer, Endpoint string
	Port                int
	Own, Other          string // inner addresses
	Way                 way
}

// way is one way to carry packets between two nodes.
type way struct {
	Name       string
	OpenVPN    bool
	WireGuard  bool
	Processors int    // GOMAXPROCS
	Bind, Card bool   // ours; else wireguard-go's
	Pace       bool   // as the keeper does: Processors is the most
	Realtime   bool   // SCHED_RR
	GC         int    // percent; 0 is Go's default
	Profile    string // file
}

const playerEnv = "TUNNEL_TEST_PLAYER"

func playWay() {
	spec := os.Getenv(playerEnv)
	if spec == "" {
		return
	}
	var p player
	err := json.Unmarshal([]byte(spec), &p)
	switch {
	case err != nil:
	case p.Hold != nil:
		err = p.Hold.play()
	case p.Measure == "ping":
		err = p.ping()
	default:
		err = p.stream()
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (h *holding) play() error {
	runtime.GOMAXPROCS(h.Way.Processors)
	if h.Way.GC != 0 {
		debug.SetGCPercent(h.Way.GC)
	}
	if h.Way.Realtime {
		if err := realtime(); err != nil {
			return err
		}
	}
	d, err := tunnel.OpenStandard("way0", 1420, !h.Way.Bind, !h.Way.Card)
	if err != nil {
		return err
	}
	c, err := net.Dial("unix", "/var/run/wireguard/way0.sock")
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(c, "set=1\nprivate_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s\nallowed_ip=%s/32\n\n", h.Key, h.Port, h.Peer, h.Endpoint, h.Other)
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || answer != "errno=0\n" {
		return fmt.Errorf("configure: %s: %w", answer, err)
	}
	l, err := netlink.LinkByName("way0")
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(h.Own + "/24")
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l)); err != nil {
		return err
	}
	if h.Way.Pace {
		go tunnel.Pace(d.Done(), h.Way.Processors)
	}
	if h.Way.Profile != "" {
		f, err := os.OpenFile(h.Way.Profile, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark lets go
	return d.Close()
}

func realtime() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}, 0); err != nil {
			return err
		}
	}
	return nil
}

// pingTime bounds one measurement of the latency, streamTime that of the bandwidth.
const (
	pingRounds = 3000
	pingTime   = 700 * time.Millisecond
	streamTime = 1500 * time.Millisecond
)

// ping sends 8 bytes to and fro over TCP, as MPI does: it looks for the answer again and again, and
// lets others run between two looks.
func (p *player) ping() error {
	fd, err := p.connect()
	if err != nil {
		return err
	}
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	b := make([]byte, 8)
	if p.Serve {
		for {
			if err := errors.Join(whole(fd, b), second(unix.Write(fd, b))); errors.Is(err, io.EOF) {
				return nil // the other end has what it wants
			} else if err != nil {
				return err
			}
		}
	}
	var times []time.Duration
	for begin := time.Now(); len(times) < pingRounds && time.Since(begin) < pingTime; {
		start := time.Now()
		if _, err := unix.Write(fd, b); err != nil {
			return err
		}
		if err := whole(fd, b); err != nil {
			return err
		}
		times = append(times, time.Since(start)/2)
	}
	times = times[min(20, len(times)/2):]
	slices.Sort(times)
	fmt.Println(times[len(times)/2].Nanoseconds(), times[len(times)/10].Nanoseconds())
	return nil
}

func second(_ int, err error) error { return err }

func whole(fd int, b []byte) error {
	for n := 0; n < len(b); {
		m, err := unix.Read(fd, b[n:])
		switch {
		case errors.Is(err, unix.EAGAIN):
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		case err != nil:
			return err
		case m == 0:
			return io.EOF
		}
		n += max(m, 0)
	}
	return nil
}

func (p *player) connect() (int, error) {
	to, err := netip.ParseAddrPort(p.Address)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return 0, err
	}
	address := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	if p.Serve {
		if err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, address), unix.Listen(fd, 1)); err != nil {
			return 0, err
		}
		fmt.Println("ready")
		if fd, _, err = unix.Accept(fd); err != nil {
			return 0, err
		}
	} else if err := unix.Connect(fd, address); err != nil {
		return 0, err
	}
	return fd, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

// stream sends for a while; the server says how many bits came in how many seconds.
func (p *player) stream() error {
	fd, err := p.connect()
	if err != nil {
		return err
	}
	b := make([]byte, 128<<10)
	start := time.Now()
	if p.Serve {
		bytes := 0
		for {
			n, err := unix.Read(fd, b)
			if err != nil || n == 0 {
				fmt.Println(bytes, time.Since(start).Nanoseconds())
				return err
			}
			bytes += n
		}
	}
	for time.Since(start) < streamTime {
		if _, err := unix.Write(fd, b); err != nil {
			return err
		}
	}
	return unix.Close(fd)
}

// child is a player that runs.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

func play(tb testing.TB, n *nettest.Node, p player) *child {
	tb.Helper()
	spec, err := json.Marshal(p)
	require.NoError(tb, err)
	c := &child{cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), playerEnv+"="+string(spec))
	c.stdin, err = c.cmd.StdinPipe()
	require.NoError(tb, err)
	out, err := c.cmd.StdoutPipe()
	require.NoError(tb, err)
	c.cmd.Stderr = os.Stderr
	c.lines = bufio.NewScanner(out)
	require.NoError(tb, n.Start(c.cmd))
	return c
}

func (c *child) line(tb testing.TB) []string {
	tb.Helper()
	require.True(tb, c.lines.Scan(), "the player said nothing")
	return strings.Fields(c.lines.Text())
}

func (c *child) end() {
	_ = c.stdin.Close()
	_ = c.cmd.Wait()
}

// figures of one way in one repetition.
type figures struct{ us, best, gbps, cpu float64 }

// tunnelOf brings a way up between two nodes; the address is the second one's.
func tunnelOf(tb testing.TB, w way, n [2]*nettest.Node) (address string, pids []int, down func()) {
	tb.Helper()
	if w.OpenVPN {
		return openVPN(tb, n)
	}
	if !w.WireGuard {
		return "10.79.0.2", nil, func() {}
	}
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		var err error
		keys[i], err = ecdh.X25519().GenerateKey(rand.Reader)
		require.NoError(tb, err)
	}
	var ends [2]*child
	for i := range n {
		o := 1 - i
		h := &holding{
			Key: hex.EncodeToString(keys[i].Bytes()), Peer: hex.EncodeToString(keys[o].PublicKey().Bytes()), Port: 51820,
			Endpoint: fmt.Sprintf("10.79.0.%d:51820", o+1), Own: fmt.Sprintf("10.80.0.%d", i+1), Other: fmt.Sprintf("10.80.0.%d", o+1), Way: w,
		}
		if i == 1 {
			h.Way.Profile = ""
		}
		ends[i] = play(tb, n[i], player{Hold: h})
	}
	for _, e := range ends {
		require.Equal(tb, []string{"ready"}, e.line(tb))
		pids = append(pids, e.cmd.Process.Pid)
	}
	return "10.80.0.2", pids, func() { ends[0].end(); ends[1].end() }
}

func ticks(tb testing.TB, pids []int) (sum float64) {
	tb.Helper()
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		require.NoError(tb, err)
		_, rest, _ := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		user, _ := strconv.ParseFloat(f[11], 64)
		system, _ := strconv.ParseFloat(f[12], 64)
		sum += user + system
	}
	return sum
}

func number(tb testing.TB, s string) float64 {
	tb.Helper()
	v, err := strconv.ParseFloat(s, 64)
	require.NoError(tb, err)
	return v
}

func walk(tb testing.TB, w way, n [2]*nettest.Node) (f figures) {
	tb.Helper()
	address, pids, down := tunnelOf(tb, w, n)
	defer down()
	pair := func(measure string, port int) (client, server *child) {
		at := fmt.Sprintf("%s:%d", address, port)
		server = play(tb, n[1], player{Measure: measure, Serve: true, Address: at})
		require.Equal(tb, []string{"ready"}, server.line(tb))
		return play(tb, n[0], player{Measure: measure, Address: at}), server
	}
	client, server := pair("ping", 7001)
	line := client.line(tb)
	require.Len(tb, line, 2, "%v", line)
	f.us, f.best = number(tb, line[0])/1000, number(tb, line[1])/1000
	client.end()
	server.end()
	before := ticks(tb, pids)
	client, server = pair("stream", 7002)
	line = server.line(tb)
	require.Len(tb, line, 2, "%v", line)
	client.end()
	server.end()
	bytes, ns := number(tb, line[0]), number(tb, line[1])
	f.gbps = bytes * 8 / ns
	f.cpu = (ticks(tb, pids) - before) / 100 / (bytes / 1e9)
	return f
}

// BenchmarkWays compares ways to carry packets between two nodes on one machine. It ignores b.N: each
// repetition walks all ways once, and medians are printed. WAYS_REPEAT is the number of
// repetitions, WAYS a list of names. The way profile runs only when it is named there, and writes what
// the sender's end of the tunnel did, in pprof's format, to WAYS_PROFILE, an absolute path.
func BenchmarkWays(b *testing.B) {
	repeat, _ := strconv.Atoi(os.Getenv("WAYS_REPEAT"))
	repeat = max(repeat, 1)
	var chosen []way
	for _, w := range ways() {
		if _, err := exec.LookPath("openvpn"); w.OpenVPN && err != nil {
			fmt.Println("openvpn is not here: package openvpn")
			continue
		}
		if only := os.Getenv("WAYS"); only == "" && w.Name != "profile" || slices.Contains(strings.Split(only, ","), w.Name) {
			chosen = append(chosen, w)
		}
	}
	sw := nettest.New(b, "sw")
	n := [2]*nettest.Node{nettest.New(b, "w1"), nettest.New(b, "w2")}
	n[0].Join(sw, 1500, "10.79.0.1/24")
	n[1].Join(sw, 1500, "10.79.0.2/24")
	all := map[string][]figures{}
	for range repeat {
		for _, w := range chosen {
			all[w.Name] = append(all[w.Name], walk(b, w, n))
		}
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "way\t8 B us (median)\tbest tenth\tGbit/s\tCPU s/GB")
	for _, w := range chosen {
		of := func(f func(figures) float64) float64 {
			var v []float64
			for _, one := range all[w.Name] {
				v = append(v, f(one))
			}
			slices.Sort(v)
			return v[len(v)/2]
		}
		_, _ = fmt.Fprintf(out, "%s\t%.1f\t%.1f\t%.2f\t%.2f\n", w.Name, of(func(f figures) float64 { return f.us }), of(func(f figures) float64 { return f.best }),
			of(func(f figures) float64 { return f.gbps }), of(func(f figures) float64 { return f.cpu }))
	}
	require.NoError(b, out.Flush())
}

func ways() []way {
	all := runtime.NumCPU()
	return []way{
		{Name: "plain"},
		{Name: "openvpn", OpenVPN: true},
		{Name: "wireguard-go", WireGuard: true, Processors: all},
		{Name: "one-processor", WireGuard: true, Processors: 1},
		{Name: "no-collection", WireGuard: true, Processors: 1, GC: -1},
		{Name: "realtime", WireGuard: true, Processors: 1, Realtime: true},
		{Name: "bind", WireGuard: true, Processors: 1, Bind: true},
		{Name: "card", WireGuard: true, Processors: 1, Card: true},
		{Name: "both", WireGuard: true, Processors: 1, Bind: true, Card: true},
		{Name: "both-all", WireGuard: true, Processors: all, Bind: true, Card: true},
		{Name: "both-paced", WireGuard: true, Processors: keeper.Processors(all), Bind: true, Card: true, Pace: true}, // as on this node
		{Name: "both-realtime", WireGuard: true, Processors: 1, Bind: true, Card: true, Realtime: true},
		{Name: "profile", WireGuard: true, Processors: 1, Bind: true, Card: true, Profile: os.Getenv("WAYS_PROFILE")},
	}
}

// BenchmarkSeal is the roof over all userspace ways: one processor that does nothing but seal
// packets of the tunnel's size.
func BenchmarkSeal(b *testing.B) {
	aead, err := chacha20poly1305.New(make([]byte, chacha20poly1305.KeySize))
	require.NoError(b, err)
	packet, nonce := make([]byte, 1420, 1500), make([]byte, chacha20poly1305.NonceSize)
	b.SetBytes(int64(len(packet)))
	for b.Loop() {
		aead.Seal(packet[:0], nonce, packet, nil)
	}
}
