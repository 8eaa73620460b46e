package ledger_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

// evidenceNumber is evidence with the nonce of that number.
func evidenceNumber(i int) ledger.Evidence {
	return ledger.Evidence{
		Key: enclave.JobKey{Cluster: "c1", Job: 7}, Node: fmt.Sprintf("n%d", i), Purpose: 1, Epoch: 1,
		Nonce: enclave.Nonce{byte(i), byte(i >> 8)}, At: noon,
	}
}

func TestWritesOfTheSameMoment(t *testing.T) {
	t.Parallel()
	t.Run("all are on the disk when they return, and one that fails fails alone", func(t *testing.T) {
		t.Parallel()
		l, path := open(t)
		const writers = 400
		used := evidenceNumber(17) // its nonce will come again
		used.Node = "earlier"
		require.NoError(t, l.AddEvidence(t.Context(), used))
		errs := make([]error, writers)
		var all sync.WaitGroup
		for i := range writers {
			all.Go(func() { errs[i] = l.AddEvidence(t.Context(), evidenceNumber(i)) })
		}
		all.Wait()
		for i, err := range errs {
			if i == 17 {
				require.Error(t, err, "a nonce stands once")
				continue
			}
			require.NoError(t, err, "writer %d", i)
		}
		after, err := ledger.Open(t.Context(), crash(t, path))
		require.NoError(t, err)
		defer func() { assert.NoError(t, after.Close()) }()
		list, err := after.EvidenceOf(t.Context(), enclave.JobKey{Cluster: "c1", Job: 7})
		require.NoError(t, err)
		assert.Len(t, list, writers)
	})
	t.Run("a caller that gives up takes nobody with it", func(t *testing.T) {
		t.Parallel()
		l, _ := open(t)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		var all sync.WaitGroup
		var failed error
		for i := range 100 {
			all.Go(func() {
				if i%2 == 0 {
					_ = l.AddEvidence(gone, evidenceNumber(i)) // written or not: nobody waits for the word
				} else if err := l.AddEvidence(t.Context(), evidenceNumber(i)); err != nil {
					failed = err
				}
			})
		}
		all.Wait()
		require.NoError(t, failed)
		list, err := l.EvidenceOf(t.Context(), enclave.JobKey{Cluster: "c1", Job: 7})
		require.NoError(t, err)
		nodes := map[string]bool{}
		for _, e := range list {
			nodes[e.Node] = true
		}
		for i := 1; i < 100; i += 2 {
			assert.True(t, nodes[fmt.Sprintf("n%d", i)], "writer %d", i)
		}
	})
}

func TestAnEnrolmentIsReadFromMemoryOnlyWhileItIsInForce(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	ctx := t.Context()
	first := ledger.Enrolment{Node: "n1", Chip: "aa", Fingerprint: enclave.Digest{1}, Certificate: []byte{1}, At: noon}
	second := ledger.Enrolment{Node: "n1", Chip: "bb", Fingerprint: enclave.Digest{2}, Certificate: []byte{2}, At: noon}
	found := func() string {
		e, err := l.Enrolled(ctx, "n1")
		if err != nil {
			require.ErrorIs(t, err, ledger.ErrNotFound)
			return "none"
		}
		return e.Chip
	}
	assert.Equal(t, "none", found())
	require.NoError(t, l.Enrol(ctx, first))
	assert.Equal(t, "aa", found())
	assert.Equal(t, "aa", found())
	require.NoError(t, l.Enrol(ctx, second))
	assert.Equal(t, "bb", found())
	var all sync.WaitGroup
	stop := make(chan struct{})
	for range 4 { // readers that would put the old row back
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = l.Enrolled(ctx, "n1")
				}
			}
		})
	}
	for range 50 {
		require.NoError(t, l.Revoke(ctx, "n1", 0, "test", noon))
		assert.Equal(t, "none", found())
		second.Fingerprint[1]++
		require.NoError(t, l.Enrol(ctx, second))
		assert.Equal(t, "bb", found())
	}
	close(stop)
	all.Wait()
}
