// Package server is the verifier's door to the network: HTTPS for nodes and people, a Unix
// socket for the controller and its admins.
//
// It finds out who calls, bounds what comes in, counts what it turns away, and passes decoded
// requests to the verifier. It decides nothing about jobs. Whatever is not authenticated or does
// not parse changes neither job nor node.
package server

import (
	"context"
	"crypto/tls"
	"encoding"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// Limits of a connection. A call that waits at a barrier is answered within longestCall.
const (
	headerTimeout = 15 * time.Second // of the TLS handshake, too: the nodes of a large job all begin in the same second
	readTimeout   = 15 * time.Second
	longestCall   = 150 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10
	stopTimeout   = 10 * time.Second
	readAtOnce    = 512 // announcements: two transactions of the ledger
)

// Credentials decodes a credential that a person's client made (munge). It refuses replays. The
// payload is what the client bound it to.
type Credentials interface {
	Decode(ctx context.Context, credential string) (uid uint32, payload string, err error)
}

// Level is what Slurm's accounting lets a user do.
type Level int

// Operators see every job; administrators also enrol and revoke nodes. The zero value is a user.
const (
	User Level = iota
	Operator
	Administrator
)

// Levels knows them, and the accounts that a user coordinates.
type Levels interface {
	Rank(ctx context.Context, uid uint32) (level Level, coordinates []string, err error)
}

// Settings is what a Server is made of. All fields are needed.
type Settings struct {
	Verifier    *verifier.Verifier
	Authority   *pki.Authority
	Credentials Credentials
	Levels      Levels
	PeerUID     func(net.Conn) (uint32, error) // of the other end of a Unix socket
	SlurmUID    uint32                         // SlurmUser: the controller's prolog and epilog
	Failed      func(call string, err error)   // hears of errors that no caller is told, for the log
}

// Server serves the verifier's API.
type Server struct {
	Settings
	counters *counters
	gate     *gate
	users    *users
	programs chan struct{}       // one token for each program that runs for a person
	inside   map[netip.Addr]bool // addresses of the inventory's nodes
	busy     *busy
	reading  chan struct{} // one token for each evidence that is read and not yet stored
}

// New makes a server.
func New(s Settings) (*Server, error) {
	if s.Verifier == nil || s.Authority == nil || s.Credentials == nil || s.Levels == nil || s.PeerUID == nil || s.Failed == nil {
		return nil, errors.New("make server: a part is missing")
	}
	inside := map[netip.Addr]bool{}
	for _, n := range s.Verifier.Inventory.Nodes {
		for _, a := range n.Addresses {
			inside[a] = true
		}
	}
	return &Server{Settings: s, inside: inside, busy: &busy{n: map[string]int{}}, counters: newCounters(), gate: newGate(), users: newUsers(), programs: make(chan struct{}, programsAtOnce), reading: make(chan struct{}, readAtOnce)}, nil
}

// Serve answers on both listeners until ctx ends, then lets calls finish for a short time. The
// first listener that fails ends both.
func (s *Server) Serve(ctx context.Context, public, local net.Listener) error {
	cert, err := s.Authority.Server()
	if err != nil {
		return err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, CurvePreferences: pki.Exchanges(), Certificates: []tls.Certificate{cert},
		ClientAuth: tls.RequestClientCert, // checked by the handler, which can count and refuse in words
		// A roster's answer goes out as two records, not four: nothing here shows a half-read page to anybody.
		DynamicRecordSizingDisabled: true,
	}
	outside := s.http(s.Public(), nil)
	inside := s.http(s.Local(), s.withPeer)
	failed := make(chan error, 2)
	go func() { failed <- outside.Serve(tls.NewListener(limit(public, s.known), config)) }()
	go func() { failed <- inside.Serve(local) }()
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	ended := errors.Join(outside.Shutdown(stop), inside.Shutdown(stop))
	if err != nil {
		return errors.Join(err, ended)
	}
	return ended
}

func (s *Server) http(h http.Handler, withConn func(context.Context, net.Conn) context.Context) *http.Server {
	return &http.Server{
		Handler: s.recovering(h), ConnContext: withConn, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout,
		WriteTimeout: longestCall, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: s.counters.log("broken_connection"),
	}
}

// Public is what nodes and people reach.
func (s *Server) Public() http.Handler {
	v, m := s.Verifier, http.NewServeMux()
	m.Handle("POST "+api.PathNonce, asNode(s, v.Nonce))
	m.Handle("POST "+api.PathEvidence, http.HandlerFunc(s.evidence))
	m.Handle("POST "+api.PathLeaves, asNode(s, v.Leaves))
	m.Handle("POST "+api.PathReady, asNode(s, v.PostReady))
	m.Handle("POST "+api.PathBroken, asNode(s, v.Broken))
	m.Handle("POST "+api.PathDecision, asNode(s, func(ctx context.Context, node string, r api.NodeRequest) (api.Empty, error) {
		return api.Empty{}, v.Decision(ctx, node, r)
	}))
	m.Handle("POST "+api.PathRenew, asNode(s, v.Renew))
	m.Handle("POST "+api.PathWatch, asNode(s, v.Watch))
	m.Handle("POST "+api.PathProve, asNode(s, v.Prove))
	m.Handle("POST "+api.PathLost, asNode(s, v.Lost))
	m.Handle("POST "+api.PathTeardown, asNode(s, func(ctx context.Context, node string, r api.TeardownRequest) (api.Empty, error) {
		return api.Empty{}, v.TeardownReport(ctx, node, r)
	}))
	m.Handle("POST "+api.PathEnrolNonce, asStranger(s, func(ctx context.Context, _ string, r api.EnrolNonceRequest) (api.EnrolNonceAnswer, error) {
		return v.EnrolNonce(ctx, r)
	}))
	m.Handle("POST "+api.PathEnrolRequest, asStranger(s, v.EnrolRequest))
	m.Handle("POST "+api.PathEnrolStatus, asStranger(s, func(ctx context.Context, _ string, r api.EnrolStatusRequest) (api.EnrolStatus, error) {
		return v.EnrolStatus(ctx, r)
	}))
	m.Handle("GET "+api.PathReport, s.asPerson(s.report))
	m.Handle("GET "+api.PathJobs, s.asPerson(func(r *http.Request, who verifier.Viewer) (any, error) { return v.List(r.Context(), who) }))
	m.Handle("GET "+api.PathMe, s.asPerson(func(_ *http.Request, who verifier.Viewer) (any, error) { return v.Me(who), nil }))
	m.Handle("GET "+api.PathShares, s.asPerson(s.shares))
	m.Handle("GET "+api.PathNodes, s.asPerson(s.nodes))
	m.Handle("GET "+api.PathLatest, s.asPerson(func(r *http.Request, who verifier.Viewer) (any, error) {
		return v.LatestEvidence(r.Context(), who, r.URL.Query().Get("node"))
	}))
	m.Handle("GET "+api.PathReceipt, s.asPerson(s.receipt))
	m.Handle("GET "+api.PathReceipts, s.asPerson(s.receipts))
	m.Handle("GET "+api.PathReceiptKeys, s.asPerson(func(*http.Request, verifier.Viewer) (any, error) { return v.ReceiptSigners(), nil }))
	m.Handle("/", s.unknown())
	return m
}

// Local is what the controller and its admins reach.
func (s *Server) Local() http.Handler {
	v, m := s.Verifier, http.NewServeMux()
	m.Handle("POST "+api.PathRegister, asPeer(s, s.isController, func(ctx context.Context, _ uint32, r api.RegisterRequest) (api.RegisterAnswer, error) {
		return v.Register(ctx, r)
	}))
	m.Handle("POST "+api.PathSettled, asPeer(s, s.isController, func(ctx context.Context, _ uint32, r api.SettledRequest) (api.Settlement, error) {
		return v.Settled(ctx, r.Job)
	}))
	m.Handle("POST "+api.PathEnrolPending, asPeer(s, s.isAdmin, func(ctx context.Context, _ uint32, _ api.Empty) (api.PendingEnrols, error) {
		return v.PendingEnrols(ctx)
	}))
	m.Handle("POST "+api.PathChips, asPeer(s, s.isAdmin, func(ctx context.Context, _ uint32, _ api.Empty) (api.Chips, error) {
		return v.Chips(ctx)
	}))
	m.Handle("POST "+api.PathEnrolApprove, asPeer(s, s.isAdmin, v.EnrolApprove))
	m.Handle("POST "+api.PathRevoke, asPeer(s, s.isAdmin, v.Revoke))
	m.Handle("POST "+api.PathReturn, asPeer(s, s.isAdmin, func(ctx context.Context, _ uint32, r api.ReturnRequest) (api.Empty, error) {
		return api.Empty{}, v.Return(ctx, r.Node)
	}))
	m.Handle("/", s.unknown())
	return m
}

// unknown counts callers that look for what isn't there.
func (s *Server) unknown() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.turnAway(w, r, "unknown_path", http.StatusNotFound, enclave.Refuse("E129", enclave.FaultService, "there is no such call"))
	})
}

