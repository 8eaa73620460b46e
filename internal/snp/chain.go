package snp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-sev-guest/verify"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// root wants a pinned key for the product, and names a foreign root that came along: an
// attacker's root in the host's table was once believed (go-sev-guest issue 185).
func (v *verification) root() (enclave.CheckResult, string) {
	i := v.issuer
	if v.cert == nil {
		i = issuer{v.res.Product, v.kind}
	}
	if i.product == "" || (i.kind != vcek && i.kind != vlek) {
		return unknown("no product and signer, so no root to look for")
	}
	pins := v.opt.Roots.pinned[i]
	if len(pins) == 0 {
		return fail("no root is pinned for a %s of %s", i.kind, i.product)
	}
	for _, c := range v.chain.others {
		if bytes.Equal(c.RawSubject, c.RawIssuer) && !v.isPinnedRoot(c) {
			return fail("the chain ends in a root that is not pinned: %q, SHA-256 %s", c.Subject.CommonName, fingerprint(c))
		}
	}
	return pass("%s is pinned", pins[0].root.Subject.CommonName)
}

func (v *verification) isPinnedRoot(c *x509.Certificate) bool {
	for _, pins := range v.opt.Roots.pinned {
		for _, p := range pins {
			if bytes.Equal(p.root.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo) {
				return true
			}
		}
	}
	return false
}

// checkChain asks whether a pinned intermediate made this certificate, and for what.
func (v *verification) checkChain() (enclave.CheckResult, string) {
	if v.cert == nil {
		return v.withoutCertificate()
	}
	if v.issuer.kind != v.kind || v.cert.Subject.CommonName != "SEV-"+string(v.kind) {
		return fail("the report is signed by a %s, the certificate is a %s of %s",
			v.kind, v.cert.Subject.CommonName, v.issuer.commonName())
	}
	key, ok := v.cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return fail("the %s is no P-384 key", v.kind)
	}
	if len(v.cert.UnhandledCriticalExtensions) != 0 {
		return fail("the %s has a critical extension that is not known here", v.kind)
	}
	if err := v.findPin(); err != nil {
		return fail("the %s was not made by the pinned %s: %v", v.kind, v.issuer.commonName(), err)
	}
	ext, err := parseExtensions(v.cert)
	if err != nil {
		return fail("the %s is malformed: %v", v.kind, err)
	}
	if !ext.isOf(v.issuer.product) {
		return fail("the %s names product %q, its issuer is %s", v.kind, ext.productName, v.issuer.commonName())
	}
	v.ext, v.chained = ext, true
	if v.pin.simulated {
		return pass("%s, %s, %s (SIMULATED: a lab's keys)", v.kind, v.issuer.commonName(), v.pin.root.Subject.CommonName)
	}
	return pass("%s, %s, %s", v.kind, v.issuer.commonName(), v.pin.root.Subject.CommonName)
}

func (v *verification) withoutCertificate() (enclave.CheckResult, string) {
	c := v.chain
	switch {
	case v.kind != vcek && v.kind != vlek:
		return fail("no key signed the report")
	case c.problem != nil && !errors.Is(c.problem, ErrNoCertificate):
		return fail("%v", c.problem)
	case c.vcek != nil || c.vlek != nil:
		return fail("the report is signed by a %s, the certificate given is of the other kind", v.kind)
	case len(c.others) != 0:
		return fail("%q is no %s", c.others[0].Subject.CommonName, v.kind)
	}
	v.res.NoCertificate = true
	return fail("there is no certificate of the %s", v.kind)
}

// findPin finds the pinned key that made the certificate. From here on the result is simulated
// only if that key is a lab's.
func (v *verification) findPin() error {
	err := errors.New("the issuer's name is another")
	for _, p := range v.opt.Roots.pinned[v.issuer] {
		if !bytes.Equal(v.cert.RawIssuer, p.intermediate.RawSubject) {
			continue
		}
		err = v.opt.Memo.signed(p.intermediateID, v.cert.Raw, func() error { return v.cert.CheckSignatureFrom(p.intermediate) })
		if err == nil {
			v.pin = p
			v.res.Simulated = p.simulated
			return nil
		}
	}
	return err
}

// validity judges by the verifier's clock alone, and all three certificates.
func (v *verification) validity() (enclave.CheckResult, string) {
	at := v.opt.At
	if at.IsZero() {
		return fail("no time was given to judge validity at")
	}
	for _, c := range []*x509.Certificate{v.cert, v.pin.intermediate, v.pin.root} {
		if at.Before(c.NotBefore) { // it was signed already: the clock is behind
			v.res.Unjudged = fmt.Sprintf("the certificate of %s is not valid before %s, and here it is %s",
				c.Subject.CommonName, c.NotBefore.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
			return fail("the certificate of %s is not valid before %s", c.Subject.CommonName, c.NotBefore.UTC().Format(time.RFC3339))
		}
		if at.After(c.NotAfter) {
			return fail("the certificate of %s expired at %s", c.Subject.CommonName, c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return pass("valid until %s", v.cert.NotAfter.UTC().Format(time.RFC3339))
}

// tcb compares all eight bytes: a VCEK is derived from the patch levels it names, and a host
// may report older ones than it runs.
func (v *verification) tcb() (enclave.CheckResult, string) {
	cert, err := v.ext.tcb(v.issuer.product)
	if err != nil {
		return fail("the %s is malformed: %v", v.kind, err)
	}
	if got := splsOf(v.proto.GetReportedTcb()); cert != got {
		return fail("the %s is for patch levels %s, the report says %s (lowest byte first)",
			v.kind, hex.EncodeToString(cert[:]), hex.EncodeToString(got[:]))
	}
	return pass("REPORTED_TCB %s", v.res.ReportedTCB)
}

// hwid compares CHIP_ID with the VCEK's. A masked CHIP_ID (all zero) names no chip: whether that
// will do is for the policy. A VLEK belongs to a cloud, not to a chip.
func (v *verification) hwid() (enclave.CheckResult, string) {
	chip := v.res.ChipID
	named, err := v.ext.chip(issuer{v.issuer.product, v.kind})
	switch {
	case err != nil:
		return fail("%v", err)
	case v.kind == vlek:
		return pass("a VLEK names no chip (%s)", v.ext.csp)
	case chip == enclave.ChipID{}:
		return pass("CHIP_ID is masked")
	}
	if named != chip {
		return fail("the VCEK is another chip's: it names %s..., the report %s...", named.String()[:16], chip.String()[:16])
	}
	return pass("CHIP_ID %s...", chip.String()[:16])
}

// maskChipKey is the bit of SIGNER_INFO that says that the host lets no VCEK sign.
const maskChipKey = 1 << 1

// signature accepts (r, n-s) too, as ECDSA does: it is genuine, but two reports may say the same,
// so nothing may take the hash of a report for its identity.
func (v *verification) signature() (enclave.CheckResult, string) {
	if len(bytes.Trim(v.proto.GetSignature(), "\x00")) == 0 {
		if v.proto.GetSignerInfo()&maskChipKey != 0 {
			return fail("the report is not signed: the host masks its chip's key (MASK_CHIP_KEY)")
		}
		return fail("the report is not signed")
	}
	if err := verify.SnpReportSignature(v.report, v.cert); err != nil {
		return fail("the %s did not sign this report: %v", v.kind, err)
	}
	return pass("ECDSA P-384 with SHA-384 by the %s", v.kind)
}
