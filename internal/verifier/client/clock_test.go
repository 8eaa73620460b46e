package client

import (
	"crypto/ed25519"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// A node's clock may be set to anything: the pinned key is believed, not a certificate's dates.
func TestAWrongClockOfTheNodeChangesNothing(t *testing.T) {
	t.Parallel()
	pub, key, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	authority, err := pki.New(key)
	require.NoError(t, err)
	cert, err := authority.Server()
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{}`)) }))
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	for name, off := range map[string]time.Duration{
		"an hour ahead": time.Hour, "an hour behind": -time.Hour, "before the certificate was made": -20 * 365 * 24 * time.Hour,
		"after it has ended": 150 * 365 * 24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := New(Options{Address: strings.TrimPrefix(s.URL, "https://"), Pin: pki.KeyDigest(pub)})
			defer c.Close()
			c.tls.Time = func() time.Time { return time.Now().Add(off) }
			_, err := c.Watch(t.Context(), api.WatchRequest{})
			require.NoError(t, err)
		})
	}
}
