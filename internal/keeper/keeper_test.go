package keeper_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
)

// bubble runs a test on a clock that stands still until everybody waits.
func bubble(t *testing.T, name string, f func(*testing.T, *scene)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, newScene(t)) })
	})
}

// closed waits for the keeper's end: GO is gone, and was so before the tunnel.
func (s *scene) closed(t *testing.T, done <-chan error) error {
	t.Helper()
	err := <-done
	assert.NoFileExists(t, s.goFile())
	if s.c.Userspace {
		assert.True(t, s.tunnel.closed)
		assert.False(t, s.tunnel.late, "the tunnel was closed before the gate")
	}
	assert.Empty(t, s.c.Keys.Bytes(), "the keys are wiped")
	return err
}

func TestRun(t *testing.T) {
	bubble(t, "the job's own end closes the gate and then the tunnel", func(t *testing.T, s *scene) {
		s.c.Expires = 1060
		done := s.run(t.Context(), 10)
		require.NoError(t, s.closed(t, done))
		assert.Equal(t, 1060*time.Second, s.Now())
	})
	bubble(t, "no GO outlives the job's own end", func(t *testing.T, s *scene) {
		s.c.Expires = 1030
		done := s.run(t.Context(), 10)
		time.Sleep(25 * time.Second)
		assert.Equal(t, 1030*time.Second, s.expires())
		require.NoError(t, s.closed(t, done))
	})
	bubble(t, "the epilog's signal is no error, and leaves the kernel's device to the epilog", func(t *testing.T, s *scene) {
		s.c.Userspace = false
		ctx, cancel := context.WithCancel(t.Context())
		done := s.run(ctx, 10)
		time.Sleep(time.Second)
		cancel()
		require.NoError(t, s.closed(t, done))
		assert.Len(t, s.peers(), 2)
	})
	bubble(t, "a tunnel that ends by itself closes the gate", func(t *testing.T, s *scene) {
		done := s.run(t.Context(), 10)
		time.Sleep(time.Second)
		close(s.tunnel.done)
		require.ErrorContains(t, s.closed(t, done), "ended")
	})
	bubble(t, "a prolog that ended without GO leaves a keeper that asks nobody", func(t *testing.T, s *scene) {
		s.c.Expires = 1600
		done := s.run(t.Context(), 0)
		require.NoError(t, s.closed(t, done))
		assert.Empty(t, s.renewed)
		assert.Equal(t, 1600*time.Second, s.Now())
	})
	bubble(t, "a keeper that nobody waits for ends at once", func(t *testing.T, s *scene) {
		p := keeper.Parts{Host: s, Mesh: s.net.Kernel(), Changes: s.changes}
		err := keeper.Run(t.Context(), p, s.c, func(error) error { return errors.New("broken pipe") })
		require.ErrorContains(t, err, "broken pipe")
		assert.True(t, s.tunnel.closed)
	})
	for name, spoil := range map[string]func(*scene){
		"settle": func(s *scene) { s.settle = errors.New("no cgroup") },
		"open":   func(s *scene) { s.open = errors.New("no tun") },
	} {
		bubble(t, "what is not in place is said: "+name, func(t *testing.T, s *scene) {
			spoil(s)
			var said error
			err := keeper.Run(t.Context(), keeper.Parts{Host: s, Changes: s.changes}, s.c, func(err error) error { said = err; return nil })
			require.Error(t, err)
			require.Error(t, said)
		})
	}
}

