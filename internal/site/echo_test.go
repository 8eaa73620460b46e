package site_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

// drainedBy is what Slurm does when slurmd tells it of a failed script, or an admin.
func (b *bench) drainedBy(reason string) {
	b.slurm.nodes["n1"] = &slurm.Node{Name: "n1", State: []string{"idle", "drain"}, Reason: reason}
}

// passes lets a time pass in which the errands are done as they become due.
func (b *bench) passes(t *testing.T, d time.Duration) {
	t.Helper()
	for end := b.now.Add(d); b.now.Before(end); {
		b.now = b.now.Add(time.Second)
		require.NoError(t, b.Work(t.Context()))
	}
}

func TestSlurmsOwnWordsForAFailedScript(t *testing.T) {
	t.Parallel()
	// resumed is a node that we drained ago and resumed now.
	resumed := func(t *testing.T, ago time.Duration) *bench {
		t.Helper()
		b := newBench(t)
		require.NoError(t, b.Drain(t.Context(), "n1", "enclave:E220 x"))
		drained := b.now
		b.now = b.now.Add(ago)
		require.NoError(t, b.Resume(t.Context(), "n1", "enclave:E220", drained))
		require.Contains(t, b.slurm.String(), "node n1 idle <>\n")
		return b
	}
	for _, words := range []string{"Prolog error", "Epilog error"} {
		t.Run("they came first: our reason replaces them: "+words, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.drainedBy(words)
			require.NoError(t, b.Drain(t.Context(), "n1", "enclave:E220 x"))
			assert.Contains(t, b.slurm.String(), "node n1 idle+drain <enclave:E220 x>\n")
		})
		t.Run("they come after a resume: the node is resumed again: "+words, func(t *testing.T) {
			t.Parallel()
			b := resumed(t, 50*time.Millisecond)
			b.passes(t, 12*time.Second)
			b.drainedBy(words)
			b.passes(t, 6*time.Second)
			assert.Contains(t, b.slurm.String(), "node n1 idle <>\n")
			assert.Zero(t, b.waiting(t))
		})
	}
	t.Run("a second time they stay: the next script has failed, too", func(t *testing.T) {
		t.Parallel()
		b := resumed(t, 0)
		b.drainedBy("Prolog error")
		b.passes(t, 6*time.Second)
		b.drainedBy("Prolog error")
		b.passes(t, time.Minute)
		assert.Contains(t, b.slurm.String(), "<Prolog error>")
	})
	t.Run("half a minute after the resume they stay", func(t *testing.T) {
		t.Parallel()
		b := resumed(t, 0)
		b.passes(t, 31*time.Second)
		assert.Zero(t, b.waiting(t), "nobody looks any more")
		b.drainedBy("Prolog error")
		b.passes(t, time.Minute)
		assert.Contains(t, b.slurm.String(), "<Prolog error>")
	})
	t.Run("after a drain of long ago none are waited for", func(t *testing.T) {
		t.Parallel()
		b := resumed(t, 2*time.Minute)
		assert.Zero(t, b.waiting(t))
	})
	t.Run("what an admin, or we, drained meanwhile stays", func(t *testing.T) {
		t.Parallel()
		for _, reason := range []string{"fan broken", "Prolog error, ask bob", "enclave:E220 again"} {
			b := resumed(t, 0)
			b.drainedBy(reason)
			b.passes(t, time.Minute)
			assert.Contains(t, b.slurm.String(), "node n1 idle+drain <"+reason+">\n")
			assert.Zero(t, b.waiting(t))
		}
	})
	t.Run("Slurm does not answer when it is looked: the look is made up for", func(t *testing.T) {
		t.Parallel()
		b := resumed(t, 0)
		b.drainedBy("Prolog error")
		b.slurm.away = true
		b.now = b.now.Add(6 * time.Second)
		require.Error(t, b.Work(t.Context()))
		b.slurm.away = false
		b.passes(t, 15*time.Second)
		assert.Contains(t, b.slurm.String(), "node n1 idle <>\n")
	})
}
