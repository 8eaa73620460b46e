package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// shakeTimeout bounds the TLS handshake: the nodes of a large job all begin in the same second, and
// the verifier's processors take them in turn.
const shakeTimeout = 15 * time.Second

// notConnected is why nothing was sent: the call may be made again.
type notConnected struct{ error }

// Unwrap gives the cause.
func (e notConnected) Unwrap() error { return e.error }

// dial connects and shakes hands. A verifier that has no time for either is tried again, one that is
// the wrong one is not.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := c.opt.Dial(ctx, network, address)
	if err != nil {
		return nil, notConnected{err}
	}
	conn := tls.Client(raw, c.tls)
	ctx, cancel := context.WithTimeout(ctx, shakeTimeout)
	defer cancel()
	if err = conn.HandshakeContext(ctx); err == nil {
		return conn, nil
	}
	_ = raw.Close() // the handshake's error is the one that counts
	op, failed := errors.AsType[*net.OpError](err)
	cut := failed && (op.Op == "read" || op.Op == "write") // a "remote error" is the verifier's word
	if cut || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) {
		return nil, notConnected{fmt.Errorf("shake hands: %w", err)}
	}
	return nil, fmt.Errorf("shake hands: %w", err)
}

func (c *Client) config() *tls.Config {
	t := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		CurvePreferences:   pki.Exchanges(),
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection holds the pin instead of names, clocks and the system's roots
		VerifyConnection:   pki.Pin(c.opt.Pin),
	}
	if cert := c.opt.Certificate; cert != nil {
		// Whatever authorities the server names: there is one certificate, and the key in it is pinned.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return t
}
