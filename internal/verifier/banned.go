package verifier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

// banned are nodes whose revocation the ledger could not take: for this process they are not
// enrolled. It is in memory only, and whoever revoked them was told so.
type banned struct {
	turn sync.Mutex // held while enrolments are written: one that is kept for later must not revoke a new enrolment
	mu   sync.Mutex
	bans map[string]ban
}

type ban struct {
	at  time.Time
	why string
}

func newBanned() *banned { return &banned{bans: map[string]ban{}} }

func (b *banned) get(node string) (ban, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	found, ok := b.bans[node]
	return found, ok
}

func (b *banned) add(node string, x ban) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bans[node] = x
}

func (b *banned) drop(node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.bans, node)
}

// enrolled is the node's enrolment in force. All of this package asks here, and not the ledger.
func (v *Verifier) enrolled(ctx context.Context, node string) (ledger.Enrolment, error) {
	if _, out := v.banned.get(node); out {
		return ledger.Enrolment{}, fmt.Errorf("find enrolment of %s: revoked: %w", node, ledger.ErrNotFound)
	}
	return v.Ledger.Enrolled(ctx, node)
}

// revoke takes an enrolment out of force. One that the ledger can't write is out of force all the
// same, and the write is kept for later; the error then says why.
func (v *Verifier) revoke(ctx context.Context, node string, admin uint32, x ban) error {
	v.banned.turn.Lock()
	defer v.banned.turn.Unlock()
	store := func(ctx context.Context) error {
		err := v.Ledger.Revoke(ctx, node, admin, x.why, x.at)
		if err == nil || errors.Is(err, ledger.ErrNotFound) {
			v.banned.drop(node)
		}
		return err
	}
	err := store(ctx)
	if err == nil || errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	v.banned.add(node, x)
	v.later.keep(enclave.JobKey{}, "the revocation of "+node, func(ctx context.Context) error {
		v.banned.turn.Lock()
		defer v.banned.turn.Unlock()
		if _, still := v.banned.get(node); !still { // an operator's second call has stored it
			return nil
		}
		return ignore(store(ctx), ledger.ErrNotFound)
	})
	return err
}

// enrol puts an enrolment in force, of a node that is not to be revoked first.
func (v *Verifier) enrol(ctx context.Context, e ledger.Enrolment) error {
	v.banned.turn.Lock()
	defer v.banned.turn.Unlock()
	if _, out := v.banned.get(e.Node); out {
		return ledgerRefusal(fmt.Errorf("the revocation of %s is not stored yet", e.Node))
	}
	if err := v.Ledger.Enrol(ctx, e); err != nil {
		return ledgerRefusal(err)
	}
	return nil
}