// turnAway counts, slows strangers down, and refuses.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, counter string, status int, why error) {
	s.counters.add(counter)
	if !s.gate.allow(s.source(r)) {
		s.limited(w, tooMany("too many calls that were turned away"))
		return
	}
	refuse(w, status, why)
}

// limited counts and refuses who calls too often.
func (s *Server) limited(w http.ResponseWriter, why error) {
	s.counters.add("rate_limited")
	refuse(w, http.StatusTooManyRequests, why)
}

// address is the caller's, for an admin to see.
func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// source is whom a call without a node's key counts for: a network where all its addresses may be one host's.
func (s *Server) source(r *http.Request) string {
	host := address(r)
	if s.known(host) {
		return host
	}
	return wide(host)
}

// known is true for an address of the inventory.
func (s *Server) known(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && s.inside[a.Unmap()]
}

// decode reads one body. What follows may wait at a barrier: net/http would take the end of the
// time for reading for a caller that hung up.
func decode(w http.ResponseWriter, r *http.Request, most int64, v any) error {
	body := http.MaxBytesReader(w, r.Body, most+1)
	var err error
	if form, is := v.(encoding.BinaryUnmarshaler); is {
		var b []byte
		if b, err = api.ReadBody(body, r.ContentLength, most); err == nil {
			err = form.UnmarshalBinary(b)
		}
	} else {
		err = api.Decode(body, most, v)
	}
	if err == nil {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // a recorder in tests has none
	}
	return err
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		s.failed(r, err)
		refuse(w, http.StatusConflict, err)
		return
	}
	form := api.TypeBinary
	b, packed := v.(api.Packed)
	if !packed {
		form = api.TypeJSON
		if b, err = json.Marshal(v); err != nil {
			s.failed(r, err)
			refuse(w, http.StatusInternalServerError, err)
			return
		}
	}
	w.Header().Set("Content-Type", form)
	_, _ = w.Write(b) // a caller that hung up is not told
}

// refuse writes a refusal. The text of an error that is none stays here: it was not meant for
// the outside.
func refuse(w http.ResponseWriter, status int, err error) {
	r, ok := enclave.AsRefusal(err)
	if !ok {
		status, r = http.StatusInternalServerError, enclave.Refuse("E517", enclave.FaultService, "the verifier could not answer, see its log")
	}
	b, err := json.Marshal(api.ErrorBody{Refusal: *r})
	if err != nil {
		b = []byte(`{}`)
	}
	w.Header().Set("Content-Type", api.TypeJSON)
	w.WriteHeader(status)
	_, _ = w.Write(b) // as above
}
