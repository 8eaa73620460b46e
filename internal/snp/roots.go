package snp

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"

	"github.com/google/go-sev-guest/verify/trust"
)

// Roots is the set of signing keys that may have made a VCEK or VLEK. The zero value trusts
// nobody. It is never written after it was made.
type Roots struct {
	pinned map[issuer][]pin
}

// pin is one intermediate certificate with the root above it.
type pin struct {
	intermediate, root     *x509.Certificate
	intermediateID, rootID [sha256.Size]byte // SHA-256 of the certificates
	simulated              bool
}

// amdPins are the SHA-256 of AMD's certificates (DER). The certificates come from go-sev-guest,
// whose exported byte slices any code in the process may overwrite; the pins are ours.
func amdPins() map[issuer][2]string {
	const (
		arkMilan = "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"
		arkGenoa = "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"
		arkTurin = "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"
	)
	return map[issuer][2]string{
		{milan, vcek}: {"67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b", arkMilan},
		{milan, vlek}: {"c5e081f59b7efab1fe2f8b505e159704e72f29cab7ef7cf628a05a42439082f5", arkMilan},
		{genoa, vcek}: {"5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521", arkGenoa},
		{genoa, vlek}: {"197e610743a917d6b9bb982a5a9226ccc0a15b611be0619e626aca9151457372", arkGenoa},
		{turin, vcek}: {"5b77ef5fe7a7a004fd9032668fba9d0fda22f88c4442069a479636a6ae3b3185", arkTurin},
		{turin, vlek}: {"104e10a8bd060a3c20a434261a57d0588fd65a88915b4f65b08bdecaf8df1a3c", arkTurin},
	}
}

// AMDRoots are AMD's keys for Milan, Genoa and Turin. The error says that the library's copy of
// a certificate isn't the one pinned here.
func AMDRoots() (Roots, error) {
	bundles := map[issuer][]byte{
		{milan, vcek}: trust.AskArkMilanVcekBytes,
		{milan, vlek}: trust.AskArkMilanVlekBytes,
		{genoa, vcek}: trust.AskArkGenoaVcekBytes,
		{genoa, vlek}: trust.AskArkGenoaVlekBytes,
		{turin, vcek}: trust.AskArkTurinVcekBytes,
		{turin, vlek}: trust.AskArkTurinVlekBytes,
	}
	return amdRoots(bundles)
}

func amdRoots(bundles map[issuer][]byte) (Roots, error) {
	r := Roots{pinned: map[issuer][]pin{}}
	pins := amdPins()
	for _, i := range issuers() {
		// The digest says it all: that these keys sign each other is a test's business.
		got, p, err := parsePin(bundles[i])
		if err != nil {
			return Roots{}, fmt.Errorf("read AMD's root of %s: %w", i.commonName(), err)
		}
		if got != i || hex.EncodeToString(p.intermediateID[:]) != pins[i][0] || hex.EncodeToString(p.rootID[:]) != pins[i][1] {
			return Roots{}, fmt.Errorf("read AMD's root of %s: not the pinned certificate", i.commonName())
		}
		r.pinned[i] = []pin{p}
	}
	return r, nil
}

// TestRoots are the keys of a lab: each bundle holds an intermediate and its self-signed root,
// PEM or DER one after the other, in this order. Every result that they vouch for is simulated;
// no option takes that away.
func TestRoots(bundles ...[]byte) (Roots, error) {
	r := Roots{pinned: map[issuer][]pin{}}
	for _, b := range bundles {
		i, p, err := parsePin(b)
		if err == nil {
			err = p.check()
		}
		if err != nil {
			return Roots{}, fmt.Errorf("read test roots: %w", err)
		}
		p.simulated = true
		r.pinned[i] = append(r.pinned[i], p)
	}
	if len(r.pinned) == 0 {
		return Roots{}, errors.New("read test roots: no certificate")
	}
	return r, nil
}

// Join trusts what either trusts. What a lab vouches for stays simulated.
func Join(a, b Roots) Roots {
	r := Roots{pinned: maps.Clone(a.pinned)}
	if r.pinned == nil {
		r.pinned = map[issuer][]pin{}
	}
	for i, pins := range b.pinned {
		r.pinned[i] = append(append([]pin(nil), r.pinned[i]...), pins...)
	}
	return r
}

// simulated is true when some root is a lab's.
func (r Roots) simulated() bool {
	for _, pins := range r.pinned {
		for _, p := range pins {
			if p.simulated {
				return true
			}
		}
	}
	return false
}

func parsePin(b []byte) (issuer, pin, error) {
	der := b
	if block, _ := pem.Decode(b); block != nil {
		der = nil
		for rest := b; ; {
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			der = append(der, block.Bytes...)
		}
	}
	certs, err := x509.ParseCertificates(der)
	if err != nil {
		return issuer{}, pin{}, err
	}
	if len(certs) != 2 {
		return issuer{}, pin{}, fmt.Errorf("%d certificates, want an intermediate and its root", len(certs))
	}
	p := pin{
		intermediate: certs[0], intermediateID: fingerprintOf(certs[0]),
		root: certs[1], rootID: fingerprintOf(certs[1]),
	}
	i, ok := issuerOf(p.intermediate.Subject.CommonName)
	if !ok {
		return issuer{}, pin{}, fmt.Errorf("intermediate %q is of no known product", p.intermediate.Subject.CommonName)
	}
	return i, p, nil
}

// check wants the root to have signed both.
func (p pin) check() error {
	if !bytes.Equal(p.root.RawSubject, p.root.RawIssuer) {
		return errors.New("the root is not self-signed")
	}
	if err := p.root.CheckSignatureFrom(p.root); err != nil {
		return fmt.Errorf("the root does not sign itself: %w", err)
	}
	if err := p.intermediate.CheckSignatureFrom(p.root); err != nil {
		return fmt.Errorf("the root did not sign the intermediate: %w", err)
	}
	return nil
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}
