package verifier

import (
	"bytes"

	"github.com/slurm-enclave/slurm-enclave/internal/roster"
)

// early is an envelope that is made while a node's report is awaited: a tenth of what the start of a
// large job costs, off the way from the last evidence to GO.
type early struct {
	key      []byte
	made     chan struct{}
	envelope *roster.Envelope // once made; nil when the key is none
}

// prepare begins an envelope for a key that a node says it will announce, one at a time for each
// node.
func (v *Verifier) prepare(x *seat, key []byte) {
	if len(key) == 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.life.Err() != nil || x.post != nil || x.judging != nil || x.early != nil && !x.early.replaceable(key) {
		return
	}
	e := &early{key: key, made: make(chan struct{})}
	x.early = e
	v.jobs.Go(func() {
		defer close(e.made)
		v.inTurn(func() { e.envelope, _ = roster.NewEnvelope(x.node.Name, key) }) // evidence with that key is refused in words
	})
}

// replaceable is true for one that is made, and for another key.
func (e *early) replaceable(key []byte) bool {
	select {
	case <-e.made:
		return !bytes.Equal(e.key, key)
	default:
		return false
	}
}

// take gives the envelope if it is for this key, and nil if there is none. An envelope is closed once:
// the caller has taken e from its seat.
func (e *early) take(key []byte) *roster.Envelope {
	if e == nil || !bytes.Equal(e.key, key) {
		return nil
	}
	<-e.made
	return e.envelope
}
