package client_test

import (
	"crypto/ed25519"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// busy hangs up on the first callers.
type busy struct {
	net.Listener
	first, accepted atomic.Int32
}

// Accept closes the first connections before a word was said.
func (b *busy) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err == nil && b.accepted.Add(1) <= b.first.Load() {
		_ = c.Close()
	}
	return c, err
}

func TestAVerifierWithoutTimeForAHandshakeIsCalledAgain(t *testing.T) {
	t.Parallel()
	pub, key, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	authority, err := pki.New(key)
	require.NoError(t, err)
	cert, err := authority.Server()
	require.NoError(t, err)
	serve := func(t *testing.T, first int32) (*busy, string) {
		var answered atomic.Int32
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			answered.Add(1)
			_, _ = w.Write([]byte(`{}`))
		}))
		l := &busy{Listener: s.Listener}
		l.first.Store(first)
		s.Listener, s.TLS = l, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}
		s.StartTLS()
		t.Cleanup(s.Close)
		return l, strings.TrimPrefix(s.URL, "https://")
	}
	t.Run("one that hangs up twice answers the third time", func(t *testing.T) {
		t.Parallel()
		l, address := serve(t, 2)
		c := client.New(client.Options{Address: address, Pin: pki.KeyDigest(pub), Patience: 10 * time.Second})
		defer c.Close()
		_, err := c.Watch(t.Context(), api.WatchRequest{})
		require.NoError(t, err)
		assert.Equal(t, int32(3), l.accepted.Load())
	})
	t.Run("without patience it is called once", func(t *testing.T) {
		t.Parallel()
		l, address := serve(t, 2)
		c := client.New(client.Options{Address: address, Pin: pki.KeyDigest(pub)})
		defer c.Close()
		_, err := c.Watch(t.Context(), api.WatchRequest{})
		r, ok := enclave.AsRefusal(err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, enclave.Code("E500"), r.Code)
		assert.Equal(t, int32(1), l.accepted.Load())
	})
	t.Run("one with another key is not asked again, whatever the patience", func(t *testing.T) {
		t.Parallel()
		l, address := serve(t, 0)
		c := client.New(client.Options{Address: address, Pin: enclave.Digest{1}, Patience: time.Minute})
		defer c.Close()
		_, err := c.Watch(t.Context(), api.WatchRequest{})
		require.ErrorContains(t, err, "not the one pinned")
		assert.Equal(t, int32(1), l.accepted.Load())
	})
}
