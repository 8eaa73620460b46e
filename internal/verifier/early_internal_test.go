package verifier

import (
	"crypto/hpke"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

func TestEarly(t *testing.T) {
	t.Parallel()
	sealing, err := hpke.MLKEM768X25519().GenerateKey()
	require.NoError(t, err)
	key := sealing.PublicKey().Bytes()
	v := &Verifier{life: t.Context(), cores: newCores(t.Context().Done())}
	v.jobs.Go(v.cores.compute)
	made := func(x *seat) *early { <-x.early.made; return x.early }
	x := &seat{node: enclave.Node{Name: "n1"}}
	v.prepare(x, nil)
	require.Nil(t, x.early, "nothing was told")
	v.prepare(x, key)
	first := made(x)
	t.Run("is for its key alone", func(t *testing.T) {
		assert.NotNil(t, first.take(key))
		assert.Nil(t, first.take([]byte("other")))
		assert.Nil(t, (*early)(nil).take(key))
	})
	t.Run("is not made again for the same key", func(t *testing.T) {
		v.prepare(x, key)
		assert.Same(t, first, x.early)
	})
	t.Run("is one at a time", func(t *testing.T) {
		open := &early{key: []byte("other"), made: make(chan struct{})}
		busy := &seat{early: open}
		v.prepare(busy, key)
		assert.Same(t, open, busy.early)
	})
	t.Run("is none for what is no key", func(t *testing.T) {
		v.prepare(x, []byte("other"))
		assert.NotSame(t, first, x.early)
		assert.Nil(t, made(x).take([]byte("other")))
	})
	t.Run("is not begun while evidence is judged", func(t *testing.T) {
		judged := &seat{judging: []byte("signature")}
		v.prepare(judged, key)
		assert.Nil(t, judged.early)
	})
}
