package server_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/server"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/verifiertest"
)

// site is a whole controller on loopback: n1 and n2 are enrolled, n3 is in the inventory only.
type site struct {
	t         *testing.T
	v         *verifier.Verifier
	authority *pki.Authority
	ledger    *ledger.Ledger
	slurm     *verifiertest.Site
	server    *server.Server
	munge     munge
	levels    levels
	failed    failures
	address   string
	socket    string
	uid       atomic.Uint32 // of whoever calls on the Unix socket
	certs     map[string]*tls.Certificate
	nodes     map[string]*verifiertest.Node
}

type tenants struct{}

func (tenants) Lookup(string, string) (enclave.Tenant, error) {
	return enclave.Tenant{Name: "oncology", Subtree: "proj/onc"}, nil
}

// munge is a munged without secrets: "MUNGE:uid:payload", each credential once.
type munge struct {
	used    sync.Map
	ran     atomic.Int32
	at, top atomic.Int32  // how many run at a time now, and at most
	hold    chan struct{} // they end when it is closed; nil: at once
}

func (m *munge) Decode(_ context.Context, c string) (uint32, string, error) {
	m.ran.Add(1)
	now := m.at.Add(1)
	defer m.at.Add(-1)
	for top := m.top.Load(); now > top && !m.top.CompareAndSwap(top, now); top = m.top.Load() {
		continue
	}
	if m.hold != nil {
		<-m.hold
	}
	if _, again := m.used.LoadOrStore(c, true); again {
		return 0, "", errors.New("replayed credential")
	}
	var uid uint32
	rest, ok := strings.CutPrefix(c, "MUNGE:")
	head, payload, found := strings.Cut(rest, ":")
	if _, err := fmt.Sscan(head, &uid); err != nil || !ok || !found {
		return 0, "", errors.New("invalid credential")
	}
	return uid, payload, nil
}

type levels struct {
	ran    atomic.Int32
	panics atomic.Bool
}

func (l *levels) Rank(_ context.Context, uid uint32) (server.Level, []string, error) {
	l.ran.Add(1)
	if l.panics.Load() {
		panic("the test wants it")
	}
	switch uid {
	case 3000:
		return server.Administrator, nil, nil
	case 3001:
		return server.Operator, nil, nil
	case 3002:
		return server.Administrator, []string{"onc"}, errors.New("slurm is away")
	case 3003:
		return server.User, []string{"onc"}, nil
	}
	return server.User, nil, nil
}

func start(t *testing.T) *site {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	s := &site{t: t, slurm: &verifiertest.Site{}, socket: filepath.Join(t.TempDir(), "s"), certs: map[string]*tls.Certificate{}, nodes: map[string]*verifiertest.Node{}}
	s.authority, err = pki.New(key)
	require.NoError(t, err)
	s.ledger, err = ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	require.NoError(t, err)
	c := config.Default()
	c.Cluster, c.Controller.State = "c1", t.TempDir()
	var inventory config.Inventory
	for i := byte(1); i <= 3; i++ {
		a := netip.AddrFrom4([4]byte{10, 0, 0, i})
		inventory.Nodes = append(inventory.Nodes, enclave.Node{Name: fmt.Sprintf("n%d", i), Addresses: []netip.Addr{a}, Tunnel: a})
	}
	s.v, err = verifier.New(t.Context(), verifier.Settings{
		Config: c, Inventory: inventory, Key: key, Receipts: verifier.ReceiptKeys{Real: verifiertest.ReceiptKey(false), Simulated: verifiertest.ReceiptKey(true)}, Ledger: s.ledger, Site: s.slurm, Tenants: tenants{},
		Appraiser: &verifiertest.Appraiser{}, Authority: s.authority, Alarm: func(ledger.Alarm) {},
	})
	require.NoError(t, err)
	for _, n := range inventory.Nodes {
		s.nodes[n.Name], err = verifiertest.NewNode(n.Name, n.Tunnel, s.v.Public())
		require.NoError(t, err)
		if n.Name != "n3" {
			s.enrol(n.Name)
		}
	}
	s.serve()
	return s
}

