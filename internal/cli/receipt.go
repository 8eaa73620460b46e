package cli

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// ReceiptSource hands out receipts.
type ReceiptSource interface {
	Receipt(ctx context.Context, job uint32, restart *uint32) (api.Receipt, error)
	Receipts(ctx context.Context, from uint64) (api.Receipts, error)
	ReceiptKeys(ctx context.Context) (api.ReceiptKeys, error)
}

func (s screen) receiptCommand() *cobra.Command {
	c := command("receipt", "Export a job's receipt, check one offline, print the keys to pin", cobra.NoArgs)
	c.RunE = func(*cobra.Command, []string) error {
		return &ExitError{ExitUsage, errors.New("receipt: want export, verify or key")}
	}
	c.AddCommand(s.receiptExportCommand(), receiptVerifyCommand(), s.receiptKeyCommand())
	return c
}

func (s screen) receiptExportCommand() *cobra.Command {
	var out string
	c := command("export JOBID[.RESTART]", "Write a job's receipt to a file", cobra.ExactArgs(1))
	c.RunE = func(c *cobra.Command, args []string) error {
		job, restart, err := jobAndRestart(args[0])
		if err != nil {
			return err
		}
		src, err := s.source(c.Context())
		if err != nil {
			return err
		}
		r, err := src.Receipt(c.Context(), job, restart)
		if err != nil {
			return asked(err)
		}
		if out == "" || out == "-" {
			_, err = c.OutOrStdout().Write(r.File)
			return err
		}
		return writeReceipt(out, r.File)
	}
	c.Flags().StringVarP(&out, "output", "o", "", "file to write, - being standard output")
	return c
}

// jobAndRestart reads JOBID or JOBID.RESTART.
func jobAndRestart(s string) (uint32, *uint32, error) {
	number, start, dotted := strings.Cut(s, ".")
	job, err := jobID(number)
	if err != nil || !dotted {
		return job, nil, err
	}
	n, err := strconv.ParseUint(start, 10, 32)
	if err != nil {
		return 0, nil, &ExitError{ExitUsage, fmt.Errorf("%q is no JOBID.RESTART", printable(s))}
	}
	restart := uint32(n)
	return job, &restart, nil
}

// writeReceipt overwrites nothing. The same receipt again is no error: scripts are run twice.
func writeReceipt(path string, file []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		old, bad := readReceipt(path)
		if bad == nil && bytes.Equal(old, file) {
			return nil
		}
		return &ExitError{ExitFailure, fmt.Errorf("write %s: it is there with another content; remove it or name another file", path)}
	}
	if err != nil {
		return &ExitError{ExitFailure, err}
	}
	_, err = f.Write(file)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return &ExitError{ExitFailure, fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(path)))}
	}
	return nil
}

// readReceipt reads a file whole; one that is too long fails by its form.
func readReceipt(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &ExitError{ExitFailure, err}
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, receipt.MaxSize+1))
	if err != nil {
		return nil, &ExitError{ExitFailure, fmt.Errorf("read %s: %w", path, err)}
	}
	return b, nil
}

// keyJSON is read by others: names don't change.
type keyJSON struct {
	Role        string `json:"role"`
	Fingerprint string `json:"fingerprint"` // sha256: and the digest of the raw key, which is the receipts' keyid
	PEM         string `json:"pem"`
}

func (s screen) receiptKeyCommand() *cobra.Command {
	var simulated, asJSON bool
	c := command("key", "Print the public key of receipts, for readers to pin", cobra.NoArgs)
	c.RunE = func(c *cobra.Command, _ []string) error {
		src, err := s.source(c.Context())
		if err != nil {
			return err
		}
		keys, err := src.ReceiptKeys(c.Context())
		if err != nil {
			return asked(err)
		}
		k, role := keys.Real, receipt.RoleReal
		if simulated {
			k, role = keys.Simulated, receipt.RoleSimulated
		}
		der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(k[:]))
		if err != nil {
			return fmt.Errorf("print key: %w", err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der})
		if asJSON {
			return printJSON(c.OutOrStdout(), keyJSON{role, "sha256:" + receipt.KeyID(k[:]).String(), string(text)})
		}
		return printText(c.OutOrStdout(), fmt.Sprintf("# %s key sha256:%s\n%s", role, receipt.KeyID(k[:]), text))
	}
	c.Flags().BoolVar(&simulated, "simulated", false, "the key of simulated receipts")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// keyType is the PEM type of a public key; openssl reads the same.
const keyType = "PUBLIC KEY"

// withoutComments begins with the first line that is neither empty nor a comment.
func withoutComments(b []byte) []byte {
	for b = bytes.TrimSpace(b); bytes.HasPrefix(b, []byte("#")); b = bytes.TrimSpace(b) {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return b
}

// loadKeys reads files of PEM public keys, and comments. Anything else in them is an error: a key
// that is skipped is one that its reader believes to be pinned.
func loadKeys(paths []string) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for _, path := range paths {
		b, err := readFile(path)
		if err != nil {
			return nil, err
		}
		for b = withoutComments(b); len(b) != 0; b = withoutComments(b) {
			block, rest := pem.Decode(b)
			if block == nil || block.Type != keyType || !bytes.HasPrefix(b, []byte("-----BEGIN ")) {
				return nil, &ExitError{ExitFailure, fmt.Errorf("read key %s: want PEM blocks of type %s and nothing else", path, keyType)}
			}
			k, err := x509.ParsePKIXPublicKey(block.Bytes)
			key, ok := k.(ed25519.PublicKey)
			if err != nil || !ok {
				return nil, &ExitError{ExitFailure, fmt.Errorf("read key %s: want Ed25519", path)}
			}
			keys, b = append(keys, key), rest
		}
	}
	if len(paths) != 0 && len(keys) == 0 {
		return nil, &ExitError{ExitFailure, fmt.Errorf("read key %s: there is none in it", strings.Join(paths, ", "))}
	}
	return keys, nil
}
