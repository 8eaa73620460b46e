package stage_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/stage"
)

// house records what was called; a name in broken fails in that direction.
type house struct {
	calls  []string
	broken map[string]error
}

func (h *house) stage(name string) stage.Stage {
	call := func(phase string) func(context.Context) error {
		return func(ctx context.Context) error {
			h.calls = append(h.calls, phase+" "+name)
			if err := ctx.Err(); err != nil && phase == "down" {
				return err
			}
			return h.broken[phase+" "+name]
		}
	}
	return stage.Stage{Name: name, Up: call("up"), Down: call("down")}
}

func (h *house) stages() []stage.Stage {
	return []stage.Stage{h.stage("mesh"), h.stage("fence"), h.stage("subtree")}
}

func TestUp(t *testing.T) {
	t.Run("the failed stage is taken down too", func(t *testing.T) {
		h := &house{broken: map[string]error{"up fence": errors.New("busy")}}
		err := stage.Up(t.Context(), h.stages(), nil)
		require.EqualError(t, err, "fence: up: busy")
		assert.Equal(t, []string{"up mesh", "up fence", "down fence", "down mesh"}, h.calls)
	})
	t.Run("the cause comes first and is found although taking down fails as well", func(t *testing.T) {
		cause := enclave.Refuse("E305", enclave.FaultNode, "a mount too many")
		h := &house{broken: map[string]error{
			"up subtree": cause,
			"down fence": enclave.Refuse("E400", enclave.FaultNode, "table stays"),
		}}
		err := stage.Up(t.Context(), h.stages(), nil)
		refusal, ok := enclave.AsRefusal(err)
		require.True(t, ok)
		assert.Same(t, cause, refusal)
		require.ErrorContains(t, err, "fence: down: E400")
		assert.Equal(t, []string{"up mesh", "up fence", "up subtree", "down subtree", "down fence", "down mesh"}, h.calls)
	})
	t.Run("a deadline that has passed does not stop taking down", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := &house{}
		stages := h.stages()
		up := stages[1].Up
		stages[1].Up = func(c context.Context) error { cancel(); return errors.Join(up(c), c.Err()) }
		err := stage.Up(ctx, stages, nil)
		require.ErrorIs(t, err, context.Canceled)
		require.NotContains(t, err.Error(), "down")
		assert.Equal(t, []string{"up mesh", "up fence", "down fence", "down mesh"}, h.calls)
	})
	t.Run("no stage starts after the deadline", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		h := &house{}
		require.ErrorIs(t, stage.Up(ctx, h.stages(), nil), context.Canceled)
		assert.Equal(t, []string{"down mesh"}, h.calls)
	})
}

func TestDown(t *testing.T) {
	t.Run("all are tried and all errors are kept", func(t *testing.T) {
		h := &house{broken: map[string]error{"down subtree": errors.New("busy"), "down mesh": errors.New("gone")}}
		err := stage.Down(t.Context(), h.stages(), nil)
		require.ErrorContains(t, err, "subtree: down: busy")
		require.ErrorContains(t, err, "mesh: down: gone")
		assert.Equal(t, []string{"down subtree", "down fence", "down mesh"}, h.calls)
	})
	t.Run("success is a nil error, not a nil pointer in an error", func(t *testing.T) {
		h := &house{}
		assert.True(t, stage.Down(t.Context(), h.stages(), nil) == nil) //nolint:testifylint // a typed nil is what is looked for
	})
	t.Run("every stage has a deadline of its own", func(t *testing.T) {
		look := func(ctx context.Context) error {
			end, ok := ctx.Deadline()
			require.True(t, ok)
			assert.LessOrEqual(t, time.Until(end), stage.DownLimit)
			return nil
		}
		require.NoError(t, stage.Down(t.Context(), []stage.Stage{{Name: "a", Down: look}, {Name: "b"}}, nil))
	})
}
