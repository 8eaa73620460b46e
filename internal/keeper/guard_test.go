package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/fence"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
	"github.com/slurm-enclave/slurm-enclave/internal/mesh"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Lost is keeper.Verifier's.
func (s *scene) Lost(_ context.Context, r api.BrokenRequest) (api.BrokenAnswer, error) {
	_, err := os.Stat(s.goFile())
	s.note("lost %s, go %t, tunnel %t, fence %q", r.Refusal.Code, err == nil, !s.tunnel.closed, s.fences())
	s.mu.Lock()
	defer s.mu.Unlock()
	return api.BrokenAnswer{Refusal: r.Refusal}, s.err
}

// fences are the names of the tables that stand.
func (s *scene) fences() string {
	var out []string
	for line := range strings.Lines(s.filter.String()) {
		if name, ok := strings.CutPrefix(line, "table inet "); ok {
			out = append(out, strings.Fields(name)[0])
		}
	}
	return strings.Join(out, " ")
}

// changes is keeper.Parts.Changes.
func (s *scene) changes(context.Context) (<-chan struct{}, error) { return s.change, nil }

// tell says that something was changed.
func (s *scene) tell() { s.change <- struct{}{} }

// flush is nft flush ruleset.
func (s *scene) flush(t *testing.T) {
	t.Helper()
	require.NoError(t, s.filter.Replace(t.Context(), fence.Table{}, s.walls.Fence.Name))
}

