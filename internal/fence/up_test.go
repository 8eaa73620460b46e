package fence_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/fence/fencetest"
)

func tables(t *testing.T) (job, closed fence.Table) {
	t.Helper()
	job, err := fence.Plan(fencetest.Input())
	require.NoError(t, err)
	closed, err = fence.Closed(1000, nil, fence.Streams{})
	require.NoError(t, err)
	return job, closed
}

func TestUp(t *testing.T) {
	job, closed := tables(t)
	t.Run("twice is as once", func(t *testing.T) {
		h := &fencetest.Host{}
		require.NoError(t, fence.Up(t.Context(), h, job))
		require.NoError(t, fence.Up(t.Context(), h, job))
		assert.Equal(t, job.String(), h.String())
	})
	t.Run("the job's fence takes the place of the closed one and gives it back", func(t *testing.T) {
		h := &fencetest.Host{}
		require.NoError(t, fence.Up(t.Context(), h, closed))
		require.NoError(t, fence.Up(t.Context(), h, job, fence.ClosedName))
		assert.Equal(t, job.String(), h.String())
		require.NoError(t, fence.Up(t.Context(), h, closed, fence.Name(4711)))
		require.NoError(t, fence.Down(t.Context(), h, 4711))
		assert.Equal(t, closed.String(), h.String())
	})
	t.Run("a kernel that lies is found out", func(t *testing.T) {
		refusal, ok := enclave.AsRefusal(fence.Up(t.Context(), &fencetest.Host{Forget: true}, job))
		require.True(t, ok)
		assert.Equal(t, fence.CodeReadBack, refusal.Code)
	})
	t.Run("a table that should have gone and did not is found", func(t *testing.T) {
		h := &fencetest.Host{}
		require.NoError(t, fence.Up(t.Context(), h, job))
		require.NoError(t, fence.Up(t.Context(), h, closed))
		h.Forget = true
		refusal, ok := enclave.AsRefusal(fence.Up(t.Context(), h, job, fence.ClosedName))
		require.True(t, ok)
		assert.Equal(t, fence.CodeLeftover, refusal.Code)
	})
	t.Run("an empty fence is refused", func(t *testing.T) {
		require.Error(t, fence.Up(t.Context(), &fencetest.Host{}, fence.Table{Name: "enclave_1"}))
	})
}

func TestDown(t *testing.T) {
	job, _ := tables(t)
	t.Run("on a node where nothing ever was", func(t *testing.T) {
		require.NoError(t, fence.Down(t.Context(), &fencetest.Host{}, 4711))
	})
	t.Run("what stays is reported", func(t *testing.T) {
		h := &fencetest.Host{}
		require.NoError(t, fence.Up(t.Context(), h, job))
		h.Forget = true
		refusal, ok := enclave.AsRefusal(fence.Down(t.Context(), h, 4711))
		require.True(t, ok)
		assert.Equal(t, fence.CodeLeftover, refusal.Code)
	})
	t.Run("not being able to look is not absence", func(t *testing.T) {
		h := &fencetest.Host{Fail: map[string]error{"Read": errors.New("netlink is away")}}
		require.Error(t, fence.Down(t.Context(), h, 4711))
	})
}

func TestReadCounters(t *testing.T) {
	job, _ := tables(t)
	h := &fencetest.Host{}
	_, err := fence.ReadCounters(t.Context(), h, 4711)
	require.ErrorIs(t, err, fence.ErrAbsent)
	require.NoError(t, fence.Up(t.Context(), h, job))
	h.Count(job.Name, fence.CounterRejected, fence.Count{Packets: 2, Bytes: 120})
	c, err := fence.ReadCounters(t.Context(), h, 4711)
	require.NoError(t, err)
	assert.Equal(t, fence.Counters{Rejected: fence.Count{Packets: 2, Bytes: 120}}, c)
	t.Run("a counter that is missing is an error, not a zero", func(t *testing.T) {
		fewer := job
		fewer.Counters = fewer.Counters[:3]
		fewer.Chains = []fence.Chain{{Name: "out"}}
		require.NoError(t, fence.Up(t.Context(), h, fewer))
		_, err := fence.ReadCounters(t.Context(), h, 4711)
		require.Error(t, err)
	})
}

func TestCheck(t *testing.T) {
	table, err := fence.Plan(fencetest.Input())
	require.NoError(t, err)
	up := func(t *testing.T) *fencetest.Host {
		t.Helper()
		h := &fencetest.Host{}
		require.NoError(t, fence.Up(t.Context(), h, table))
		return h
	}
	t.Run("a plan that travels as JSON is the same", func(t *testing.T) {
		b, err := json.Marshal(table)
		require.NoError(t, err)
		var back fence.Table
		require.NoError(t, json.Unmarshal(b, &back))
		assert.Equal(t, table, back)
	})
	t.Run("a fence that stands is well", func(t *testing.T) {
		require.NoError(t, fence.Check(t.Context(), up(t), table))
	})
	t.Run("one that is gone is the node's fault", func(t *testing.T) {
		r, ok := enclave.AsRefusal(fence.Check(t.Context(), &fencetest.Host{}, table))
		require.True(t, ok)
		assert.Equal(t, fence.CodeChanged, r.Code)
		assert.Equal(t, enclave.FaultNode, r.Fault)
	})
	t.Run("one with a rule less, too", func(t *testing.T) {
		h, less := up(t), table
		less.Chains = slices.Clone(table.Chains)
		less.Chains[0].Rules = less.Chains[0].Rules[1:]
		require.NoError(t, h.Replace(t.Context(), less))
		r, ok := enclave.AsRefusal(fence.Check(t.Context(), h, table))
		require.True(t, ok)
		assert.Equal(t, fence.CodeChanged, r.Code)
	})
	t.Run("one that can't be read is no change", func(t *testing.T) {
		h := up(t)
		h.Fail = map[string]error{"Read": fmt.Errorf("list: %w", fence.ErrUnreadable)}
		err := fence.Check(t.Context(), h, table)
		require.Error(t, err)
		_, ok := enclave.AsRefusal(err)
		assert.False(t, ok)
		_, err = fence.Stands(t.Context(), h, table.Name)
		require.Error(t, err)
	})
	t.Run("nothing to compare with is no fence", func(t *testing.T) {
		require.ErrorIs(t, fence.Check(t.Context(), up(t), fence.Table{}), fence.ErrUnreadable)
	})
}
