// Package pki makes and checks the certificates of the verifier's API.
//
// There is one authority, the verifier's Ed25519 key, and no other root: clients pin its digest,
// the server believes node certificates that it signed. Nobody's wall clock decides here.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// serverName is the name in the server's certificate. A node can't have it: it holds a space.
const serverName = "slurm-enclave verifier"

// Authority issues and checks certificates.
type Authority struct {
	key  ed25519.PrivateKey
	cert *x509.Certificate

	mu      sync.Mutex
	checked map[enclave.Digest]string // nodes of certificates that this authority has signed
}

// maxChecked bounds what is remembered; only what the authority has signed gets in.
const maxChecked = 1 << 15

// New makes the authority of a key. The certificate is made anew; the key is what counts.
func New(key ed25519.PrivateKey) (*Authority, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("make authority: no key")
	}
	t := template("slurm-enclave authority")
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign
	cert, err := issue(t, t, pub, key)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	return &Authority{key: key, cert: cert, checked: map[enclave.Digest]string{}}, nil
}

// Server makes a key and certificate for one run of the server; the key never leaves memory.
func (a *Authority) Server() (tls.Certificate, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make server certificate: %w", err)
	}
	t := template(serverName)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	cert, err := issue(t, a.cert, pub, a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make server certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw, a.cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

// Request makes a node's certificate request.
func Request(node string, key ed25519.PrivateKey) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: node}}, key)
}

// ParseRequest reads a request of exactly this node, signed by the Ed25519 key in it.
func ParseRequest(node string, der []byte) (ed25519.PublicKey, error) {
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("parse request: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("parse request: %w", err)
	}
	pub, ok := r.PublicKey.(ed25519.PublicKey)
	if !ok || r.Subject.CommonName != node {
		return nil, fmt.Errorf("parse request: want an Ed25519 key for %q", node)
	}
	return pub, nil
}

// Node issues a node's certificate.
func (a *Authority) Node(node string, pub ed25519.PublicKey) ([]byte, error) {
	t := template(node)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	cert, err := issue(t, a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate of %s: %w", node, err)
	}
	return cert.Raw, nil
}

// Check finds the node that a client's certificate names. Whether it is enrolled, and not
// revoked since, is the ledger's to say, by the fingerprint. The signature is verified once, for a
// node shows the same bytes with every call.
func (a *Authority) Check(der []byte) (node string, fingerprint enclave.Digest, err error) {
	fingerprint = sha256.Sum256(der)
	a.mu.Lock()
	node, known := a.checked[fingerprint]
	a.mu.Unlock()
	if known {
		return node, fingerprint, nil
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "", enclave.Digest{}, fmt.Errorf("check certificate: %w", err)
	}
	if err := signedBy(a.cert, cert, x509.ExtKeyUsageClientAuth); err != nil {
		return "", enclave.Digest{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.checked) >= maxChecked {
		clear(a.checked)
	}
	a.checked[fingerprint] = cert.Subject.CommonName
	return cert.Subject.CommonName, fingerprint, nil
}

// Exchanges are the key exchanges of connections to the verifier: the hybrid alone, so that a call
// recorded today stays shut when X25519 falls. Both ends are of this release.
func Exchanges() []tls.CurveID { return []tls.CurveID{tls.X25519MLKEM768} }

// Pin is the check of a client that knows the authority's key by its digest and nothing else.
func Pin(pin enclave.Digest) func(tls.ConnectionState) error {
	return func(c tls.ConnectionState) error {
		if c.Version < tls.VersionTLS13 || len(c.PeerCertificates) != 2 {
			return errors.New("check verifier: not a verifier of slurm-enclave")
		}
		leaf, authority := c.PeerCertificates[0], c.PeerCertificates[1]
		pub, ok := authority.PublicKey.(ed25519.PublicKey)
		if !ok || sha256.Sum256(pub) != pin {
			return errors.New("check verifier: its key is not the one pinned in verifier.key")
		}
		if err := signedBy(authority, leaf, x509.ExtKeyUsageServerAuth); err != nil {
			return err
		}
		if leaf.Subject.CommonName != serverName {
			return errors.New("check verifier: the certificate is not the server's")
		}
		return nil
	}
}

// PinnedKey is the verifier's public key of a connection that passed Pin.
func PinnedKey(c *tls.ConnectionState) (ed25519.PublicKey, error) {
	if c == nil || len(c.PeerCertificates) != 2 {
		return nil, errors.New("read verifier key: connection has none")
	}
	pub, ok := c.PeerCertificates[1].PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("read verifier key: not Ed25519")
	}
	return pub, nil
}

func signedBy(authority, cert *x509.Certificate, use x509.ExtKeyUsage) error {
	pub, ok := authority.PublicKey.(ed25519.PublicKey)
	if !ok || cert.SignatureAlgorithm != x509.PureEd25519 || !ed25519.Verify(pub, cert.RawTBSCertificate, cert.Signature) {
		return errors.New("check certificate: not signed by the verifier's key")
	}
	if cert.IsCA || !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{use}) || len(cert.UnhandledCriticalExtensions) > 0 {
		return errors.New("check certificate: made for another use")
	}
	return nil
}

// template is valid for a hundred years: a node's certificate ends by revocation, not by a clock.
func template(name string) *x509.Certificate {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails: it ends the process instead
	serial[0] &= 0x7f
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(100, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func issue(t, parent *x509.Certificate, pub crypto.PublicKey, key ed25519.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err == nil && !bytes.Equal(cert.Raw, der) {
		err = errors.New("certificate does not read back")
	}
	return cert, err
}
