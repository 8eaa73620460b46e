package verifier

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// maxLater bounds what is kept: the last words of one large job.
const maxLater = maxNodes

// later are writes that the ledger could not take, and that nobody asks for twice: a decision, a node that
// left a job, a node's last word, a start's end, a revocation. They are kept, in their order, until there is space again,
// in memory only. If enclaved ends before, the receipt says that the node did not report, and Slurm is
// asked for the end; whoever told was answered that nothing was stored.
type later struct {
	mu   sync.Mutex
	kept []laterWrite
}

type laterWrite struct {
	job   enclave.JobKey // zero for a write of no job
	what  string
	write func(context.Context) error
}

func (w laterWrite) name() string {
	if w.job == (enclave.JobKey{}) {
		return w.what
	}
	return w.what + " of job " + w.job.String()
}

// keep takes a write in the place of an earlier one of the same name.
func (l *later) keep(job enclave.JobKey, what string, write func(context.Context) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := laterWrite{job, what, write}
	i := slices.IndexFunc(l.kept, func(o laterWrite) bool { return o.job == job && o.what == what })
	switch {
	case i >= 0:
		l.kept[i] = w
	case len(l.kept) < maxLater:
		l.kept = append(l.kept, w)
	}
}

// write stores what is kept. It ends at the first that can't be: the others can't be either.
func (l *later) write(ctx context.Context) error {
	for {
		l.mu.Lock()
		if len(l.kept) == 0 {
			l.mu.Unlock()
			return nil
		}
		w := l.kept[0]
		l.mu.Unlock()
		if err := w.write(ctx); err != nil {
			return fmt.Errorf("store %s: %w", w.name(), err)
		}
		l.mu.Lock()
		l.kept = slices.DeleteFunc(l.kept, func(o laterWrite) bool { return o.job == w.job && o.what == w.what })
		l.mu.Unlock()
	}
}