func (s *site) enrol(node string) {
	s.t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(s.t, err)
	der, err := s.authority.Node(node, pub)
	require.NoError(s.t, err)
	require.NoError(s.t, s.ledger.Enrol(s.t.Context(), ledger.Enrolment{
		Node: node, Chip: verifiertest.ChipOf(node), Fingerprint: sha256.Sum256(der), Certificate: der, At: time.Now(),
	}))
	s.certs[node] = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (s *site) serve() {
	s.t.Helper()
	srv, err := server.New(server.Settings{
		Verifier: s.v, Authority: s.authority, Credentials: &s.munge, Levels: &s.levels, SlurmUID: 64030, Failed: s.failed.add,
		PeerUID: func(net.Conn) (uint32, error) { return s.uid.Load(), nil },
	})
	require.NoError(s.t, err)
	s.server = srv
	public, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(s.t, err)
	local, err := net.Listen("unix", s.socket)
	require.NoError(s.t, err)
	s.address = public.Addr().String()
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, public, local) }()
	s.t.Cleanup(func() {
		s.v.Close()
		cancel()
		assert.NoError(s.t, <-done)
		assert.NoError(s.t, s.ledger.Close())
	})
}

func (s *site) pin() enclave.Digest { return pki.KeyDigest(s.v.Public()) }

func (s *site) node(name string) *client.Client {
	c := client.New(client.Options{Address: s.address, Pin: s.pin(), Certificate: s.certs[name]})
	s.t.Cleanup(c.Close)
	return c
}

func (s *site) person(uid uint32) *client.Client {
	n := 0
	c := client.New(client.Options{Address: s.address, Pin: s.pin(), Credential: func(_ context.Context, payload string) (string, error) {
		n++
		return fmt.Sprintf("MUNGE:%d:%s", uid, payload), nil
	}})
	s.t.Cleanup(c.Close)
	return c
}

func (s *site) controller(uid uint32) *client.Client {
	s.uid.Store(uid)
	c := client.New(client.Options{Socket: s.socket})
	s.t.Cleanup(c.Close)
	return c
}

func (s *site) register(id uint32, nodes ...string) enclave.JobKey {
	s.t.Helper()
	s.slurm.Submit(id)
	j := enclave.Job{
		JobKey: enclave.JobKey{Cluster: "c1", Job: id}, UID: 2001, User: "alice", Account: "onc", Partition: "cpu-sev", Nodes: nodes,
	}
	_, err := s.controller(64030).Register(s.t.Context(), api.RegisterRequest{Job: j})
	require.NoError(s.t, err)
	return j.JobKey
}

func code(err error) string {
	if r, ok := enclave.AsRefusal(err); ok {
		return string(r.Code)
	}
	return fmt.Sprint(err)
}

func TestAJobOverTheWire(t *testing.T) {
	t.Parallel()
	s := start(t)
	k := s.register(7, "n1", "n2")
	var group sync.WaitGroup
	errs := make(chan error, 2)
	for _, name := range []string{"n1", "n2"} {
		group.Go(func() { errs <- s.run(k, name) })
	}
	group.Wait()
	require.NoError(t, <-errs)
	require.NoError(t, <-errs)
	out, err := s.controller(0).Settled(t.Context(), k)
	require.NoError(t, err)
	assert.True(t, out.Go)
	r, err := s.person(2001).Report(t.Context(), 7, nil)
	require.NoError(t, err)
	assert.Equal(t, enclave.VerdictSimulated, r.Verdict)
	assert.Equal(t, "bind", r.Storage.Backend)
	assert.Equal(t, uint64(20), r.Network.TunnelBytes)
}

