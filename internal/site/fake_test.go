package site_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/site"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// fakeSlurm is a cluster that prints as text. It behaves as 22.05.8 did.
type fakeSlurm struct {
	jobs    map[uint32]*slurm.Job
	texts   map[uint32]string
	nodes   map[string]*slurm.Node
	away    bool
	forgets bool // writes of texts are lost
	calls   int
}

var errAway = fmt.Errorf("unable to contact slurm controller")

func (f *fakeSlurm) reach() error {
	f.calls++
	if f.away {
		return errAway
	}
	return nil
}

func (f *fakeSlurm) Job(_ context.Context, id uint32) (slurm.Job, error) {
	if err := f.reach(); err != nil {
		return slurm.Job{}, err
	}
	if j, ok := f.jobs[id]; ok {
		return *j, nil
	}
	return slurm.Job{}, slurm.ErrNoJob
}

func (f *fakeSlurm) Requeue(_ context.Context, id uint32) error {
	if err := f.reach(); err != nil {
		return err
	}
	j, ok := f.jobs[id]
	if !ok {
		return slurm.ErrNoJob
	}
	if !j.Batch {
		return slurm.ErrInteractive
	}
	j.State, j.Restarts = "PENDING", j.Restarts+1
	return nil
}

func (f *fakeSlurm) Cancel(_ context.Context, id uint32) error {
	if err := f.reach(); err != nil {
		return err
	}
	f.jobs[id].State = "CANCELLED"
	return nil
}

func (f *fakeSlurm) Node(_ context.Context, name string) (slurm.Node, error) {
	if err := f.reach(); err != nil {
		return slurm.Node{}, err
	}
	if n, ok := f.nodes[name]; ok {
		return *n, nil
	}
	return slurm.Node{}, slurm.ErrNoNode
}

func (f *fakeSlurm) Drain(_ context.Context, name, reason string) error {
	if err := f.reach(); err != nil {
		return err
	}
	f.nodes[name] = &slurm.Node{Name: name, State: []string{"idle", "drain"}, Reason: reason}
	return nil
}

func (f *fakeSlurm) Resume(_ context.Context, name string) error {
	if err := f.reach(); err != nil {
		return err
	}
	f.nodes[name] = &slurm.Node{Name: name, State: []string{"idle"}}
	return nil
}

func (f *fakeSlurm) AdminComment(_ context.Context, id uint32) (string, bool, error) {
	if err := f.reach(); err != nil {
		return "", false, err
	}
	j, ok := f.jobs[id]
	return f.texts[id], !ok || !j.Alive() && j.State != "PENDING", nil
}

func (f *fakeSlurm) SetAdminComment(_ context.Context, id uint32, text string) error {
	if err := f.reach(); err != nil {
		return err
	}
	if !f.forgets {
		f.texts[id] = text
	}
	return nil
}

func (f *fakeSlurm) SetStoredComment(_ context.Context, id uint32, text string) error {
	if err := f.reach(); err != nil {
		return err
	}
	if slurm.Stored(text) != text {
		return slurm.ErrLossy
	}
	f.texts[id] = text
	return nil
}

// String is the whole cluster, one line each.
func (f *fakeSlurm) String() string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(f.jobs)) {
		fmt.Fprintf(&b, "job %d %s restarts %d text <%s>\n", id, f.jobs[id].State, f.jobs[id].Restarts, f.texts[id])
	}
	for _, n := range slices.Sorted(maps.Keys(f.nodes)) {
		fmt.Fprintf(&b, "node %s %s <%s>\n", n, strings.Join(f.nodes[n].State, "+"), f.nodes[n].Reason)
	}
	return b.String()
}

// bench is a site role on a fake cluster, a real ledger and a clock that stands.
type bench struct {
	*site.Site
	slurm *fakeSlurm
	spool *ledger.Ledger
	now   time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	b := &bench{
		slurm: &fakeSlurm{
			jobs: map[uint32]*slurm.Job{7: {
				ID: 7, State: "RUNNING", Batch: true, Requeue: true, AllocNode: "login", TimeLimit: time.Hour,
			}},
			texts: map[uint32]string{},
			nodes: map[string]*slurm.Node{"n1": {Name: "n1", State: []string{"idle"}}},
		},
		spool: l, now: time.Unix(1_800_000_000, 0),
	}
	b.Site = site.New(b.slurm, l, func() time.Time { return b.now })
	return b
}

// waiting is how many errands are on the spool.
func (b *bench) waiting(t *testing.T) int {
	t.Helper()
	ever := b.now.Add(1000 * time.Hour)
	list, err := b.spool.Errands(t.Context(), ever, ever, 1000)
	require.NoError(t, err)
	return len(list)
}

func key(restart uint32) enclave.JobKey {
	return enclave.JobKey{Cluster: "c", Job: 7, Restart: restart}
}

// fullSpool takes nothing more.
type fullSpool struct{ *ledger.Ledger }

func (fullSpool) AddErrand(context.Context, string, []byte, time.Time) (int64, error) {
	return 0, errors.New("database or disk is full")
}