func TestRenewal(t *testing.T) {
	bubble(t, "GO gets a new end with each renewal, and none is early or late", func(t *testing.T, s *scene) {
		ctx, cancel := context.WithCancel(t.Context())
		done := s.run(ctx, 10)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.GreaterOrEqual(t, len(s.renewed), 54)
		at := upSince
		for _, next := range s.renewed {
			assert.InDelta(t, 10, (next - at).Seconds(), 1.0001)
			at = next
		}
		assert.Equal(t, at.Truncate(time.Second)+60*time.Second, s.expires())
		assert.NotEqual(t, s.claims[0].Nonce, s.claims[1].Nonce)
		assert.Equal(t, s.claims[0].Keys, s.claims[1].Keys)
		cancel()
		require.NoError(t, s.closed(t, done))
	})
	bubble(t, "a verifier that is away for less than the grace period harms nobody", func(t *testing.T, s *scene) {
		ctx, cancel := context.WithCancel(t.Context())
		done := s.run(ctx, 10)
		s.set(enclave.Refuse("E500", enclave.FaultService, "connection refused"), nil)
		time.Sleep(55 * time.Second)
		assert.Equal(t, upSince+60*time.Second, s.expires(), "GO is as it was")
		s.set(nil, nil)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		assert.Greater(t, s.expires(), upSince+110*time.Second)
		assert.Contains(t, s.said(), "not renewed, trying again")
		assert.Contains(t, s.said(), "renewed again")
		assert.Equal(t, 1, strings.Count(s.said(), "trying again"), "one line for a whole outage")
		cancel()
		require.NoError(t, s.closed(t, done))
	})
	bubble(t, "a verifier that is away for longer closes the node, at GO's end", func(t *testing.T, s *scene) {
		done := s.run(t.Context(), 10)
		s.set(enclave.Refuse("E500", enclave.FaultService, "connection refused"), nil)
		err := s.closed(t, done)
		r, ok := enclave.AsRefusal(err)
		require.True(t, ok)
		assert.Equal(t, keeper.CodeLate, r.Code)
		require.ErrorContains(t, err, "connection refused")
		assert.Equal(t, upSince+60*time.Second, s.Now())
	})
	bubble(t, "the kernel's device goes, too, when nobody vouches for the node", func(t *testing.T, s *scene) {
		s.c.Userspace = false
		done := s.run(t.Context(), 10)
		s.set(enclave.Refuse("E500", enclave.FaultService, "connection refused"), nil)
		require.Error(t, s.closed(t, done))
		assert.Empty(t, s.peers())
	})
	bubble(t, "what the verifier decides is final", func(t *testing.T, s *scene) {
		done := s.run(t.Context(), 10)
		s.set(nil, enclave.Refuse("E235", enclave.FaultNode, "old firmware"))
		require.ErrorContains(t, s.closed(t, done), "E235")
		assert.InDelta(t, 1010, s.Now().Seconds(), 1.1)
	})
	bubble(t, "a GO that can't be written, for /run is full, is tried again, and the old one stays", func(t *testing.T, s *scene) {
		ctx, cancel := context.WithCancel(t.Context())
		inTheWay := filepath.Join(s.c.Gate.Path, "4711+.go", "x")
		done := s.run(ctx, 10)
		time.Sleep(time.Second)
		require.NoError(t, os.MkdirAll(inTheWay, 0o700))
		time.Sleep(39 * time.Second)
		assert.Equal(t, upSince+60*time.Second, s.expires())
		assert.Contains(t, s.said(), "not renewed, trying again")
		require.NoError(t, os.RemoveAll(filepath.Dir(inTheWay)))
		time.Sleep(6 * time.Second)
		synctest.Wait()
		assert.Greater(t, s.expires(), upSince+90*time.Second)
		cancel()
		require.NoError(t, s.closed(t, done))
	})
	bubble(t, "one that can't be written until its end closes the node", func(t *testing.T, s *scene) {
		done := s.run(t.Context(), 10)
		time.Sleep(time.Second)
		inTheWay := filepath.Join(s.c.Gate.Path, "4711+.go", "x")
		require.NoError(t, os.MkdirAll(inTheWay, 0o700))
		err := s.closed(t, done)
		r, ok := enclave.AsRefusal(err)
		require.True(t, ok)
		assert.Equal(t, keeper.CodeLate, r.Code)
		require.ErrorContains(t, err, "write gate file")
	})
	bubble(t, "a firmware that is busy is asked again", func(t *testing.T, s *scene) {
		ctx, cancel := context.WithCancel(t.Context())
		s.busy = enclave.Refuse("E226", enclave.FaultNode, "busy")
		done := s.run(ctx, 10)
		time.Sleep(30 * time.Second)
		s.mu.Lock()
		s.busy = nil
		s.mu.Unlock()
		time.Sleep(6 * time.Second)
		synctest.Wait()
		assert.NotEmpty(t, s.renewed)
		cancel()
		require.NoError(t, s.closed(t, done))
	})
	t.Run("nothing here reads a wall clock", func(t *testing.T) {
		files, err := filepath.Glob("*.go")
		require.NoError(t, err)
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			assert.NotContains(t, string(b), "time.Now", f)
			assert.NotContains(t, string(b), "time.Since", f)
		}
	})
}