// run is all that a node says in a job's life.
func (s *site) run(k enclave.JobKey, name string) error {
	ctx, c, n := s.t.Context(), s.node(name), s.nodes[name]
	nonce, err := c.Nonce(ctx, api.NonceRequest{Job: k, Node: name, Purpose: claim.PurposeJob})
	if err != nil {
		return err
	}
	n.Verifier = c.Key()
	a, err := n.Announce(k, claim.PurposeJob, nonce)
	if err != nil {
		return err
	}
	answer, err := c.Evidence(ctx, a)
	if err != nil {
		return err
	}
	h, _, err := answer.Accept(n.Expect(k, nonce.Nonce))
	if err != nil {
		return err
	}
	me := api.NodeRequest{Job: k, Node: name, Epoch: h.Epoch}
	peers, err := c.Leaves(ctx, me)
	if err != nil {
		return err
	}
	if err = roster.CheckPeers(h, peers); err != nil {
		return err
	}
	if _, err = c.Ready(ctx, api.ReadyRequest{NodeRequest: me, Storage: api.Storage{Backend: "bind"}}); err != nil {
		return err
	}
	return c.Teardown(ctx, api.TeardownRequest{NodeRequest: me, Closed: true, Network: api.Network{TunnelBytes: 10}})
}

func TestStrangersChangeNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	k := s.register(7, "n1")
	_, foreignKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	foreign, err := pki.New(foreignKey)
	require.NoError(t, err)
	selfSigned, err := foreign.Node("n1", foreignKey.Public().(ed25519.PublicKey))
	require.NoError(t, err)
	unapproved, err := s.authority.Node("n1", foreignKey.Public().(ed25519.PublicKey))
	require.NoError(t, err)
	call := func(cert *tls.Certificate) error {
		c := client.New(client.Options{Address: s.address, Pin: s.pin(), Certificate: cert})
		defer c.Close()
		_, told := c.Broken(t.Context(), api.NodeRequest{Job: k, Node: "n1", Epoch: 1}, enclave.Refusal{Code: "E210", Fault: enclave.FaultNode, Reason: "x"})
		return told
	}
	assert.Equal(t, "E130", code(call(nil)), "no certificate")
	assert.Equal(t, "E130", code(call(&tls.Certificate{Certificate: [][]byte{selfSigned}, PrivateKey: foreignKey})), "another authority's certificate")
	assert.Equal(t, "E130", code(call(&tls.Certificate{Certificate: [][]byte{unapproved}, PrivateKey: foreignKey})), "a certificate that was never enrolled")
	assert.Equal(t, "E128", code(call(s.certs["n2"])), "an enrolled node that speaks for another")
	_, err = s.node("n2").Nonce(t.Context(), api.NonceRequest{Job: k, Node: "n2", Purpose: claim.PurposeJob})
	assert.Equal(t, "E128", code(err), "an enrolled node that is not of the job")
	old := s.certs["n2"]
	s.enrol("n2")
	assert.Equal(t, "E130", code(call(old)), "a certificate that was replaced")
	assert.Empty(t, s.slurm.Drained())
	require.NoError(t, s.run(k, "n1"), "the job is as it was")
	nodes, err := s.person(0).Nodes(t.Context())
	require.NoError(t, err)
	assert.Equal(t, uint64(1), nodes.Counters["no_certificate"])
	assert.Equal(t, uint64(3), nodes.Counters["bad_certificate"])
}

