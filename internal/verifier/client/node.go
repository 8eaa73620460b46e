package client

import (
	"crypto/ed25519"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// Names of a node's two long-lived files, in /var/lib/slurm-enclave.
const (
	KeyFile         = "node.key" // 0400
	CertificateFile = "node.crt"
)

const pemCertificate = "CERTIFICATE"

// LoadNode reads the node's key and certificate. Without them the node is not enrolled.
func LoadNode(dir string) (*tls.Certificate, error) {
	key, err := pki.LoadKey(filepath.Join(dir, KeyFile))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, CertificateFile))
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemCertificate || len(rest) > 0 {
		return nil, errors.New("load certificate: not one PEM certificate")
	}
	return &tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}, nil
}

// EncodeCertificate is the text of the certificate file.
func EncodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
}

// StoreNode puts the node's key and certificate in the place of those that are there. Both are
// written before either is renamed.
func StoreNode(dir string, c tls.Certificate) error {
	key, ok := c.PrivateKey.(ed25519.PrivateKey)
	if !ok || len(c.Certificate) != 1 {
		return errors.New("store node key: not an Ed25519 key with one certificate")
	}
	const half = "+"
	keyPath, certPath := filepath.Join(dir, KeyFile), filepath.Join(dir, CertificateFile)
	for _, p := range []string{keyPath, certPath} {
		if err := os.Remove(p + half); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("store node key: %w", err)
		}
	}
	if err := pki.StoreKey(keyPath+half, key); err != nil {
		return err
	}
	if err := pki.WriteNew(certPath+half, EncodeCertificate(c.Certificate[0]), 0o644); err != nil {
		return err
	}
	return errors.Join(os.Rename(keyPath+half, keyPath), os.Rename(certPath+half, certPath))
}
