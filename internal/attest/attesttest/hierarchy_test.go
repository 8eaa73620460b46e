package attesttest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
)

func TestHierarchyIsKept(t *testing.T) {
	dir := t.TempDir()
	_, err := attesttest.LoadHierarchy(dir)
	require.ErrorIs(t, err, os.ErrNotExist)
	made, err := attesttest.NewHierarchy(dir, attesttest.SmallKeys())
	require.NoError(t, err)
	for range 2 {
		again, errAgain := attesttest.NewHierarchy(dir, attesttest.SmallKeys())
		require.NoError(t, errAgain)
		assert.Equal(t, made.Roots(), again.Roots())
	}
	roots, err := os.ReadFile(filepath.Join(dir, "roots.pem"))
	require.NoError(t, err)
	assert.Equal(t, made.Roots(), roots)
	info, err := os.Stat(filepath.Join(dir, "hierarchy.pem"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o400), info.Mode())
}

func TestNodesThatStartTogetherShareKeys(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	roots, chips, errs := make([]string, 8), make([]string, 8), make([]error, 8)
	for i := range roots {
		wg.Go(func() {
			h, err := attesttest.NewHierarchy(dir, attesttest.SmallKeys())
			if errs[i] = err; err != nil {
				return
			}
			c, err := h.Chip("n1")
			if errs[i] = err; err == nil {
				roots[i], chips[i] = string(h.Roots()), string(c.Certificate)
			}
		})
	}
	wg.Wait()
	for i := range roots {
		require.NoError(t, errs[i])
		assert.Equal(t, roots[0], roots[i])
		assert.Equal(t, chips[0], chips[i])
	}
}

func TestDamagedKeysAreNotReplaced(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "hierarchy.pem"), []byte("x"), 0o400))
	_, err := attesttest.NewHierarchy(dir, attesttest.SmallKeys())
	require.Error(t, err)
}

func TestChipsAreOfNodes(t *testing.T) {
	h, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	for _, name := range []string{"", "../n1", "a/b", "/n1"} {
		_, err := h.Chip(name)
		require.Error(t, err, name)
	}
}

func FuzzParseFaults(f *testing.F) {
	f.Add(`{"wrong_key":true}`)
	f.Add(`{"slow":5,"other_chip":"n2"}`)
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		faults, err := attesttest.ParseFaults(strings.NewReader(s))
		if err != nil {
			require.Equal(t, attesttest.Faults{}, faults, "a file that does not parse injects nothing")
			return
		}
		b, err := json.Marshal(faults)
		require.NoError(t, err)
		again, err := attesttest.ParseFaults(bytes.NewReader(b))
		require.NoError(t, err)
		require.Equal(t, faults, again)
	})
}