func TestGarbage(t *testing.T) {
	t.Parallel()
	s := start(t)
	k := s.register(7, "n1")
	send := func(method, path, body string, cert *tls.Certificate) int {
		conf := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}
		if cert != nil {
			conf.Certificates = []tls.Certificate{*cert}
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
		}
		h := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+s.address+path, strings.NewReader(body))
		require.NoError(t, err)
		res, err := h.Do(req)
		require.NoError(t, err)
		defer func() { _ = res.Body.Close() }()
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		return res.StatusCode
	}
	for name, body := range map[string]string{
		"nothing": "", "no JSON": "\x00\xff", "an unknown field": `{"node":"n1","x":1}`, "two documents": "{}{}",
		"a huge body": `{"node":"` + strings.Repeat("n", 2*api.MaxBody) + `"}`, "deep nesting": strings.Repeat("[", 20000),
	} {
		assert.Equal(t, http.StatusBadRequest, send("POST", api.PathNonce, body, s.certs["n1"]), name)
		assert.Equal(t, http.StatusBadRequest, send("POST", api.PathEnrolRequest, body, nil), name)
	}
	assert.Equal(t, http.StatusNotFound, send("GET", "/", "", nil))
	assert.Equal(t, http.StatusNotFound, send("POST", api.PathRegister, "{}", s.certs["n1"]), "the controller's calls are not outside")
	assert.Equal(t, http.StatusNotFound, send("POST", api.PathEnrolApprove, "{}", nil))
	assert.Equal(t, http.StatusForbidden, send("GET", api.PathJobs, "", nil))
	conn, err := net.Dial("tcp", s.address)
	require.NoError(t, err)
	_, err = conn.Write(bytes.Repeat([]byte{0x16, 3, 1, 0xff}, 64))
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	old, err := tls.Dial("tcp", s.address, &tls.Config{MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true})
	if err == nil {
		_ = old.Close()
	}
	require.Error(t, err, "TLS 1.2 is refused")
	require.NoError(t, s.run(k, "n1"))
	limited := false
	for range 100 {
		limited = limited || send("POST", api.PathEnrolNonce, `{"node":"x"}`, nil) == http.StatusTooManyRequests
	}
	assert.True(t, limited, "strangers are slowed down")
	require.NoError(t, s.node("n1").Teardown(t.Context(), api.TeardownRequest{NodeRequest: api.NodeRequest{Job: k, Node: "n1", Epoch: 1}, Closed: true}), "and nodes are not")
}

func TestTheUnixSocketKnowsItsCallers(t *testing.T) {
	t.Parallel()
	s := start(t)
	j := api.RegisterRequest{Job: enclave.Job{JobKey: enclave.JobKey{Cluster: "c1", Job: 7}, UID: 2001, Partition: "cpu-sev", Nodes: []string{"n1"}}}
	_, err := s.controller(2001).Register(t.Context(), j)
	assert.Equal(t, "E132", code(err), "a user")
	_, err = s.controller(3000).Register(t.Context(), j)
	assert.Equal(t, "E132", code(err), "an operator is no controller")
	_, err = s.controller(2001).PendingEnrols(t.Context())
	assert.Equal(t, "E132", code(err), "a user is no admin")
	_, err = s.controller(3001).PendingEnrols(t.Context())
	assert.Equal(t, "E132", code(err), "an operator is no admin")
	_, err = s.controller(3002).PendingEnrols(t.Context())
	assert.Equal(t, "E132", code(err), "nobody is admin while Slurm is away")
	_, err = s.controller(3000).PendingEnrols(t.Context())
	require.NoError(t, err)
	_, err = s.controller(64030).Register(t.Context(), j)
	require.NoError(t, err)
	_, err = s.controller(0).Revoke(t.Context(), api.RevokeRequest{Node: "n1", Reason: "test"})
	require.NoError(t, err)
	_, err = s.node("n1").Nonce(t.Context(), api.NonceRequest{Job: j.Job.JobKey, Node: "n1", Purpose: claim.PurposeJob})
	assert.Equal(t, "E130", code(err), "a revoked node")
}

