package snp

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Endorsement reads one VCEK or VLEK (DER, or PEM) that a pinned key has made. It does not judge
// times: the result says when it may be used.
func (r Roots) Endorsement(b []byte) (enclave.Endorsement, error) { return r.Learn(b, nil) }

// Learn is Endorsement, and leaves the signature in a memo: the first report of the chip then costs
// no more than the next.
func (r Roots) Learn(b []byte, m *Memo) (enclave.Endorsement, error) {
	chain, err := ParseCertificates(b)
	if err != nil {
		return enclave.Endorsement{}, err
	}
	v := &verification{chain: chain, opt: Options{Roots: r, Memo: m}, res: &Result{}, cert: chain.vcek, kind: vcek}
	if v.cert == nil {
		v.cert, v.kind = chain.vlek, vlek
	}
	if v.cert == nil || (chain.vcek != nil && chain.vlek != nil) {
		return enclave.Endorsement{}, errors.New("read endorsement: not one VCEK or VLEK")
	}
	var ok bool
	if v.issuer, ok = issuerOf(v.cert.Issuer.CommonName); !ok {
		return enclave.Endorsement{}, fmt.Errorf("read endorsement: the issuer %q is no AMD product's", v.cert.Issuer.CommonName)
	}
	if result, why := v.checkChain(); result != enclave.CheckPass {
		return enclave.Endorsement{}, fmt.Errorf("read endorsement: %s", why)
	}
	levels, err := v.ext.tcb(v.issuer.product)
	if err != nil {
		return enclave.Endorsement{}, fmt.Errorf("read endorsement: %w", err)
	}
	e := enclave.Endorsement{
		Product: v.issuer.product, Signer: string(v.kind), TCB: levels.of(v.issuer.product), Simulated: v.pin.simulated,
		NotBefore: v.cert.NotBefore, NotAfter: v.cert.NotAfter,
	}
	if e.Chip, err = v.ext.chip(v.issuer); err != nil {
		return enclave.Endorsement{}, fmt.Errorf("read endorsement: %w", err)
	}
	for _, c := range []*x509.Certificate{v.pin.intermediate, v.pin.root} {
		if c.NotBefore.After(e.NotBefore) {
			e.NotBefore = c.NotBefore
		}
		if c.NotAfter.Before(e.NotAfter) {
			e.NotAfter = c.NotAfter
		}
	}
	return e, nil
}

// List reads a revocation list that a pinned root has signed. Like Endorsement it judges no times.
func (r Roots) List(b []byte) (enclave.RevocationList, error) {
	l, err := ParseCRL(b)
	if err != nil {
		return enclave.RevocationList{}, err
	}
	why := fmt.Errorf("read CRL: its issuer %q is no pinned root", l.Issuer.CommonName)
	var out *enclave.RevocationList
	for _, i := range issuers() {
		for _, p := range r.pinned[i] {
			if !bytes.Equal(l.RawIssuer, p.root.RawSubject) {
				continue
			}
			if bad := p.signedList(l, nil); bad != nil {
				why = fmt.Errorf("read CRL: %w", bad)
				continue
			}
			if out == nil {
				out = &enclave.RevocationList{
					Product: i.product, Root: p.root.Subject.CommonName, ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate, Simulated: p.simulated,
				}
			}
			v := verification{pin: p, cert: &x509.Certificate{}}
			if c, _ := v.revoked(l); c != nil && !slices.Contains(out.Revoked, c.Subject.CommonName) {
				out.Revoked = append(out.Revoked, c.Subject.CommonName)
			}
		}
	}
	if out == nil {
		return enclave.RevocationList{}, why
	}
	return *out, nil
}

// Anchors lists the pinned certificates, roots first, then by product.
func (r Roots) Anchors() []enclave.Anchor {
	var out []enclave.Anchor
	seen := map[enclave.Digest]bool{}
	for _, i := range issuers() {
		for _, p := range r.pinned[i] {
			for _, c := range []*x509.Certificate{p.root, p.intermediate} {
				a := enclave.Anchor{
					Name: c.Subject.CommonName, Product: i.product, Root: c == p.root, SHA256: fingerprintOf(c),
					NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), Simulated: p.simulated,
				}
				if !seen[a.SHA256] {
					seen[a.SHA256] = true
					out = append(out, a)
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b enclave.Anchor) int {
		switch {
		case a.Root != b.Root && a.Root:
			return -1
		case a.Root != b.Root:
			return 1
		}
		return cmp.Compare(slices.Index(products(), a.Product), slices.Index(products(), b.Product))
	})
	return out
}

// Chain says whether a bundle of an intermediate and its root, as the KDS serves it, is what is
// pinned for a product and signer. AMD's next intermediate needs a release of ours.
func (r Roots) Chain(bundle []byte, product, signer string) error {
	want := issuer{product, kind(signer)}
	i, p, err := parsePin(bundle)
	if err != nil {
		return fmt.Errorf("read certificate chain: %w", err)
	}
	if i != want {
		return fmt.Errorf("read certificate chain: it is of %s, not of %s", i.commonName(), want.commonName())
	}
	for _, q := range r.pinned[want] {
		if q.intermediateID == p.intermediateID && q.rootID == p.rootID {
			return nil
		}
	}
	return fmt.Errorf("read certificate chain: %s with SHA-256 %x, root %x, is not pinned in this release", i.commonName(), p.intermediateID, p.rootID)
}
