package verifier

import (
	"crypto/rand"
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// maxTickets bounds the nonces that one node may hold for one job, maxEnrolTickets those of all
// nodes that want to be enrolled, who are strangers yet.
const (
	maxTickets      = 8
	maxEnrolTickets = 256
)

// renewalsPerPeriod is how often a node may ask to be renewed while it is to be once, behind the first few:
// each leaves a row for ever, and a node whose renewal failed for no fault of its own tries again.
const renewalsPerPeriod = 10

// holder is whom a nonce was given to: evidence of anybody else, or for anything else, can't use it.
type holder struct {
	key     enclave.JobKey // zero for an enrolment
	node    string
	purpose claim.Purpose
}

type ticket struct {
	holder
	expires time.Time
}

// tickets are the nonces that are out. They live in memory only: after a restart all are void.
type tickets struct {
	mu   sync.Mutex
	out  map[enclave.Nonce]ticket
	held map[holder]int
	sum  map[claim.Purpose]int
	pace map[holder]*rate.Limiter // of renewals
}

func newTickets() *tickets {
	return &tickets{out: map[enclave.Nonce]ticket{}, held: map[holder]int{}, sum: map[claim.Purpose]int{}, pace: map[holder]*rate.Limiter{}}
}

// give makes a nonce, or refuses a holder that has too many.
func (t *tickets) give(h holder, life time.Duration) (enclave.Nonce, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.full(h) {
		t.expire(time.Now())
	}
	if t.full(h) {
		return enclave.Nonce{}, enclave.Refuse("E124", enclave.FaultService, "node %s holds too many nonces: wait until they expire", h.node)
	}
	var n enclave.Nonce
	_, _ = rand.Read(n[:]) // never fails: it ends the process instead
	t.out[n] = ticket{holder: h, expires: time.Now().Add(life)}
	t.held[h]++
	t.sum[h.purpose]++
	return n, nil
}

// inPace refuses a holder that renews much more often than every period.
func (t *tickets) inPace(h holder, period time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.pace[h]
	if l == nil {
		l = rate.NewLimiter(rate.Every(period/renewalsPerPeriod), maxTickets)
		t.pace[h] = l
	}
	if !l.Allow() {
		return enclave.Refuse("E124", enclave.FaultService, "node %s renews too often: every %s is enough", h.node, period)
	}
	return nil
}

func (t *tickets) full(h holder) bool {
	return t.held[h] >= maxTickets || (h.purpose == claim.PurposeEnrol && t.sum[h.purpose] >= maxEnrolTickets)
}

// take uses a nonce up. It is gone afterwards, whatever becomes of the evidence; a wrong
// holder's attempt leaves it alone, or one node could void another's. at is when the call that brings it
// began.
func (t *tickets) take(n enclave.Nonce, h holder, at time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.out[n]
	if !ok || k.holder != h || !at.Before(k.expires) {
		return enclave.Refuse("E126", enclave.FaultService, "nonce is unknown, expired, used or another's: ask for a new one")
	}
	t.drop(n, k)
	return nil
}

func (t *tickets) drop(n enclave.Nonce, k ticket) {
	delete(t.out, n)
	t.sum[k.purpose]--
	if t.held[k.holder]--; t.held[k.holder] <= 0 {
		delete(t.held, k.holder)
	}
}

func (t *tickets) expire(now time.Time) {
	for n, k := range t.out {
		if !now.Before(k.expires) {
			t.drop(n, k)
		}
	}
}

// forget voids all nonces of one start of a job.
func (t *tickets) forget(key enclave.JobKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n, k := range t.out {
		if k.key == key {
			t.drop(n, k)
		}
	}
	maps.DeleteFunc(t.pace, func(h holder, _ *rate.Limiter) bool { return h.key == key })
}