func TestPeople(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.register(7, "n1")
	_, err := s.person(2001).Report(t.Context(), 7, nil)
	require.NoError(t, err)
	restart := uint32(0)
	_, err = s.person(3001).Report(t.Context(), 7, &restart)
	require.NoError(t, err, "an operator")
	_, err = s.person(2002).Report(t.Context(), 7, nil)
	assert.Equal(t, "E135", code(err), "another user")
	restart = 5
	_, err = s.person(2001).Report(t.Context(), 7, &restart)
	assert.Equal(t, "E135", code(err))
	jobs, err := s.person(2001).Jobs(t.Context())
	require.NoError(t, err)
	assert.Len(t, jobs.Jobs, 1)
	_, err = s.person(3003).Report(t.Context(), 7, nil)
	require.NoError(t, err, "who coordinates the job's account")
	_, err = s.person(3002).Report(t.Context(), 7, nil)
	assert.Equal(t, "E135", code(err), "nobody coordinates anything while Slurm is away")
	for uid, want := range map[uint32]int{2001: 1, 2002: 0, 3001: 1, 3002: 0, 3003: 1} {
		page, asked := s.person(uid).Shares(t.Context(), "0")
		require.NoError(t, asked)
		assert.Len(t, page.Shares, want, "uid %d", uid)
		assert.Empty(t, page.More)
	}
	_, err = s.person(2001).Shares(t.Context(), "yesterday")
	assert.Equal(t, "E129", code(err))
	me, err := s.person(3003).Me(t.Context())
	require.NoError(t, err)
	assert.Equal(t, api.Me{UID: 3003, Accounts: []string{"onc"}}, me)
	_, err = s.person(2001).LatestEvidence(t.Context(), "n1")
	assert.Equal(t, "E132", code(err), "evidence names chips")
	_, err = s.person(3001).LatestEvidence(t.Context(), "n1&node=n2")
	assert.Equal(t, "E135", code(err), "an operator, of a node that sent none")
	for name, credential := range map[string]string{
		"none": "", "one for another question": "MUNGE:0:" + api.Question("GET", api.PathReport+"?job=7"), "garbage": "MUNGE:x",
	} {
		c := client.New(client.Options{Address: s.address, Pin: s.pin(), Credential: func(context.Context, string) (string, error) { return credential, nil }})
		_, told := c.Jobs(t.Context())
		assert.Equal(t, "E133", code(told), name)
		c.Close()
	}
	caught := "MUNGE:0:" + api.Question("GET", api.PathJobs)
	c := client.New(client.Options{Address: s.address, Pin: s.pin(), Credential: func(context.Context, string) (string, error) { return caught, nil }})
	defer c.Close()
	_, err = c.Jobs(t.Context())
	require.NoError(t, err)
	_, err = c.Jobs(t.Context())
	assert.Equal(t, "E133", code(err), "a credential that was used")
}

func TestEnrolmentOverTheWire(t *testing.T) {
	t.Parallel()
	s := start(t)
	n := s.nodes["n3"]
	stranger := client.New(client.Options{Address: s.address, Pin: s.pin()})
	defer stranger.Close()
	nonce, err := stranger.EnrolNonce(t.Context(), "n3")
	require.NoError(t, err)
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	csr, err := pki.Request("n3", key)
	require.NoError(t, err)
	r := api.EnrolRequest{Node: "n3", Nonce: nonce.Nonce, HPKE: n.Keys.HPKE, CSR: csr}
	r.Evidence, err = n.Evidence(api.EnrolClaim(nonce.Cluster, s.pin(), nonce.Policy, "n3", nonce.Nonce, r.EnrolKeys(enclave.PublicKey(pub))))
	require.NoError(t, err)
	ticket, err := stranger.EnrolRequest(t.Context(), r)
	require.NoError(t, err)
	admin := s.controller(0)
	list, err := admin.PendingEnrols(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.NoError(t, admin.EnrolApprove(t.Context(), api.ApproveRequest{Node: "n3", Fingerprint: list[0].Fingerprint, ChipID: list[0].ChipID}))
	status, err := stranger.EnrolStatus(t.Context(), api.EnrolStatusRequest{Node: "n3", Fingerprint: ticket.Fingerprint})
	require.NoError(t, err)
	s.certs["n3"] = &tls.Certificate{Certificate: [][]byte{status.Certificate}, PrivateKey: key}
	require.NoError(t, s.run(s.register(7, "n3"), "n3"))
}

func TestTheClientBelievesThePinOnly(t *testing.T) {
	t.Parallel()
	s := start(t)
	pin := s.pin()
	pin[0]++
	c := client.New(client.Options{Address: s.address, Pin: pin})
	defer c.Close()
	_, err := c.EnrolNonce(t.Context(), "n1")
	require.ErrorContains(t, err, "pinned")
	assert.Equal(t, "E500", code(err))

	// An enrolled node that runs a server is no verifier, though its certificate has the right signer.
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{s.withAuthority("n1")}})
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, over := l.Accept()
			if over != nil {
				return
			}
			_ = conn.(*tls.Conn).HandshakeContext(t.Context())
			_ = conn.Close()
		}
	}()
	c = client.New(client.Options{Address: l.Addr().String(), Pin: s.pin()})
	defer c.Close()
	_, err = c.EnrolNonce(t.Context(), "n1")
	require.ErrorContains(t, err, "another use")
}

