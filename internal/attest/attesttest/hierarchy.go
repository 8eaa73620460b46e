package attesttest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Hierarchy is a test AMD: a root key (ARK) and an intermediate (ASK) that makes VCEKs. Its keys
// lie in a directory, so that a lab keeps its root from one start to the next.
type Hierarchy struct {
	dir      string
	product  string // Milan, Genoa, Turin
	vlek     bool   // its chips sign with a cloud's key
	ark, ask *rsa.PrivateKey
	arkCert  *x509.Certificate
	askCert  *x509.Certificate
}

type options struct {
	product string
	bits    int
	vlek    bool
}

// Option changes how a new hierarchy is made.
type Option func(*options)

// Product makes a hierarchy of Genoa or Turin; the default is Milan.
func Product(name string) Option { return func(o *options) { o.product = name } }

// VLEK makes a hierarchy whose chips sign with the key of a cloud, which names no chip.
func VLEK() Option { return func(o *options) { o.vlek = true } }

// SmallKeys makes RSA keys of 2048 bits in place of AMD's 4096: tests that make a hierarchy each
// would otherwise spend their time on it.
func SmallKeys() Option { return func(o *options) { o.bits = 2048 } }

// NewHierarchy makes a hierarchy in dir, or loads the one that is there. Processes that start at
// the same time get the same one.
func NewHierarchy(dir string, opts ...Option) (*Hierarchy, error) {
	h, err := LoadHierarchy(dir)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return h, err
	}
	o := options{product: "Milan", bits: 4096}
	for _, opt := range opts {
		opt(&o)
	}
	if h, err = generate(o); err != nil {
		return nil, fmt.Errorf("make test hierarchy: %w", err)
	}
	h.dir = dir
	err = h.store()
	if errors.Is(err, fs.ErrExist) {
		return LoadHierarchy(dir) // another process was first
	}
	if err != nil {
		return nil, fmt.Errorf("make test hierarchy: %w", err)
	}
	return h, nil
}

// LoadHierarchy reads what NewHierarchy wrote.
func LoadHierarchy(dir string) (*Hierarchy, error) {
	blocks, err := loadPEM(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("load test hierarchy: %w", err)
	}
	if len(blocks) != 4 {
		return nil, fmt.Errorf("load test hierarchy: %s holds %d PEM blocks, want 4", keyFile, len(blocks))
	}
	h := &Hierarchy{dir: dir}
	h.ark, err = parseKey[*rsa.PrivateKey](blocks[0])
	if err == nil {
		h.ask, err = parseKey[*rsa.PrivateKey](blocks[1])
	}
	if err == nil {
		h.askCert, err = x509.ParseCertificate(blocks[2])
	}
	if err == nil {
		h.arkCert, err = x509.ParseCertificate(blocks[3])
	}
	if err != nil {
		return nil, fmt.Errorf("load test hierarchy: %w", err)
	}
	h.product, h.vlek = strings.CutPrefix(strings.TrimPrefix(h.askCert.Subject.CommonName, "SEV-"), "VLEK-")
	return h, nil
}

// Line is the product as AMD spells it: Milan, Genoa, Turin.
func (h *Hierarchy) Line() string { return h.product }

// Roots is the intermediate and the root in PEM: what a verifier is told to trust as test roots.
func (h *Hierarchy) Roots() []byte {
	return append(certificatePEM(h.askCert.Raw), certificatePEM(h.arkCert.Raw)...)
}

// CRL is a revocation list of the root, in DER; it revokes the intermediate if asked to.
func (h *Hierarchy) CRL(thisUpdate, nextUpdate time.Time, revoked bool) ([]byte, error) {
	l := &x509.RevocationList{ThisUpdate: thisUpdate, NextUpdate: nextUpdate}
	if revoked {
		l.RevokedCertificateEntries = []x509.RevocationListEntry{
			{SerialNumber: h.askCert.SerialNumber, RevocationTime: thisUpdate},
		}
	}
	return h.Revocations(l)
}

// Revocations is a list of the root with any entries and extensions, in DER.
func (h *Hierarchy) Revocations(l *x509.RevocationList) ([]byte, error) {
	l.SignatureAlgorithm = x509.SHA384WithRSAPSS
	if l.Number == nil {
		l.Number = big.NewInt(1)
	}
	return x509.CreateRevocationList(rand.Reader, l, h.arkCert, h.ark)
}

// Serial is the serial number of the intermediate.
func (h *Hierarchy) Serial() *big.Int { return new(big.Int).Set(h.askCert.SerialNumber) }

// name spells a subject as AMD does, but for the organization.
func name(cn string) pkix.Name {
	return pkix.Name{
		OrganizationalUnit: []string{"Engineering"}, Country: []string{"US"},
		Organization: []string{"SIMULATED, not AMD: slurm-enclave lab"}, CommonName: cn,
	}
}

func generate(o options) (*Hierarchy, error) {
	h := &Hierarchy{product: o.product, vlek: o.vlek}
	intermediate := "SEV-" + o.product
	if o.vlek {
		intermediate = "SEV-VLEK-" + o.product
	}
	var err error
	if h.ark, err = rsa.GenerateKey(rand.Reader, o.bits); err != nil {
		return nil, err
	}
	if h.ask, err = rsa.GenerateKey(rand.Reader, o.bits); err != nil {
		return nil, err
	}
	now := time.Now()
	ark := &x509.Certificate{
		SignatureAlgorithm: x509.SHA384WithRSAPSS, SerialNumber: big.NewInt(65536), Subject: name("ARK-" + o.product),
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(25, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if h.arkCert, err = sign(ark, ark, &h.ark.PublicKey, h.ark); err != nil {
		return nil, err
	}
	ask := &x509.Certificate{
		SignatureAlgorithm: x509.SHA384WithRSAPSS, SerialNumber: big.NewInt(65537), Subject: name(intermediate),
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(25, 0, 0), IsCA: true, BasicConstraintsValid: true,
		MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	h.askCert, err = sign(ask, h.arkCert, &h.ask.PublicKey, h.ark)
	return h, err
}

func sign(template, parent *x509.Certificate, public any, key *rsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// keyFile holds both keys and both certificates, so that they are written at once or not at all.
const keyFile = "hierarchy.pem"

// store also leaves roots.pem, for verifiers.
func (h *Hierarchy) store() error {
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return err
	}
	ark, err := keyPEM(h.ark)
	if err != nil {
		return err
	}
	ask, err := keyPEM(h.ask)
	if err != nil {
		return err
	}
	if err := writeNew(filepath.Join(h.dir, keyFile), slices.Concat(ark, ask, h.Roots()), 0o400); err != nil {
		return err
	}
	return writeNew(filepath.Join(h.dir, "roots.pem"), h.Roots(), 0o644)
}
