package attesttest

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// writeNew writes a file that is whole or absent: the nodes of a lab start at the same time.
func writeNew(path string, b []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if _, err = f.Write(b); err == nil {
		err = f.Chmod(mode)
	}
	if errClose := f.Close(); err == nil {
		err = errClose
	}
	if err != nil {
		return err
	}
	return os.Link(f.Name(), path) // fails where the file is, unlike rename
}

func storeKey(path string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeNew(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o400)
}

func loadKey(path string) (any, error) {
	b, err := os.ReadFile(path) // #nosec G304 -- the lab's own directory
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("read %s: not PEM", path)
	}
	return x509.ParsePKCS8PrivateKey(block.Bytes)
}

func loadRSA(path string) (*rsa.PrivateKey, error) {
	k, err := loadKey(path)
	if err != nil {
		return nil, err
	}
	key, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read %s: no RSA key", path)
	}
	return key, nil
}

func loadECDSA(path string) (*ecdsa.PrivateKey, error) {
	k, err := loadKey(path)
	if err != nil {
		return nil, err
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read %s: no ECDSA key", path)
	}
	return key, nil
}

func pemOf(key, cert []byte) []byte {
	b := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	return append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...)
}

func certificateOf(b []byte) ([]byte, error) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return block.Bytes, nil
		}
	}
	return nil, errors.New("no certificate")
}
