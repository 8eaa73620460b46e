package keeper_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/fence/fencetest"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh/meshtest"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// scene is a node of three with its keeper, and a verifier that does what the test wants. The
// node's clock is the bubble's, from an arbitrary moment after boot.
type scene struct {
	t      testing.TB
	c      keeper.Config
	keys   attest.Keys
	net    *meshtest.Host
	filter *fencetest.Host
	walls  keeper.Walls
	change chan struct{}
	tunnel *tunnel
	booted time.Time
	settle error
	open   error
	busy   error // of the attester

	key     ed25519.PrivateKey
	mu      sync.Mutex
	log     []string // what the verifier was asked
	nonces  map[enclave.Nonce]bool
	err     error // the answer to every call
	refuse  error // the answer to renewals
	life    uint32
	stuck   []any // what the next looks find: a number of things ended, or an error; 0 afterwards
	looks   []time.Duration
	news    chan func(api.WatchRequest) (api.WatchAnswer, error)
	renewed []time.Duration // moments of the node's clock
	claims  []api.Announcement
}

type (
	request = api.WatchRequest
	answer  = api.WatchAnswer
)

const upSince = 1000 * time.Second

func newScene(t testing.TB) *scene {
	t.Helper()
	s := &scene{t: t, net: &meshtest.Host{}, filter: &fencetest.Host{}, change: make(chan struct{}, 1), booted: time.Now().Add(-upSince), nonces: map[enclave.Nonce]bool{}, life: 60}
	s.news = make(chan func(api.WatchRequest) (api.WatchAnswer, error), 8)
	var err error
	s.keys, err = attest.NewKeys()
	require.NoError(t, err)
	_, s.key, err = ed25519.GenerateKey(nil)
	require.NoError(t, err)
	top := t.TempDir()
	dir, g := filepath.Join(top, "4711.0"), gate.Directory{Path: filepath.Join(top, "gate"), Owner: uint32(os.Geteuid())}
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Mkdir(g.Path, 0o700))
	secret, err := s.keys.Secret()
	require.NoError(t, err)
	s.c = keeper.Config{
		Key: enclave.JobKey{Cluster: "c", Job: 4711}, Node: "n1", Device: "enc4711", MTU: 1420, Userspace: true, Directory: dir, Gate: g,
		Expires: 1000 + 86400, Verifier: "10.0.0.254:6830", Pin: enclave.Digest{1}, Epoch: 1, Keys: secret,
	}
	for i := range byte(3) {
		key := enclave.PublicKey{9, i}
		if i == 0 {
			key = s.keys.Public().WireGuard
		}
		a := netip.AddrFrom4([4]byte{10, 0, 0, i + 1})
		s.c.Peers = append(s.c.Peers, enclave.Peer{Node: fmt.Sprintf("n%d", i+1), Addresses: []netip.Addr{a}, Endpoint: netip.AddrPortFrom(a, 51820), Key: key})
	}
	s.tunnel = &tunnel{done: make(chan struct{}), scene: s}
	return s
}

func (s *scene) goFile() string { return filepath.Join(s.c.Gate.Path, "4711.go") }

// expires is the end that GO says, in seconds of the node's clock; 0 when there is no GO.
func (s *scene) expires() time.Duration {
	b, err := os.ReadFile(s.goFile())
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	require.NoError(s.t, err)
	var g gate.Go
	require.NoError(s.t, g.UnmarshalText(b))
	return time.Duration(g.Expires) * time.Second
}

// grant stores GO as the prolog does and gives its word.
func (s *scene) grant(renew uint32) keeper.Grant {
	g := gate.Go{Job: 4711, Boot: "01234567-89ab-cdef-0123-456789abcdef", Expires: uint64(s.Now()/time.Second) + uint64(s.life)}
	require.NoError(s.t, s.c.Gate.WriteGo(g))
	return keeper.Grant{Go: g, Lifetime: s.life, Renew: renew, Walls: s.walls}
}

