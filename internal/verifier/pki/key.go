package pki

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

const pemType = "PRIVATE KEY"

// NewKey makes a key and stores it in a new file that only its owner reads. It never overwrites.
func NewKey(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := StoreKey(path, key); err != nil {
		return nil, err
	}
	return key, nil
}

// StoreKey writes a key to a new file, on the disk before it returns.
func StoreKey(path string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("store key %s: %w", path, err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	defer clear(text)
	defer clear(der)
	return WriteNew(path, text, 0o400)
}

// WriteNew writes a file that is not there yet and syncs it and its directory.
func WriteNew(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(path)))
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// LoadKey reads a key that nobody but its owner may read.
func LoadKey(path string) (ed25519.PrivateKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || info.Size() > 4096 {
		return nil, fmt.Errorf("load key %s: want a regular file of mode 0400, found %s", path, info.Mode())
	}
	text := make([]byte, info.Size())
	if _, err := f.Read(text); err != nil {
		return nil, fmt.Errorf("load key %s: %w", path, err)
	}
	defer clear(text)
	return parseKey(path, text)
}

func parseKey(path string, text []byte) (ed25519.PrivateKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemType || len(rest) > 0 {
		return nil, fmt.Errorf("load key %s: not one PEM private key", path)
	}
	defer clear(block.Bytes)
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load key %s: not PKCS #8", path) // the cause could quote key bytes
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("load key %s: not Ed25519", path)
	}
	return key, nil
}

// LoadOrNewKey loads the key, or makes it at the first start.
func LoadOrNewKey(path string) (ed25519.PrivateKey, error) {
	key, err := LoadKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		return NewKey(path)
	}
	return key, err
}

// KeyDigest is the pin of a key: SHA-256 of its raw public half.
func KeyDigest(pub ed25519.PublicKey) enclave.Digest { return sha256.Sum256(pub) }
