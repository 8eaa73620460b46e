package snp

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/uuid"
)

// maxCertificates bounds a certificate file or table, which comes from outside.
const maxCertificates = 1 << 20

// ErrNoCertificate says that there is nothing in the input: it is empty, or its table is.
var ErrNoCertificate = errors.New("no certificate")

// Chain is what came with a report. Only the VCEK or VLEK is used, and only to be judged; roots
// and intermediates of the evidence are looked at to name a forged root, never trusted.
type Chain struct {
	vcek, vlek *x509.Certificate
	others     []*x509.Certificate
	problem    error
}

// Endorsement is the certificate for reports signed by that kind of key (VCEK or VLEK), or nil.
func (c Chain) Endorsement(signer string) *x509.Certificate {
	switch kind(signer) {
	case vcek:
		return c.vcek
	case vlek:
		return c.vlek
	}
	return nil
}

// der is every certificate of the chain.
func (c Chain) der() [][]byte {
	var out [][]byte
	for _, x := range append([]*x509.Certificate{c.vcek, c.vlek}, c.others...) {
		if x != nil {
			out = append(out, x.Raw)
		}
	}
	return out
}

// ParseCertificates reads DER certificates one after the other, a PEM file, or the certificate
// table that the host hands out (GHCB 2.0, 4.1.8.1). The error is ErrNoCertificate for empty
// input. Given to Verify, the Chain of any error fails by that error's words.
func ParseCertificates(b []byte) (Chain, error) { return Roots{}.ParseCertificates(b) }

// ParseCertificates is the function of that name; of certificates in a table or in PEM that are pinned
// here, byte for byte, it takes its own copy: parsing two of RSA-4096 with every report costs more than
// its own.
func (r Roots) ParseCertificates(b []byte) (Chain, error) {
	c, err := r.parseCertificates(b)
	if err != nil {
		return Chain{problem: err}, fmt.Errorf("parse certificates: %w", err)
	}
	return c, nil
}

func (r Roots) parseCertificates(b []byte) (Chain, error) {
	switch {
	case len(b) > maxCertificates:
		return Chain{}, fmt.Errorf("%d bytes, at most %d", len(b), maxCertificates)
	case len(bytes.Trim(b, " \t\r\n\x00")) == 0:
		return Chain{}, ErrNoCertificate
	case bytes.Contains(b, []byte("-----BEGIN ")):
		return r.parsePEM(b)
	case b[0] == 0x30: // a SEQUENCE; no GUID of the table's begins so
		return parseDER(b)
	}
	return r.parseTable(b)
}

// parseDER reads certificates one after the other, as openssl and cat leave them.
func parseDER(b []byte) (Chain, error) {
	certs, err := x509.ParseCertificates(b)
	if err != nil {
		return Chain{}, fmt.Errorf("the certificate does not parse: %w", err)
	}
	var c Chain
	for _, cert := range certs {
		if c, err = c.with(cert); err != nil {
			return Chain{}, err
		}
	}
	return c, nil
}

// with files a certificate under the name that it bears.
func (c Chain) with(cert *x509.Certificate) (Chain, error) {
	is := &c.vcek
	switch cert.Subject.CommonName {
	case "SEV-VCEK":
	case "SEV-VLEK":
		is = &c.vlek
	default:
		c.others = append(c.others, cert)
		return c, nil
	}
	if *is != nil && !(*is).Equal(cert) {
		return Chain{}, fmt.Errorf("two certificates of a %s", strings.TrimPrefix(cert.Subject.CommonName, "SEV-"))
	}
	*is = cert
	return c, nil
}

// parsePEM wants certificates and white space only. The standard decoder skips what it can't
// read, and a block skipped is a block that another reader may have read.
func (r Roots) parsePEM(b []byte) (Chain, error) {
	var c Chain
	begins := bytes.Count(b, []byte("-----BEGIN "))
	for n := 0; ; n++ {
		b = bytes.TrimLeft(b, " \t\r\n")
		if len(b) == 0 && n == begins {
			return c, nil
		}
		block, rest := pem.Decode(b)
		if block == nil || !bytes.HasPrefix(b, []byte("-----BEGIN ")) || block.Type != "CERTIFICATE" || len(block.Headers) != 0 {
			return Chain{}, fmt.Errorf("PEM block %d is no certificate", n+1)
		}
		cert, err := r.copyOf(block.Bytes), error(nil)
		if cert == nil {
			cert, err = x509.ParseCertificate(block.Bytes)
		}
		if err != nil {
			return Chain{}, fmt.Errorf("PEM certificate %d does not parse: %w", n+1, err)
		}
		if c, err = c.with(cert); err != nil {
			return Chain{}, err
		}
		b = rest
	}
}

// parseTable reads entries with its own bounds: the library adds offset and length in 32 bits
// and a table made for it panics there.
func (r Roots) parseTable(b []byte) (Chain, error) {
	entries, err := abi.ParseSnpCertTableHeader(b)
	if err != nil {
		return Chain{}, fmt.Errorf("neither DER nor PEM nor a certificate table: %w", err)
	}
	var c Chain
	seen := map[uuid.UUID]bool{}
	for _, e := range entries {
		end := uint64(e.Offset) + uint64(e.Length)
		if end > uint64(len(b)) || seen[e.GUID] {
			return Chain{}, fmt.Errorf("certificate table: entry %s is doubled or beyond the end", e.GUID)
		}
		seen[e.GUID] = true
		if c, err = c.withEntry(e.GUID.String(), b[e.Offset:end], r); err != nil {
			return Chain{}, fmt.Errorf("certificate table: %w", err)
		}
	}
	if c.vcek == nil && c.vlek == nil && len(c.others) == 0 {
		return Chain{}, ErrNoCertificate
	}
	return c, nil
}

// copyOf is the pinned intermediate or root of these bytes, if there is one.
func (r Roots) copyOf(der []byte) *x509.Certificate {
	for _, pins := range r.pinned {
		for _, p := range pins {
			switch {
			case bytes.Equal(p.intermediate.Raw, der):
				return p.intermediate
			case bytes.Equal(p.root.Raw, der):
				return p.root
			}
		}
	}
	return nil
}

func (c Chain) withEntry(guid string, der []byte, known Roots) (Chain, error) {
	switch guid {
	case abi.VcekGUID, abi.VlekGUID, abi.AskGUID, abi.ArkGUID:
	default:
		return c, nil // the host may add entries of its own, the specification says
	}
	if len(der) == 0 {
		return c, nil
	}
	if own := known.copyOf(der); own != nil {
		return c.with(own)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil && (guid == abi.AskGUID || guid == abi.ArkGUID) {
		return c, nil // never trusted, so never missed: hosts have put AMD's older format here
	}
	if err != nil {
		return Chain{}, fmt.Errorf("entry %s does not parse: %w", guid, err)
	}
	return c.with(cert)
}
