package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// asNode lets in whoever holds an enrolled node's key, before anything of the body is read. The
// certificate is looked up for every call: a revocation counts on open connections, too.
func asNode[Q, A any](s *Server, f func(ctx context.Context, node string, q Q) (A, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		node, ok := s.node(w, r)
		if !ok {
			return
		}
		var q Q
		if !s.read(w, r, &q) {
			return
		}
		a, err := f(r.Context(), node, q)
		s.answer(w, r, a, err)
	})
}

// node is who calls. Who is nobody was told so.
func (s *Server) node(w http.ResponseWriter, r *http.Request) (string, bool) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		s.turnAway(w, r, "no_certificate", http.StatusForbidden, enclave.Refuse("E130", enclave.FaultService, "this call needs a node's certificate"))
		return "", false
	}
	node, err := s.Verifier.Authenticate(r.Context(), r.TLS.PeerCertificates[0].Raw)
	if err != nil {
		s.turnAway(w, r, "bad_certificate", http.StatusForbidden, err)
		return "", false
	}
	return node, true
}

// read reads a node's call. Whoever sent none was told so.
func (s *Server) read(w http.ResponseWriter, r *http.Request, q any) bool {
	err := decode(w, r, api.MaxBody, q)
	if err != nil {
		s.counters.add("malformed_node_call")
		refuse(w, http.StatusBadRequest, enclave.Refuse("E129", enclave.FaultService, "%v", err))
	}
	return err == nil
}

// evidence is a node's call at barrier 1. Of the nodes of a large job, which all post in the same
// moment, some are read, appraised and stored, while what the others have sent waits in the kernel:
// ten thousand at a time would take the memory of ten thousand, and none would be through sooner.
func (s *Server) evidence(w http.ResponseWriter, r *http.Request) {
	node, ok := s.node(w, r)
	if !ok {
		return
	}
	job, ok := s.take(w, r, node)
	if !ok {
		return
	}
	a, err := s.Verifier.Roster(r.Context(), node, job)
	s.answer(w, r, api.EvidenceAnswer{Answer: a}, err)
}

// take reads an announcement and has it taken, when its turn has come. The time for reading counts
// from then.
func (s *Server) take(w http.ResponseWriter, r *http.Request, node string) (enclave.JobKey, bool) {
	if !s.busy.enter(node) {
		s.limited(w, tooMany("too many announcements of one node at a time"))
		return enclave.JobKey{}, false
	}
	defer s.busy.leave(node)
	deadline, began := http.NewResponseController(w), time.Now()
	_ = deadline.SetReadDeadline(time.Now().Add(longestCall)) // a recorder in tests has none
	select {
	case s.reading <- struct{}{}:
	case <-r.Context().Done():
		return enclave.JobKey{}, false
	}
	defer func() { <-s.reading }()
	_ = deadline.SetReadDeadline(time.Now().Add(readTimeout)) // as above
	var a api.Announcement
	if !s.read(w, r, &a) {
		return enclave.JobKey{}, false
	}
	if err := s.Verifier.TakeEvidence(r.Context(), node, a, began); err != nil {
		s.answer(w, r, api.Empty{}, err)
		return enclave.JobKey{}, false
	}
	return a.Job, true
}

// asStranger serves who can't have a certificate yet. Every call costs one of the source's
// tokens, whether it is well made or not.
func asStranger[Q, A any](s *Server, f func(ctx context.Context, from string, q Q) (A, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.gate.allow(s.source(r)) {
			s.limited(w, tooMany("too many calls"))
			return
		}
		var q Q
		if err := decode(w, r, api.MaxBody, &q); err != nil {
			s.counters.add("malformed_enrolment")
			refuse(w, http.StatusBadRequest, enclave.Refuse("E129", enclave.FaultRequest, "%v", err))
			return
		}
		a, err := f(r.Context(), address(r), q)
		if err != nil {
			s.counters.add("refused_enrolment")
		}
		s.answer(w, r, a, err)
	})
}

// asPerson serves people with a munge credential that was made for this very question. To find out that
// one is none costs a program: whose last ones were none is turned away before that.
func (s *Server) asPerson(f func(r *http.Request, who verifier.Viewer) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.gate.spent(s.source(r)) {
			s.limited(w, tooMany("too many calls that were turned away"))
			return
		}
		who, err := s.viewer(r)
		if _, busy := enclave.AsRefusal(err); busy {
			s.limited(w, err)
			return
		}
		if err != nil {
			s.turnAway(w, r, "bad_credential", http.StatusForbidden, enclave.Refuse("E133", enclave.FaultRequest, "credential refused: %v", err))
			return
		}
		a, err := f(r, who)
		s.answer(w, r, a, err)
	})
}

var errNoCredential = errors.New("there is none")

