package settle_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/job"
	"github.com/slurm-enclave/slurm-enclave/internal/site/settle"
	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// queue is one job.
type queue struct {
	job slurm.Job
	err error
}

func (q *queue) Job(context.Context, uint32) (slurm.Job, error) { return q.job, q.err }

func (q *queue) Requeue(context.Context, uint32) error {
	q.job.Restarts++
	q.job.State = "PENDING"
	return nil
}

func (q *queue) String() string { return fmt.Sprintf("%s restarts %d", q.job.State, q.job.Restarts) }

func key(restart uint32) enclave.JobKey {
	return enclave.JobKey{Cluster: "c", Job: 7, Restart: restart}
}

func TestSettle(t *testing.T) {
	t.Parallel()
	refused := job.Exit{Known: true, Status: 1 << 8}
	batch := slurm.Job{State: "COMPLETING", Batch: true, Requeue: true}
	for _, c := range []struct {
		name  string
		job   slurm.Job
		start uint32
		exit  job.Exit
		want  string
	}{
		{"a job that the gate refused goes back", batch, 0, refused, "PENDING restarts 1"},
		{"a job that its owner cancelled stays", batch, 0, job.Exit{Known: true}, "COMPLETING restarts 0"},
		{"a job that a signal ended stays", batch, 0, job.Exit{Known: true, Status: 15}, "COMPLETING restarts 0"},
		{"a job of which no exit is known stays", batch, 0, job.Exit{}, "COMPLETING restarts 0"},
		{"an interactive job stays", slurm.Job{State: "COMPLETING", Requeue: true}, 0, refused, "COMPLETING restarts 0"},
		{"--no-requeue is kept", slurm.Job{State: "COMPLETING", Batch: true}, 0, refused, "COMPLETING restarts 0"},
		{"a job that came back already stays", slurm.Job{State: "PENDING", Batch: true, Requeue: true, Restarts: 1}, 0, refused, "PENDING restarts 1"},
		{
			"the third restart is the last",
			slurm.Job{State: "COMPLETING", Batch: true, Requeue: true, Restarts: 3},
			3, refused, "COMPLETING restarts 3",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			q := &queue{job: c.job}
			o, err := settle.Settle(t.Context(), q, t.TempDir(), 3, key(c.start), c.exit)
			require.NoError(t, err)
			assert.Equal(t, c.want, q.String())
			assert.Equal(t, o.Requeue, q.job.Restarts != c.job.Restarts)
			assert.NotEmpty(t, o.Why)
		})
	}
	t.Run("a job that was let in is its own affair", func(t *testing.T) {
		t.Parallel()
		state := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(state, "go"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(state, "go", "7.0"), nil, 0o400))
		q := &queue{job: batch}
		o, err := settle.Settle(t.Context(), q, state, 3, key(0), refused)
		require.NoError(t, err)
		assert.False(t, o.Requeue)
		o, err = settle.Settle(t.Context(), q, state, 3, key(1), refused)
		require.NoError(t, err)
		assert.Equal(t, "it is back in the queue already", o.Why, "the go file of one start does not count for another")
	})
	t.Run("a go directory that can't be read is an error, not a no", func(t *testing.T) {
		t.Parallel()
		state := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(state, "go"), nil, 0o400))
		q := &queue{job: batch}
		_, err := settle.Settle(t.Context(), q, state, 3, key(0), refused)
		require.Error(t, err)
		assert.Equal(t, "COMPLETING restarts 0", q.String())
	})
	t.Run("a job that Slurm forgot is over", func(t *testing.T) {
		t.Parallel()
		o, err := settle.Settle(t.Context(), &queue{err: slurm.ErrNoJob}, t.TempDir(), 3, key(0), refused)
		require.NoError(t, err)
		assert.False(t, o.Requeue)
	})
	t.Run("a controller that does not answer is an error", func(t *testing.T) {
		t.Parallel()
		_, err := settle.Settle(t.Context(), &queue{err: errors.New("away")}, t.TempDir(), 3, key(0), refused)
		require.Error(t, err)
	})
}