func TestGuard(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*testing.T, *scene)
		code   enclave.Code
	}{
		"the fence is flushed": {change: func(t *testing.T, s *scene) { t.Helper(); s.flush(t) }, code: fence.CodeChanged},
		"a rule of the fence is gone": {change: func(t *testing.T, s *scene) {
			t.Helper()
			less := s.walls.Fence
			less.Chains = less.Chains[1:]
			require.NoError(t, s.filter.Replace(t.Context(), less))
		}, code: fence.CodeChanged},
		"a policy rule is gone": {change: func(t *testing.T, s *scene) {
			t.Helper()
			require.NoError(t, s.net.DeleteRule(t.Context(), s.walls.Mesh.Rules[0]))
		}, code: mesh.CodeRouting},
		"a route is gone": {change: func(t *testing.T, s *scene) {
			t.Helper()
			require.NoError(t, s.net.DeleteRoute(t.Context(), s.walls.Mesh.Routes[0]))
		}, code: mesh.CodeRouting},
		"the interface is gone": {change: func(t *testing.T, s *scene) {
			t.Helper()
			require.NoError(t, s.net.DeleteLink(t.Context(), s.c.Device))
		}, code: mesh.CodeInterface},
		"a rule of the site's stands before the job's": {change: func(t *testing.T, s *scene) {
			t.Helper()
			require.NoError(t, s.net.AddRule(t.Context(), mesh.Rule{Family: mesh.IPv4, Priority: 5, Table: 254}))
		}, code: mesh.CodePath},
	} {
		bubble(t, name+": GO goes first, then a fence closes, then the tunnel, then the verifier hears", func(t *testing.T, s *scene) {
			done := s.run(t.Context(), 10)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			tc.change(t, s)
			began := s.Now()
			s.tell()
			r, ok := enclave.AsRefusal(s.closed(t, done))
			require.True(t, ok)
			assert.Equal(t, tc.code, r.Code)
			assert.Equal(t, enclave.FaultNode, r.Fault)
			assert.Equal(t, "n1", r.Node)
			assert.Contains(t, s.said(), fmt.Sprintf("lost %s, go false, tunnel false, fence %q", tc.code, "enclave_closed"))
			assert.Less(t, s.Now()-began, time.Second)
			deny, err := os.ReadFile(strings.TrimSuffix(s.goFile(), ".go") + ".deny")
			require.NoError(t, err)
			assert.Contains(t, string(deny), string(tc.code))
		})
		bubble(t, name+", and nobody told", func(t *testing.T, s *scene) {
			done := s.run(t.Context(), 10)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			tc.change(t, s)
			began := s.Now()
			r, ok := enclave.AsRefusal(s.closed(t, done))
			require.True(t, ok)
			assert.Equal(t, tc.code, r.Code)
			assert.LessOrEqual(t, s.Now()-began, 31*time.Second)
		})
	}
	bubble(t, "a change that is none of the enclave's ends nothing", func(t *testing.T, s *scene) {
		ctx, cancel := context.WithCancel(t.Context())
		done := s.run(ctx, 10)
		for range 100 {
			time.Sleep(time.Second)
			s.tell()
			require.NoError(t, s.net.AddRule(ctx, mesh.Rule{Family: mesh.IPv4, Priority: 20000, Table: 254}))
			require.NoError(t, s.net.DeleteRule(ctx, mesh.Rule{Family: mesh.IPv4, Priority: 20000, Table: 254}))
		}
		assert.NotZero(t, s.expires())
		cancel()
		require.NoError(t, s.closed(t, done))
		assert.NotContains(t, s.said(), "lost")
	})
	bubble(t, "the epilog's closed fence is no loss", func(t *testing.T, s *scene) {
		ctx, cancel := context.WithCancel(t.Context())
		done := s.run(ctx, 10)
		time.Sleep(time.Second)
		require.NoError(t, fence.Up(ctx, s.filter, s.walls.Closed, s.walls.Fence.Name))
		s.tell()
		time.Sleep(time.Minute)
		cancel()
		require.NoError(t, s.closed(t, done))
		assert.NotContains(t, s.said(), "lost")
	})
	bubble(t, "a list that lacks a line once is no loss", func(t *testing.T, s *scene) {
		ctx, cancel := context.WithCancel(t.Context())
		done := s.run(ctx, 10)
		time.Sleep(time.Second)
		synctest.Wait()
		rule := s.walls.Mesh.Rules[0]
		require.NoError(t, s.net.DeleteRule(ctx, rule))
		s.tell()
		synctest.Wait() // the first look
		require.NoError(t, s.net.AddRule(ctx, rule))
		time.Sleep(time.Minute)
		cancel()
		require.NoError(t, s.closed(t, done))
		assert.NotContains(t, s.said(), "lost")
	})
	bubble(t, "a verifier that is away is told when it is back", func(t *testing.T, s *scene) {
		done := s.run(t.Context(), 1000)
		time.Sleep(time.Second)
		s.set(enclave.Refuse("E500", enclave.FaultService, "connection refused"), nil)
		s.flush(t)
		s.tell()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		assert.NoFileExists(t, s.goFile())
		assert.True(t, s.tunnel.closed)
		s.set(nil, nil)
		require.Error(t, s.closed(t, done))
		assert.Greater(t, strings.Count(s.said(), "lost E426"), 5)
	})
	bubble(t, "where no fence can be put up, the tunnel stays until the epilog", func(t *testing.T, s *scene) {
		ctx, cancel := context.WithCancel(t.Context())
		done := s.run(ctx, 10)
		time.Sleep(time.Second)
		synctest.Wait()
		s.flush(t)
		s.filter.Fail = map[string]error{"Replace": errors.New("no buffer space")}
		s.tell()
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.NoFileExists(t, s.goFile())
		assert.False(t, s.tunnel.closed)
		assert.Contains(t, s.said(), "lost E426, go false, tunnel true")
		cancel()
		require.ErrorContains(t, s.closed(t, done), "no buffer space")
	})
	bubble(t, "what can't be read for long ends the job, and is nobody's fault", func(t *testing.T, s *scene) {
		done := s.run(t.Context(), 10)
		time.Sleep(time.Second)
		synctest.Wait()
		s.filter.Fail = map[string]error{"Read": fmt.Errorf("list tables: %w", fence.ErrUnreadable)}
		s.tell()
		time.Sleep(20 * time.Second)
		assert.NotZero(t, s.expires())
		synctest.Wait()
		r, ok := enclave.AsRefusal(<-done)
		require.True(t, ok)
		assert.Equal(t, keeper.CodeBlind, r.Code)
		assert.Equal(t, enclave.FaultService, r.Fault)
	})
	bubble(t, "a kernel that no longer tells of changes ends the job", func(t *testing.T, s *scene) {
		done := s.run(t.Context(), 10)
		time.Sleep(time.Second)
		close(s.change)
		r, ok := enclave.AsRefusal(s.closed(t, done))
		require.True(t, ok)
		assert.Equal(t, keeper.CodeBlind, r.Code)
	})
	bubble(t, "an interface that is deleted under the keeper is told, too", func(t *testing.T, s *scene) {
		done := s.run(t.Context(), 10)
		time.Sleep(time.Second)
		close(s.tunnel.done)
		r, ok := enclave.AsRefusal(s.closed(t, done))
		require.True(t, ok)
		assert.Equal(t, mesh.CodeInterface, r.Code)
		assert.Contains(t, s.said(), "lost E428")
	})
}
