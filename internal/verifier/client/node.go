package client

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
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
