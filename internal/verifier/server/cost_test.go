package server_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
)

func (s *site) holds(credential string) *client.Client {
	c := client.New(client.Options{Address: s.address, Pin: s.pin(), Credential: func(context.Context, string) (string, error) { return credential, nil }})
	s.t.Cleanup(c.Close)
	return c
}

func TestStrangersStartFewPrograms(t *testing.T) {
	t.Parallel()
	t.Run("a source whose credentials are none is turned away before they are looked at", func(t *testing.T) {
		t.Parallel()
		s := start(t)
		garbage := s.holds("MUNGE:x")
		var err error
		for range 60 {
			_, err = garbage.Jobs(t.Context())
			require.Error(t, err)
		}
		assert.Equal(t, "E131", code(err))
		assert.Less(t, s.munge.ran.Load(), int32(50), "60 calls")
	})
	t.Run("they run a few at a time", func(t *testing.T) {
		t.Parallel()
		s := start(t)
		s.munge.hold = make(chan struct{})
		var calls sync.WaitGroup
		for i := range 30 {
			c := s.holds(fmt.Sprintf("MUNGE:%d:%s", 2000+i, api.Question("GET", api.PathJobs)))
			calls.Go(func() {
				_, err := c.Jobs(t.Context())
				assert.NoError(t, err)
			})
		}
		require.Eventually(t, func() bool { return s.munge.at.Load() == 8 }, 20*time.Second, time.Millisecond)
		close(s.munge.hold)
		calls.Wait()
		assert.Equal(t, int32(8), s.munge.top.Load())
		assert.Equal(t, int32(30), s.munge.ran.Load(), "and all come to their turn")
	})
}

func TestOneUserCostsNoMoreThanItsShare(t *testing.T) {
	t.Parallel()
	s := start(t)
	n := 0
	ask := func(uid uint32) error {
		n++ // a credential is good once
		credential := fmt.Sprintf("MUNGE:%d %d:%s", uid, n, api.Question("GET", api.PathJobs))
		c := client.New(client.Options{Address: s.address, Pin: s.pin(), Credential: func(context.Context, string) (string, error) { return credential, nil }})
		defer c.Close()
		_, err := c.Jobs(t.Context())
		return err
	}
	var err error
	for range 400 {
		if err = ask(2001); err != nil {
			break
		}
	}
	assert.Equal(t, "E131", code(err))
	ran := s.levels.ran.Load()
	require.NoError(t, ask(2002), "another user is not to wait for it")
	require.NoError(t, ask(0), "nor an operator")
	assert.Equal(t, ran+1, s.levels.ran.Load(), "whom Slurm needs not be asked about")
	t.Run("nor on the Unix socket, which is open to all", func(t *testing.T) {
		for range 400 {
			if _, err = s.controller(2003).PendingEnrols(t.Context()); code(err) != "E132" {
				break
			}
		}
		assert.Equal(t, "E131", code(err))
		_, err = s.controller(3000).PendingEnrols(t.Context())
		assert.NoError(t, err, "an administrator")
	})
}
