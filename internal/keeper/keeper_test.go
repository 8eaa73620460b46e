package keeper_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/keeper"
)

func config(t testing.TB) keeper.Config {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "4711.0")
	require.NoError(t, os.Mkdir(dir, 0o700))
	goFile := filepath.Join(dir, "4711.go")
	require.NoError(t, os.WriteFile(goFile, []byte("go"), 0o400))
	return keeper.Config{
		Key: enclave.JobKey{Cluster: "c", Job: 4711}, Device: "enc4711", MTU: 1420, Userspace: true,
		Directory: dir, GoFile: goFile, Expires: 86400, PrivateKey: enclave.NewSecret([]byte("0123456789abcdef0123456789abcdef")),
	}
}

type tunnel struct {
	done   chan struct{}
	closed bool
	goFile string
	late   bool // the gate was still open when the tunnel was closed
}

func (f *tunnel) Done() <-chan struct{} { return f.done }

func (f *tunnel) Close() error {
	_, err := os.Stat(f.goFile)
	f.closed, f.late = true, err == nil
	return nil
}

type host struct {
	tunnel  *tunnel
	settle  error
	open    error
	expired chan struct{}
}

func newHost(c keeper.Config) *host {
	return &host{tunnel: &tunnel{done: make(chan struct{}), goFile: c.GoFile}, expired: make(chan struct{})}
}

func (h *host) Settle(keeper.Config) error              { return h.settle }
func (h *host) Open(string, int) (keeper.Tunnel, error) { return h.tunnel, h.open }
func (h *host) Wait(ctx context.Context, _ uint64) error {
	select {
	case <-h.expired:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestRun(t *testing.T) {
	ok := func(error) error { return nil }
	t.Run("the end of the lifetime closes the gate and then the tunnel", func(t *testing.T) {
		c := config(t)
		h := newHost(c)
		close(h.expired)
		require.NoError(t, keeper.Run(t.Context(), h, c, ok))
		assert.NoFileExists(t, c.GoFile)
		assert.True(t, h.tunnel.closed)
		assert.False(t, h.tunnel.late)
		assert.Empty(t, c.PrivateKey.Bytes())
	})
	t.Run("the epilog's signal is no error", func(t *testing.T) {
		c := config(t)
		h := newHost(c)
		ctx, cancel := context.WithCancel(t.Context())
		require.NoError(t, keeper.Run(ctx, h, c, func(error) error { cancel(); return nil }))
		assert.NoFileExists(t, c.GoFile)
		assert.True(t, h.tunnel.closed)
	})
	t.Run("a tunnel that ends by itself closes the gate", func(t *testing.T) {
		c := config(t)
		h := newHost(c)
		close(h.tunnel.done)
		require.ErrorContains(t, keeper.Run(t.Context(), h, c, ok), "ended")
		assert.NoFileExists(t, c.GoFile)
	})
	t.Run("a keeper that nobody waits for ends at once", func(t *testing.T) {
		c := config(t)
		h := newHost(c)
		require.ErrorContains(t, keeper.Run(t.Context(), h, c, func(error) error { return errors.New("broken pipe") }), "broken pipe")
		assert.True(t, h.tunnel.closed)
		assert.NoFileExists(t, c.GoFile)
	})
	t.Run("the kernel's WireGuard needs no tunnel of ours", func(t *testing.T) {
		c := config(t)
		c.Userspace = false
		h := newHost(c)
		h.open = errors.New("must not be called")
		close(h.expired)
		require.NoError(t, keeper.Run(t.Context(), h, c, ok))
	})
	for name, spoil := range map[string]func(*host){
		"settle": func(h *host) { h.settle = errors.New("no cgroup") },
		"open":   func(h *host) { h.open = errors.New("no tun") },
	} {
		t.Run("what is not in place is said: "+name, func(t *testing.T) {
			c := config(t)
			h := newHost(c)
			spoil(h)
			var said error
			err := keeper.Run(t.Context(), h, c, func(err error) error { said = err; return nil })
			require.Error(t, err)
			require.Error(t, said)
		})
	}
}

func TestConfig(t *testing.T) {
	t.Run("what is encoded is decoded, and the bytes are wiped", func(t *testing.T) {
		c := config(t)
		b, err := c.Encode()
		require.NoError(t, err)
		got, err := keeper.Decode(b)
		require.NoError(t, err)
		assert.Equal(t, c.PrivateKey.Bytes(), got.PrivateKey.Bytes())
		c.PrivateKey, got.PrivateKey = enclave.Secret{}, enclave.Secret{}
		assert.Equal(t, c, got)
		assert.Equal(t, make([]byte, len(b)), b)
	})
	for name, spoil := range map[string]func(*keeper.Config){
		"no job":              func(c *keeper.Config) { c.Key.Job = 0 },
		"no key":              func(c *keeper.Config) { c.PrivateKey = enclave.Secret{} },
		"no end":              func(c *keeper.Config) { c.Expires = 0 },
		"a relative path":     func(c *keeper.Config) { c.GoFile = "4711.go" },
		"another job's place": func(c *keeper.Config) { c.Directory = "/run/slurm-enclave/4712.0" },
		"a device too long":   func(c *keeper.Config) { c.Device = "enc4711471147114" },
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			c := config(t)
			spoil(&c)
			_, err := c.Encode()
			require.Error(t, err)
		})
	}
	assert.Equal(t, []int{1, 1, 2, 8}, []int{keeper.Processors(1), keeper.Processors(4), keeper.Processors(8), keeper.Processors(256)})
}

func FuzzDecode(f *testing.F) {
	b, err := config(f).Encode()
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte("slurm-enclave/keeper/v1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := keeper.Decode(b)
		if err == nil {
			require.NoError(t, c.Check())
		}
	})
}