func TestWatch(t *testing.T) {
	bubble(t, "a node that leaves is out of the tunnel at once, and GO is gone", func(t *testing.T, s *scene) {
		ctx, cancel := context.WithCancel(t.Context())
		done := s.run(ctx, 10)
		time.Sleep(3 * time.Second)
		before := s.peers()
		require.Contains(t, before, "n3")
		s.news <- s.without("n3", nil)
		synctest.Wait()
		assert.Equal(t, upSince+3*time.Second, s.Now(), "not a moment passed")
		after := s.peers()
		assert.NotContains(t, after, "n3")
		assert.NotEqual(t, before["n2"], after["n2"], "a new key for those that stay")
		assert.Zero(t, s.expires())
		time.Sleep(12 * time.Second)
		assert.Zero(t, s.expires(), "a renewal does not write GO again")
		cancel()
		require.NoError(t, s.closed(t, done))
	})
	bubble(t, "the node that was revoked closes its gate and its tunnel", func(t *testing.T, s *scene) {
		s.c.Userspace = false
		done := s.run(t.Context(), 10)
		time.Sleep(time.Second)
		s.set(enclave.Refuse("E532", enclave.FaultNode, "revoked"), nil)
		s.news <- func(request) (answer, error) { return answer{}, enclave.Refuse("E532", enclave.FaultNode, "revoked") }
		require.ErrorContains(t, s.closed(t, done), "E532")
		assert.Equal(t, upSince+time.Second, s.Now())
		assert.Empty(t, s.peers())
	})
	bubble(t, "the nodes that stay hold their tunnel for the epilog, but not for ever", func(t *testing.T, s *scene) {
		s.c.Userspace = false
		done := s.run(t.Context(), 10)
		time.Sleep(3 * time.Second)
		s.set(nil, enclave.Refuse("E532", enclave.FaultNode, "n3 was revoked"))
		s.news <- s.without("n3", nil)
		time.Sleep(55 * time.Second)
		synctest.Wait()
		assert.Len(t, s.peers(), 1, "the epilog reads the counters of this device")
		require.ErrorContains(t, s.closed(t, done), "E242")
		assert.Equal(t, upSince+60*time.Second, s.Now())
	})
	bubble(t, "a job that is over has its epilog on the way", func(t *testing.T, s *scene) {
		ctx, cancel := context.WithCancel(t.Context())
		done := s.run(ctx, 10)
		s.set(enclave.Refuse("E502", enclave.FaultService, "not running"), nil)
		time.Sleep(40 * time.Second)
		synctest.Wait()
		assert.NotZero(t, s.expires())
		assert.Contains(t, s.said(), `level=info msg="not renewed, for the job ends`)
		assert.NotContains(t, s.said(), "level=warning", "an end as usual is nobody's worry")
		cancel()
		require.NoError(t, s.closed(t, done))
	})
	bubble(t, "a watch that was cut off is taken up again", func(t *testing.T, s *scene) {
		ctx, cancel := context.WithCancel(t.Context())
		done := s.run(ctx, 10)
		for range 3 {
			s.news <- func(request) (answer, error) {
				return answer{}, enclave.Refuse("E509", enclave.FaultService, "stopping")
			}
		}
		time.Sleep(5 * time.Second)
		s.news <- s.without("n2", nil)
		synctest.Wait()
		assert.NotContains(t, s.peers(), "n2")
		cancel()
		require.NoError(t, s.closed(t, done))
	})
	bubble(t, "answers that say nothing are not asked for in a storm", func(t *testing.T, s *scene) {
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		for range 8 {
			s.news <- func(request) (answer, error) { asked++; return answer{}, nil }
		}
		done := s.run(ctx, 10)
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, 4, asked)
		cancel()
		require.NoError(t, s.closed(t, done))
	})
	for name, spoil := range map[string]func(*enclave.RosterHeader, *roster.Answer){
		"a roster of the same epoch": func(h *enclave.RosterHeader, _ *roster.Answer) { h.Epoch-- },
		"a roster of another job":    func(h *enclave.RosterHeader, _ *roster.Answer) { h.Job++ },
		"a roster with another root": func(h *enclave.RosterHeader, _ *roster.Answer) { h.Root[0]++ },
		"an answer to another call": func(_ *enclave.RosterHeader, a *roster.Answer) {
			if a != nil {
				a.Nonce[0]++
			}
		},
		"another node's seed": func(_ *enclave.RosterHeader, a *roster.Answer) {
			if a != nil {
				a.Seed[40]++
			}
		},
	} {
		bubble(t, name+" closes the node", func(t *testing.T, s *scene) {
			done := s.run(t.Context(), 10)
			time.Sleep(time.Second)
			s.news <- s.without("n3", spoil)
			r, ok := enclave.AsRefusal(s.closed(t, done))
			require.True(t, ok)
			assert.Equal(t, keeper.CodeNews, r.Code)
		})
	}
	bubble(t, "a tunnel that does not let go of a peer closes the node", func(t *testing.T, s *scene) {
		s.net.Forget = map[string]bool{"narrow": true}
		done := s.run(t.Context(), 10)
		time.Sleep(time.Second)
		s.news <- s.without("n3", nil)
		require.ErrorContains(t, s.closed(t, done), "still holds peer")
	})
}

