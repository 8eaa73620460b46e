package verifier_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// restarted is a job in one of its later starts, as Slurm has it.
func (w *world) restarted(restart uint32, nodes ...string) enclave.JobKey {
	w.t.Helper()
	w.site.SetJob(7, enclave.JobState{Alive: true, State: "RUNNING", Batch: true, AllocNode: "login1", Restart: restart})
	j := job(7, nodes...)
	j.Restart = restart
	k := w.register(j)
	w.all(k, nodes...)
	synctest.Wait()
	return k
}

func (w *world) pass(d time.Duration) {
	w.t.Helper()
	for range d / (30 * time.Second) {
		time.Sleep(30 * time.Second)
		require.NoError(w.t, w.v.SealDue(w.t.Context()))
	}
}

func TestAJobNumberThatComesAgain(t *testing.T) {
	t.Parallel()
	bubble(t, "with a lower restart count runs on, and the forgotten start ends", func(t *testing.T, w *world) {
		old := w.restarted(3, "n1")
		k := w.restarted(1, "n2")
		w.pass(5 * time.Minute)
		assert.Nil(t, w.entry(k).Ended, "Slurm has it RUNNING")
		require.NoError(t, w.renew(k, "n2"))
		assert.NotNil(t, w.entry(old).Ended, "Slurm has forgotten it")
		r, err := w.v.Report(t.Context(), verifier.Viewer{Operator: true}, 7, nil)
		require.NoError(t, err)
		assert.Equal(t, uint32(1), r.Restart)
		time.Sleep(w.settings.Config.Limits.Overdue() - 6*time.Minute)
		require.NoError(t, w.renew(k, "n2"))
		time.Sleep(10 * time.Minute)
		assert.Empty(t, w.site.String(), "nothing is overdue of the old one")
		w.site.SetJob(7, enclave.JobState{State: "COMPLETED", Restart: 1})
		w.pass(3 * time.Minute)
		assert.NotNil(t, w.entry(k).Ended, "the control")
	})
	bubble(t, "a registration that is read late does not end the start after it", func(t *testing.T, w *world) {
		k := w.restarted(1, "n1")
		_, err := w.v.Register(t.Context(), api.RegisterRequest{Job: job(7, "n1")})
		require.NoError(t, err)
		w.pass(5 * time.Minute)
		assert.Nil(t, w.entry(k).Ended)
		require.NoError(t, w.renew(k, "n1"))
		zero := enclave.JobKey{Cluster: "c1", Job: 7}
		assert.NotNil(t, w.entry(zero).Ended)
	})
	bubble(t, "with the same restart count is told so, and gets in with the next", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		w.down(k, "n1")
		w.settled(k)
		before := w.receipt(k)
		require.NotNil(t, before)
		w.site.Submit(7)
		_, err := w.v.Register(t.Context(), api.RegisterRequest{Job: job(7, "n2")})
		assert.Equal(t, "E551 service", told(err))
		require.ErrorContains(t, err, "7.0 is in the ledger already")
		next := w.restarted(1, "n2")
		assert.NotNil(t, w.entry(next).Started)
		assert.Equal(t, before.Digest, w.receipt(k).Digest)
	})
	bubble(t, "of another user is told so before the first is over", func(t *testing.T, w *world) {
		w.register(job(7, "n1"))
		w.restart()
		other := job(7, "n1")
		other.UID = 2002
		_, err := w.v.Register(t.Context(), api.RegisterRequest{Job: other})
		assert.Equal(t, "E551 service", told(err))
		_, err = w.v.Register(t.Context(), api.RegisterRequest{Job: job(7, "n1")})
		assert.Equal(t, "E502 service", told(err), "the control: it may be the same start")
	})
}

func TestGoFilesOfOtherTimes(t *testing.T) {
	t.Parallel()
	leave := func(t *testing.T, w *world, k enclave.JobKey, age time.Duration) {
		t.Helper()
		path := filepath.Join(w.path, "go", k.Directory())
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, nil, 0o444))
		require.NoError(t, os.Chtimes(path, time.Now().Add(-age), time.Now().Add(-age)))
	}
	bubble(t, "one that the ledger knows nothing of keeps no job out, and speaks for none", func(t *testing.T, w *world) {
		k := enclave.JobKey{Cluster: "c1", Job: 7}
		leave(t, w, k, time.Minute)
		w.register(job(7, "n1"))
		assert.False(t, w.goFile(k))
		assert.Equal(t, map[string]string{"n1": "go"}, w.all(k, "n1"))
		assert.True(t, w.goFile(k))
	})
	bubble(t, "one goes a day after its start has ended", func(t *testing.T, w *world) {
		k, runs := w.register(job(7, "n1")), w.register(job(8, "n2"))
		w.all(k, "n1")
		w.all(runs, "n2")
		leave(t, w, runs, 0)
		w.settled(k)
		w.site.SetJob(8, enclave.JobState{Alive: true, State: "RUNNING"})
		time.Sleep(time.Hour)
		require.NoError(t, w.v.SealDue(t.Context()))
		assert.True(t, w.goFile(k), "EpilogSlurmctld may not have heard the answer")
		time.Sleep(24 * time.Hour)
		for _, old := range []enclave.JobKey{k, runs} {
			leave(t, w, old, 25*time.Hour) // the files' times are of the true clock
		}
		require.NoError(t, w.v.SealDue(t.Context()))
		assert.False(t, w.goFile(k))
		assert.True(t, w.goFile(runs))
	})
}