// run starts the keeper; GO is granted when renew is not 0.
func (s *scene) run(ctx context.Context, renew uint32) <-chan error {
	s.lay()
	quiet := logrus.New()
	quiet.SetOutput(writer(func(b []byte) { s.note("log %s", strings.TrimSpace(string(b))) }))
	quiet.SetFormatter(&logrus.TextFormatter{DisableColors: true, DisableTimestamp: true})
	p := keeper.Parts{
		Host: s, Verifier: s, Attester: s, Mesh: s.net.Kernel(), Log: logrus.NewEntry(quiet), Fence: s.filter, Stuck: s, Changes: s.changes,
		Granted: func(context.Context) (keeper.Grant, error) {
			if renew == 0 {
				return keeper.Grant{}, errors.New("the prolog ended")
			}
			return s.grant(renew), nil
		},
	}
	done := make(chan error, 1)
	go func() { done <- keeper.Run(ctx, p, s.c, func(err error) error { return err }) }()
	return done
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

// lay is mesh and fence as the prolog left them.
func (s *scene) lay() {
	ctx := context.Background()
	driver := mesh.DriverKernel
	if s.c.Userspace {
		driver = mesh.DriverKeeper
		s.net.Keeper(s.c.Device)
	}
	s.net.KernelWireGuard = !s.c.Userspace
	var peers []mesh.Peer
	for _, p := range s.c.Peers[1:] {
		peers = append(peers, mesh.Peer{Peer: p, PSK: enclave.NewSecret(make([]byte, 32))})
	}
	d, err := mesh.Plan(mesh.Input{
		Key: s.c.Key, UID: 2001, Own: s.c.Peers[0], Peers: peers, PrivateKey: enclave.NewSecret(slices.Clone(s.keys.WireGuard().Bytes())),
		ListenPort: 51820, SlurmdPort: 6818, MTU: 1420, Driver: driver,
	})
	require.NoError(s.t, err)
	require.NoError(s.t, mesh.Up(ctx, s.net.Kernel(), d))
	in := fencetest.Input()
	in.Key, in.Device = s.c.Key, s.c.Device
	job, err := fence.Plan(in)
	require.NoError(s.t, err)
	closed, err := fence.Closed(1000, nil, fence.Streams{})
	require.NoError(s.t, err)
	require.NoError(s.t, fence.Up(ctx, s.filter, job))
	s.walls = keeper.Walls{Mesh: d.Held(), Fence: job, Closed: closed}
}

// peers are the nodes that the tunnel holds, each with its pre-shared key.
func (s *scene) peers() map[string]string {
	state, err := s.net.State(context.Background(), s.c.Device)
	require.NoError(s.t, err)
	out := map[string]string{}
	for _, p := range state.Peers {
		for _, x := range s.c.Peers {
			if x.Key == p.Key {
				out[x.Node] = string(p.PSK.Bytes())
			}
		}
	}
	return out
}

func (s *scene) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

func (s *scene) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.log, "\n")
}

// set changes what the verifier answers.
func (s *scene) set(err, refuse error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.refuse = err, refuse
}

// Settle is keeper.Host's.
func (s *scene) Settle(keeper.Config) error { return s.settle }

// Open is keeper.Host's.
func (s *scene) Open(string, int) (keeper.Tunnel, error) { return s.tunnel, s.open }

// Now is keeper.Host's.
func (s *scene) Now() time.Duration { return time.Since(s.booted) }