// withAuthority adds the authority's certificate to a node's, as a node that plays verifier does.
func (s *site) withAuthority(node string) tls.Certificate {
	s.t.Helper()
	c := *s.certs[node]
	conn, err := tls.Dial("tcp", s.address, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	require.NoError(s.t, err)
	defer func() { _ = conn.Close() }()
	c.Certificate = append(append([][]byte(nil), c.Certificate...), conn.ConnectionState().PeerCertificates[1].Raw)
	return c
}

func TestAVerifierThatIsAwayIsNobodysFault(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	c := client.New(client.Options{Address: address, Patience: 500 * time.Millisecond})
	defer c.Close()
	_, err = c.EnrolNonce(t.Context(), "n1")
	r, ok := enclave.AsRefusal(err)
	require.True(t, ok)
	assert.Equal(t, enclave.Code("E500"), r.Code)
	assert.Equal(t, enclave.FaultService, r.Fault)
	c = client.New(client.Options{Socket: filepath.Join(t.TempDir(), "none")})
	_, err = c.Settled(t.Context(), enclave.JobKey{})
	assert.Equal(t, "E500", code(err))
}

func TestAVerifierThatComesBackIsFound(t *testing.T) {
	t.Parallel()
	s := start(t)
	path := filepath.Join(t.TempDir(), "late")
	c := client.New(client.Options{Socket: path, Patience: 20 * time.Second})
	defer c.Close()
	answered := make(chan error, 1)
	go func() {
		_, err := c.Settled(t.Context(), enclave.JobKey{Cluster: "c1", Job: 1})
		answered <- err
	}()
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	go func() {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("unix", s.socket)
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(out, in) }()
		_, _ = io.Copy(in, out)
	}()
	require.NoError(t, <-answered)
}

func TestARegistrationOfTheLargestJobIsRead(t *testing.T) {
	t.Parallel()
	s := start(t)
	j := enclave.Job{JobKey: enclave.JobKey{Cluster: "c1", Job: 7}, UID: 2001, User: "alice", Account: "onc", Partition: "cpu-sev"}
	for i := range 16384 {
		j.Nodes = append(j.Nodes, fmt.Sprintf("a-name-of-forty-letters-in-all-%010d", i))
	}
	_, err := s.controller(64030).Register(t.Context(), api.RegisterRequest{Job: j})
	refusal, ok := enclave.AsRefusal(err)
	require.True(t, ok)
	assert.Equal(t, enclave.Code("E123"), refusal.Code, "it was read: its first node is not in the inventory")
	j.Nodes = append(j.Nodes, "one-too-many")
	_, err = s.controller(64030).Register(t.Context(), api.RegisterRequest{Job: j})
	refusal, ok = enclave.AsRefusal(err)
	require.True(t, ok)
	assert.Equal(t, enclave.Code("E120"), refusal.Code)
}