func (s *Server) viewer(r *http.Request) (verifier.Viewer, error) {
	credential, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Munge ")
	if !ok {
		return verifier.Viewer{}, errNoCredential
	}
	uid, payload, err := s.decode(r.Context(), credential)
	if err != nil {
		return verifier.Viewer{}, err
	}
	if payload != api.Question(r.Method, r.URL.RequestURI()) {
		return verifier.Viewer{}, errors.New("it was made for another question")
	}
	who := verifier.Viewer{UID: uid, Operator: uid == 0 || uid == s.SlurmUID}
	if !who.Operator {
		level, accounts, err := s.rank(r.Context(), uid)
		if _, busy := enclave.AsRefusal(err); busy {
			return verifier.Viewer{}, err
		}
		if err == nil { // else Slurm is away: people still see their own
			who.Operator, who.Accounts = level >= Operator, accounts
		}
	}
	return who, nil
}

func (s *Server) shares(r *http.Request, who verifier.Viewer) (any, error) {
	after, err := verifier.ParseCursor(r.URL.Query().Get("after"))
	if err != nil {
		return nil, err
	}
	return s.Verifier.Shares(r.Context(), who, after)
}

func (s *Server) report(r *http.Request, who verifier.Viewer) (any, error) {
	job, restart, err := jobAndRestart(r)
	if err != nil {
		return nil, err
	}
	return s.Verifier.Report(r.Context(), who, job, restart)
}

// jobAndRestart reads which start is asked for; nil is the latest.
func jobAndRestart(r *http.Request) (uint32, *uint32, error) {
	bad := enclave.Refuse("E129", enclave.FaultRequest, "want job=N and perhaps restart=N")
	q := r.URL.Query()
	job, err := strconv.ParseUint(q.Get("job"), 10, 32)
	if err != nil {
		return 0, nil, bad
	}
	if !q.Has("restart") {
		return uint32(job), nil, nil
	}
	n, err := strconv.ParseUint(q.Get("restart"), 10, 32)
	if err != nil {
		return 0, nil, bad
	}
	restart := uint32(n)
	return uint32(job), &restart, nil
}

func (s *Server) receipt(r *http.Request, who verifier.Viewer) (any, error) {
	job, restart, err := jobAndRestart(r)
	if err != nil {
		return nil, err
	}
	return s.Verifier.Receipt(r.Context(), who, job, restart)
}

func (s *Server) receipts(r *http.Request, who verifier.Viewer) (any, error) {
	from, err := strconv.ParseUint(r.URL.Query().Get("from"), 10, 63)
	if err != nil {
		return nil, enclave.Refuse("E129", enclave.FaultRequest, "want from=N, the number of a receipt")
	}
	return s.Verifier.ReceiptChain(r.Context(), who, from)
}

// nodes adds what the server turned away, for operators.
func (s *Server) nodes(r *http.Request, who verifier.Viewer) (any, error) {
	out, err := s.Verifier.Fleet(r.Context(), who)
	if err == nil && who.Operator {
		out.Counters = s.counters.all()
	}
	return out, err
}

type peerKey struct{}

// peer is the other end of a Unix socket, asked once when it was accepted.
type peer struct {
	uid uint32
	err error
}

func (s *Server) withPeer(ctx context.Context, c net.Conn) context.Context {
	uid, err := s.PeerUID(c)
	return context.WithValue(ctx, peerKey{}, peer{uid, err})
}

// asPeer serves the uids that allowed has no refusal for.
func asPeer[Q, A any](s *Server, allowed func(context.Context, uint32) error, f func(ctx context.Context, uid uint32, q Q) (A, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := r.Context().Value(peerKey{}).(peer)
		if !ok || p.err != nil {
			s.counters.add("bad_peer")
			refuse(w, http.StatusForbidden, mayNot(p.uid))
			return
		}
		if err := allowed(r.Context(), p.uid); err != nil {
			s.counters.add("bad_peer")
			refuse(w, http.StatusForbidden, err)
			return
		}
		var q Q
		if err := decode(w, r, api.MaxLocal, &q); err != nil {
			s.counters.add("malformed_local_call")
			refuse(w, http.StatusBadRequest, enclave.Refuse("E129", enclave.FaultService, "%v", err))
			return
		}
		a, err := f(r.Context(), p.uid, q)
		s.answer(w, r, a, err)
	})
}

func mayNot(uid uint32) error {
	return enclave.Refuse("E132", enclave.FaultRequest, "uid %d may not do this", uid)
}

func (s *Server) isController(_ context.Context, uid uint32) error {
	if uid == 0 || uid == s.SlurmUID {
		return nil
	}
	return mayNot(uid)
}

func (s *Server) isAdmin(ctx context.Context, uid uint32) error {
	if s.isController(ctx, uid) == nil {
		return nil
	}
	level, _, err := s.rank(ctx, uid)
	if _, busy := enclave.AsRefusal(err); busy {
		return err
	}
	if err != nil || level < Administrator {
		return mayNot(uid)
	}
	return nil
}
