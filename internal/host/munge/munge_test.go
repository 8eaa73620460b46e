package munge

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const printed = "STATUS:          Success (0)\nENCODE_HOST:     n0 (10.0.0.1)\nENCODE_TIME:     2026-11-22 03:00:00 +0000 (1795316400)\nTTL:             300\nUID:             alice (2001)\nGID:             alice (2001)\nLENGTH:          5\n\nhello"

func TestParse(t *testing.T) {
	t.Parallel()
	uid, payload, err := parse([]byte(printed))
	require.NoError(t, err)
	assert.Equal(t, uint32(2001), uid)
	assert.Equal(t, "hello", payload)
	for name, text := range map[string]string{
		"nothing": "", "no payload": "STATUS: Success (0)\nUID: a (1)\n", "another status": "STATUS: Expired credential (15)\nUID: a (1)\n\n",
		"no uid": "STATUS: Success (0)\n\n", "a uid that is none": "STATUS: Success (0)\nUID: root\n\n",
		"a uid twice": "STATUS: Success (0)\nUID: alice (2001)\nUID: root (0)\n\n", "a uid over 32 bits": "STATUS: Success (0)\nUID: a (4294967296)\n\n",
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			_, _, err := parse([]byte(text))
			require.Error(t, err)
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(printed))
	f.Add([]byte("STATUS: Success (0)\nUID: (\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		uid, payload, err := parse(b)
		if err != nil {
			assert.Zero(t, uid)
			assert.Empty(t, payload)
		}
	})
}

func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700))
	return path
}

func TestPrograms(t *testing.T) {
	t.Parallel()
	m := Munge{
		MungePath:   program(t, `printf 'MUNGE:%s:\n' "$(cat)"`),
		UnmungePath: program(t, `c=$(cat); printf 'STATUS: Success (0)\nUID: 7\n\n%s' "${c#MUNGE:}"`),
	}
	c, err := m.Encode(t.Context(), "GET /x")
	require.NoError(t, err)
	assert.Equal(t, "MUNGE:GET /x:", c)
	uid, payload, err := m.Decode(t.Context(), c)
	require.NoError(t, err)
	assert.Equal(t, uint32(7), uid)
	assert.Equal(t, "GET /x:", payload)
	_, _, err = m.Decode(t.Context(), "Basic x")
	require.ErrorContains(t, err, "not one")
	m.UnmungePath = program(t, "echo replayed >&2; exit 17")
	_, _, err = m.Decode(t.Context(), c)
	require.ErrorContains(t, err, "replayed")
}
