package server_test

import (
	"crypto/tls"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
)

// The seal on the seed is one envelope, the connection that it comes through another: both are hybrids.
func TestConnectionsUseThePostQuantumHybridOnly(t *testing.T) {
	t.Parallel()
	s := start(t)
	dial := func(with ...tls.CurveID) (*tls.Conn, error) {
		return tls.Dial("tcp", s.address, &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: with, InsecureSkipVerify: true})
	}
	for _, classical := range []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384} {
		t.Run(classical.String()+" alone is refused", func(t *testing.T) {
			t.Parallel()
			conn, err := dial(classical)
			if err == nil {
				_ = conn.Close()
			}
			require.Error(t, err)
		})
	}
	t.Run("whoever prefers X25519 gets the hybrid", func(t *testing.T) {
		t.Parallel()
		conn, err := dial(tls.X25519, tls.X25519MLKEM768)
		require.NoError(t, err)
		assert.Equal(t, tls.X25519MLKEM768, conn.ConnectionState().CurveID)
		require.NoError(t, conn.Close())
	})
	t.Run("a client of ours offers nothing else", func(t *testing.T) {
		t.Parallel()
		offered := make(chan []tls.CurveID, 1)
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{s.withAuthority("n1")},
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				offered <- hello.SupportedCurves
				return nil, nil
			},
		})
		require.NoError(t, err)
		defer func() { _ = l.Close() }()
		go func() {
			if conn, over := l.Accept(); over == nil {
				_ = conn.(*tls.Conn).HandshakeContext(t.Context())
				_ = conn.Close()
			}
		}()
		c := client.New(client.Options{Address: l.Addr().String(), Pin: s.pin()})
		defer c.Close()
		_, err = c.EnrolNonce(t.Context(), "n1")
		require.Error(t, err)
		assert.Equal(t, []tls.CurveID{tls.X25519MLKEM768}, <-offered)
	})
}