func TestConfig(t *testing.T) {
	t.Run("what is encoded is decoded, and the bytes are wiped", func(t *testing.T) {
		c := newScene(t).c
		b, err := c.Encode()
		require.NoError(t, err)
		got, err := keeper.Decode(b)
		require.NoError(t, err)
		assert.Equal(t, c.Keys.Bytes(), got.Keys.Bytes())
		c.Keys, got.Keys = enclave.Secret{}, enclave.Secret{}
		assert.Equal(t, c, got)
		assert.Equal(t, make([]byte, len(b)), b)
	})
	for name, spoil := range map[string]func(*keeper.Config){
		"no job":              func(c *keeper.Config) { c.Key.Job = 0 },
		"no keys":             func(c *keeper.Config) { c.Keys = enclave.Secret{} },
		"no end":              func(c *keeper.Config) { c.Expires = 0 },
		"no verifier":         func(c *keeper.Config) { c.Verifier = "" },
		"no epoch":            func(c *keeper.Config) { c.Epoch = 0 },
		"a foreign roster":    func(c *keeper.Config) { c.Node = "n9" },
		"a relative path":     func(c *keeper.Config) { c.Gate.Path = "gate" },
		"another job's place": func(c *keeper.Config) { c.Directory = "/run/slurm-enclave/4712.0" },
		"a device too long":   func(c *keeper.Config) { c.Device = "enc4711471147114" },
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			c := newScene(t).c
			spoil(&c)
			_, err := c.Encode()
			require.Error(t, err)
		})
	}
	assert.Equal(t, []int{1, 1, 2, 8}, []int{keeper.Processors(1), keeper.Processors(4), keeper.Processors(8), keeper.Processors(256)})
}

func FuzzDecode(f *testing.F) {
	b, err := newScene(f).c.Encode()
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte("slurm-enclave/keeper/v2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := keeper.Decode(b)
		if err == nil {
			require.NoError(t, c.Check())
		}
	})
}
