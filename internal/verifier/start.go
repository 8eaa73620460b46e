package verifier

import (
	"bytes"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// phase is how far a start has come. It only grows.
type phase int

const (
	registered phase = iota // no node has spoken yet: no deadline runs
	first                   // barrier 1 is open
	second                  // the roster is out, barrier 2 is open
	released                // GO
	refused                 // at either barrier
)

// firstEpoch is the epoch of a job's first roster.
const firstEpoch = 1

// start is one start of one job, from registration to settlement.
type start struct {
	plan     ledger.Plan
	epoch    uint32
	made     time.Time
	seats    map[string]*seat
	phase    phase
	deadline time.Time     // of both barriers, set when the first node speaks
	wake     chan struct{} // something changed: the watcher looks again
	rostered chan struct{} // closed when barrier 1 is decided
	decided  chan struct{} // closed when the start is: GO or refused

	owners  map[enclave.PublicKey]string // of tunnel keys
	posts   int                          // nodes whose evidence was appraised
	readies int                          // nodes that are ready
	words   int                          // nodes that said that they are broken

	peers   []enclave.Peer
	leaves  api.Packed       // the peers, as every node gets them
	revoked *enclave.Refusal // why an operator took one of the nodes out while it started
	stop    *enclave.Refusal // ends the start for everybody, whatever the nodes did
	refusal *enclave.Refusal // of the job, once refused
	verdict enclave.Verdict
	weak    bool
	life    uint32 // seconds
}

// seat is one node's part.
type seat struct {
	node  enclave.Node
	spoke bool // made an authenticated call for this start
	word  bool // broken is the node's own word
	post  *api.Announcement
	appraised
	early   *early           // the same, made before there is evidence
	broken  *enclave.Refusal // the node's own word, or what appraisal made of its evidence
	ready   *api.ReadyRequest
	answer  *roster.Answer
	denial  *enclave.Refusal // what the node is told
	blamed  bool             // its failure went through the storm guard
	judging []byte           // signature of its announcement while that is being appraised
}

// appraised is what came of a node's evidence.
type appraised struct {
	result   *enclave.AttestationResult // without its checks where it is stored
	stored   bool                       // in the ledger, with the evidence
	envelope *roster.Envelope           // for the seed, until that is in it
}

// repeats is true for the announcement that was taken already, or is being appraised: a caller
// that lost its connection may send it again.
func (x *seat) repeats(a *api.Announcement) bool {
	return x.post != nil && bytes.Equal(x.post.Signature, a.Signature) || x.judging != nil && bytes.Equal(x.judging, a.Signature)
}

// member is a node's part as the ledger keeps it. What stands there with the evidence is not written again:
// it would be a third of all that a large job writes.
func (x *seat) member() ledger.Member {
	m := ledger.Member{Node: x.node.Name, Result: x.result, Refusal: x.broken}
	if x.post != nil {
		m.Keys = &x.post.Keys
	}
	if x.stored {
		m.Nonce = &x.post.Nonce
	}
	return m
}

func newStart(p ledger.Plan, seats map[string]*seat) *start {
	return &start{
		plan: p, epoch: firstEpoch, made: time.Now(), seats: seats, verdict: enclave.VerdictIncomplete, owners: map[enclave.PublicKey]string{},
		wake: make(chan struct{}, 1), rostered: make(chan struct{}), decided: make(chan struct{}),
	}
}

// poke wakes the watcher; a wake-up that is pending already is enough.
func (s *start) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// pokeWhenAll wakes the watcher when all nodes may have done their part, which is when a barrier
// may close: looking at every seat after every post would be work in the square of the nodes. A
// node that is counted twice, for its part and for its word, makes it look too early, never too
// late. The caller holds v.mu.
func (s *start) pokeWhenAll() {
	done := s.posts
	if s.phase == second {
		done = s.readies
	}
	if done+s.words >= len(s.seats) {
		s.poke()
	}
}

// everyone is true when f holds for every seat.
func (s *start) everyone(f func(*seat) bool) bool {
	for _, x := range s.seats {
		if !f(x) {
			return false
		}
	}
	return true
}
