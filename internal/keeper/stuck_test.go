package keeper_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Look is keeper.Stuck's.
func (s *scene) Look() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks = append(s.looks, s.Now())
	if len(s.stuck) == 0 {
		return 0, nil
	}
	now := s.stuck[0]
	s.stuck = s.stuck[1:]
	if err, ok := now.(error); ok {
		return 0, err
	}
	return now.(int), nil
}

func TestStuck(t *testing.T) {
	bubble(t, "killed processes that can't end are looked for every five seconds, to the end", func(t *testing.T, s *scene) {
		s.c.Expires = 1062
		require.NoError(t, s.closed(t, s.run(t.Context(), 10)))
		require.Len(t, s.looks, 12)
		assert.Equal(t, 1005*time.Second, s.looks[0])
		assert.Equal(t, 1060*time.Second, s.looks[11])
		assert.NotContains(t, s.said(), "FUSE")
	})
	bubble(t, "what was ended is said each time, what went wrong once", func(t *testing.T, s *scene) {
		s.c.Expires = 1062
		s.stuck = []any{errors.New("no list"), errors.New("no list"), 0, 2, 1, errors.New("no list")}
		require.NoError(t, s.closed(t, s.run(t.Context(), 10)))
		require.Len(t, s.looks, 12)
		assert.Equal(t, 2, strings.Count(s.said(), "no list"))
		assert.Equal(t, 1, strings.Count(s.said(), "connections=2"))
		assert.Equal(t, 1, strings.Count(s.said(), "connections=1"))
	})
	bubble(t, "without GO nothing of the job's runs, and nobody looks", func(t *testing.T, s *scene) {
		s.c.Expires = 1062
		require.NoError(t, s.closed(t, s.run(t.Context(), 0)))
		assert.Empty(t, s.looks)
	})
}
