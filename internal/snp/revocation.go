package snp

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// maxCRL bounds a revocation list, which comes from outside.
const maxCRL = 4 << 20

// ParseCRL reads one revocation list, DER or PEM, as AMD's KDS serves it.
func ParseCRL(b []byte) (*x509.RevocationList, error) {
	if len(b) > maxCRL {
		return nil, fmt.Errorf("parse CRL: %d bytes, at most %d", len(b), maxCRL)
	}
	if block, rest := pem.Decode(b); block != nil {
		before := bytes.HasPrefix(bytes.TrimSpace(b), []byte("-----BEGIN X509 CRL-----"))
		if !before || block.Type != "X509 CRL" || len(bytes.TrimSpace(rest)) != 0 {
			return nil, errors.New("parse CRL: not one PEM block of type X509 CRL")
		}
		b = block.Bytes
	}
	l, err := x509.ParseRevocationList(b)
	if err != nil {
		return nil, fmt.Errorf("parse CRL: %w", err)
	}
	if len(l.Raw) != len(b) { // the library reads on past the end of the list
		return nil, errors.New("parse CRL: bytes after the list")
	}
	return l, nil
}

// crl asks the root's lists for the certificates beneath it. AMD's intermediates may not sign
// lists, so a VCEK or VLEK too can only stand in the root's; those that AMD makes today all have
// the serial number 0, which names none.
func (v *verification) crl() (enclave.CheckResult, string) {
	if len(v.opt.CRLs) == 0 {
		return unknown("no CRL given")
	}
	why := fmt.Sprintf("no CRL given is of %s", v.pin.root.Subject.CommonName)
	found := false
	for _, l := range v.opt.CRLs {
		if !bytes.Equal(l.RawIssuer, v.pin.root.RawSubject) {
			continue
		}
		if err := v.pin.signedList(l, v.opt.Memo); err != nil {
			why = err.Error()
			continue
		}
		// A list that is out of date still revokes: what it says was never taken back.
		if c, at := v.revoked(l); c != nil {
			return fail("%s is revoked since %s", c.Subject.CommonName, at.UTC().Format(time.RFC3339))
		}
		if err := inForce(l, v.opt.At); err != nil {
			why = err.Error()
			continue
		}
		found = true
	}
	if !found {
		v.res.Unjudged = why // the lists are the judge's own
		return fail("%s", why)
	}
	return pass("%s is not revoked", v.issuer.commonName())
}

// revoked is the first certificate of the chain that the list names.
func (v *verification) revoked(l *x509.RevocationList) (*x509.Certificate, time.Time) {
	for _, e := range l.RevokedCertificateEntries {
		for _, c := range []*x509.Certificate{v.pin.root, v.pin.intermediate, v.cert} {
			if namesOne(c.SerialNumber) && c.SerialNumber.Cmp(e.SerialNumber) == 0 {
				return c, e.RevocationTime
			}
		}
	}
	return nil, time.Time{}
}

func namesOne(serial *big.Int) bool { return serial != nil && serial.Sign() != 0 }

// signedList says whether the list is the root's own word.
func (p pin) signedList(l *x509.RevocationList, m *Memo) error {
	cn := p.root.Subject.CommonName
	if err := m.signed(p.rootID, l.Raw, func() error { return l.CheckSignatureFrom(p.root) }); err != nil {
		return fmt.Errorf("the CRL that says it is of %s is not signed by it: %w", cn, err)
	}
	for _, x := range l.Extensions {
		if x.Critical && !x.Id.Equal(issuingDistributionPoint()) {
			return fmt.Errorf("the CRL of %s has a critical extension %s: it may be a part of a list only", cn, x.Id)
		}
	}
	return nil
}

// issuingDistributionPoint says where the list is served (RFC 5280, 5.2.5). AMD has one for VCEKs
// and one for VLEKs; a serial number means the same in both.
func issuingDistributionPoint() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 28} }

// inForce judges thisUpdate and nextUpdate. A list without nextUpdate would be good forever.
func inForce(l *x509.RevocationList, at time.Time) error {
	cn := l.Issuer.CommonName
	switch {
	case at.Before(l.ThisUpdate):
		return fmt.Errorf("the CRL of %s is not valid before %s", cn, l.ThisUpdate.UTC().Format(time.RFC3339))
	case l.NextUpdate.IsZero():
		return fmt.Errorf("the CRL of %s does not say when it ends", cn)
	case at.After(l.NextUpdate):
		return fmt.Errorf("the CRL of %s expired at %s", cn, l.NextUpdate.UTC().Format(time.RFC3339))
	}
	return nil
}

func fingerprintOf(c *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(c.Raw) }