// Wait is keeper.Host's.
func (s *scene) Wait(ctx context.Context, until time.Duration) error {
	t := time.NewTimer(until - s.Now())
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Evidence is keeper.Attester's.
func (s *scene) Evidence(_ context.Context, data [64]byte) (enclave.Evidence, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return enclave.Evidence{Report: data[:], Provider: "sev_guest"}, s.busy
}

// Key is keeper.Verifier's.
func (s *scene) Key() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// Nonce is keeper.Verifier's.
func (s *scene) Nonce(_ context.Context, r api.NonceRequest) (api.NonceAnswer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return api.NonceAnswer{}, s.err
	}
	require.Equal(s.t, api.NonceRequest{Job: s.c.Key, Node: "n1", Purpose: claim.PurposeRenew}, r)
	n := enclave.Nonce{byte(len(s.nonces)), 1}
	s.nonces[n] = true
	return api.NonceAnswer{Nonce: n, Seconds: 60, Epoch: 1, Policy: enclave.Digest{7}}, nil
}

// Renew is keeper.Verifier's.
func (s *scene) Renew(_ context.Context, a api.Announcement) (api.RenewAnswer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return api.RenewAnswer{}, s.err
	case s.refuse != nil:
		return api.RenewAnswer{}, s.refuse
	case !s.nonces[a.Nonce]:
		return api.RenewAnswer{}, enclave.Refuse("E126", enclave.FaultService, "used nonce")
	}
	delete(s.nonces, a.Nonce)
	s.nonces[enclave.Nonce{a.Nonce[0], 2}] = false // keeps the count growing
	require.NoError(s.t, a.CheckSignature())
	s.renewed, s.claims = append(s.renewed, s.Now()), append(s.claims, a)
	return api.RenewAnswer{Lifetime: s.life, Renew: 10}, nil
}

// Watch is keeper.Verifier's.
func (s *scene) Watch(ctx context.Context, r api.WatchRequest) (api.WatchAnswer, error) {
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	if err != nil {
		return api.WatchAnswer{}, err
	}
	hold := time.NewTimer(api.WatchSeconds * time.Second)
	defer hold.Stop()
	select {
	case f := <-s.news:
		return f(r)
	case <-hold.C:
		return api.WatchAnswer{}, nil
	case <-ctx.Done():
		return api.WatchAnswer{}, ctx.Err()
	}
}

// without makes the answer of the next epoch, as the verifier does. spoil may change what is signed.
func (s *scene) without(gone string, spoil func(*enclave.RosterHeader, *roster.Answer)) func(api.WatchRequest) (api.WatchAnswer, error) {
	return func(w api.WatchRequest) (api.WatchAnswer, error) {
		peers := slices.DeleteFunc(slices.Clone(s.c.Peers), func(p enclave.Peer) bool { return p.Node == gone })
		leaves, err := roster.Digests(peers)
		require.NoError(s.t, err)
		h := enclave.RosterHeader{JobKey: s.c.Key, Epoch: w.Epoch + 1, Size: uint32(len(leaves)), Root: roster.Root(leaves), Lifetime: 60}
		if spoil != nil {
			spoil(&h, nil)
		}
		signed, err := roster.Sign(s.key, h)
		require.NoError(s.t, err)
		p := s.keys.Public()
		sealed, err := roster.SealSeed(roster.NewSeed(), signed.Digest(), "n1", p.HPKE)
		require.NoError(s.t, err)
		path, err := roster.NewTree(leaves).Prove(0)
		require.NoError(s.t, err)
		a := &roster.Answer{
			Roster: signed, Leaf: peers[0], Path: path, Nonce: w.Nonce, Seed: sealed,
			Keys: enclave.NodeKeys{WireGuard: p.WireGuard, Ed25519: p.Ed25519, HPKE: p.HPKE},
		}
		if spoil != nil {
			spoil(&h, a)
		}
		a.Bind(s.key)
		return api.WatchAnswer{Gone: []string{gone}, Answer: a}, nil
	}
}

type tunnel struct {
	scene  *scene
	done   chan struct{}
	closed bool
	late   bool // the gate was still open when the tunnel was closed
}

func (f *tunnel) Done() <-chan struct{} { return f.done }

func (f *tunnel) Close() error {
	_, err := os.Stat(f.scene.goFile())
	f.closed, f.late = true, err == nil
	return nil
}
