package attesttest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path/filepath"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/uuid"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Chip is one processor at one patch level, with its VCEK.
type Chip struct {
	ID          enclave.ChipID
	TCB         enclave.TCB
	Certificate []byte // the VCEK, DER

	hierarchy *Hierarchy
	key       *ecdsa.PrivateKey
}

// ChipID is the chip of a lab's node: the same name has the same chip in every lab.
func ChipID(node string) enclave.ChipID {
	return sha512.Sum512([]byte("slurm-enclave lab chip\x00" + node))
}

// CurrentTCB is the patch level of a lab's chips.
func CurrentTCB() enclave.TCB { return enclave.TCB{Bootloader: 4, SNP: 24, Microcode: 219} }

// OldTCB is an outdated one, for the fault old_tcb.
func OldTCB() enclave.TCB { return enclave.TCB{Bootloader: 2, SNP: 5, Microcode: 68} }

// Validity is the time in which a chip's certificate is valid.
type Validity struct{ NotBefore, NotAfter time.Time }

// NewChip makes a chip with a new key and certificate, in memory only. The zero Validity is
// AMD's seven years from now.
func (h *Hierarchy) NewChip(id enclave.ChipID, tcb enclave.TCB, v Validity) (*Chip, error) {
	signer := "SEV-VCEK"
	switch {
	case h.vlek:
		id, signer = enclave.ChipID{}, "SEV-VLEK"
	case h.product == "Turin": // its identifier has 8 bytes
		clear(id[8:])
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make chip: %w", err)
	}
	c := &Chip{ID: id, TCB: tcb, hierarchy: h, key: key}
	if v == (Validity{}) {
		now := time.Now()
		v = Validity{NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(7, 0, 0)}
	}
	ext, err := h.extensions(id, tcb)
	if err != nil {
		return nil, fmt.Errorf("make chip: %w", err)
	}
	cert, err := sign(&x509.Certificate{
		SignatureAlgorithm: x509.SHA384WithRSAPSS, SerialNumber: new(big.Int), Subject: name(signer),
		NotBefore: v.NotBefore, NotAfter: v.NotAfter, ExtraExtensions: ext,
	}, h.askCert, &key.PublicKey, h.ask)
	if err != nil {
		return nil, fmt.Errorf("make chip: %w", err)
	}
	c.Certificate = cert.Raw
	return c, nil
}

// Chip is the chip of a lab's node, kept in the hierarchy's directory.
func (h *Hierarchy) Chip(node string) (*Chip, error) {
	if node == "" || node != filepath.Base(node) {
		return nil, fmt.Errorf("find chip of node %q: not a node name", node)
	}
	path := filepath.Join(h.dir, "chip-"+node)
	c, err := h.loadChip(path, node)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	if c, err = h.NewChip(ChipID(node), CurrentTCB(), Validity{}); err != nil {
		return nil, err
	}
	// Key and certificate are one file: two processes that make the same chip must agree.
	key, err := keyPEM(c.key)
	if err != nil {
		return nil, fmt.Errorf("store chip: %w", err)
	}
	err = writeNew(path, append(key, certificatePEM(c.Certificate)...), 0o400)
	if errors.Is(err, fs.ErrExist) {
		return h.loadChip(path, node)
	}
	if err != nil {
		return nil, fmt.Errorf("store chip: %w", err)
	}
	return c, nil
}

func (h *Hierarchy) loadChip(path, node string) (*Chip, error) {
	blocks, err := loadPEM(path)
	if err != nil {
		return nil, fmt.Errorf("load chip: %w", err)
	}
	if len(blocks) != 2 {
		return nil, fmt.Errorf("load chip: %s holds %d PEM blocks, want 2", path, len(blocks))
	}
	key, err := parseKey[*ecdsa.PrivateKey](blocks[0])
	if err != nil {
		return nil, fmt.Errorf("load chip: %w", err)
	}
	return &Chip{ID: ChipID(node), TCB: CurrentTCB(), Certificate: blocks[1], hierarchy: h, key: key}, nil
}

// At is the same chip at another patch level: its VCEK is another then.
func (c *Chip) At(tcb enclave.TCB) (*Chip, error) { return c.hierarchy.NewChip(c.ID, tcb, Validity{}) }

// Sign puts the chip's signature on a report.
func (c *Chip) Sign(report []byte) error {
	sum := sha512.Sum384(abi.SignedComponent(report))
	r, s, err := ecdsa.Sign(rand.Reader, c.key, sum[:])
	if err != nil {
		return fmt.Errorf("sign report: %w", err)
	}
	return abi.SetSignature(r, s, report)
}

// Table is the certificate table that a host hands to its guests: VCEK, ASK and ARK.
func (c *Chip) Table() []byte {
	entry := func(guid string, der []byte) abi.CertTableEntry {
		return abi.CertTableEntry{GUID: uuid.MustParse(guid), RawCert: bytes.Clone(der)}
	}
	guid := abi.VcekGUID
	if c.hierarchy.vlek {
		guid = abi.VlekGUID
	}
	t := abi.CertTable{Entries: []abi.CertTableEntry{
		entry(guid, c.Certificate),
		entry(abi.AskGUID, c.hierarchy.askCert.Raw),
		entry(abi.ArkGUID, c.hierarchy.arkCert.Raw),
	}}
	return t.Marshal()
}

// extensions are AMD's, in AMD's order and encoding: the hardware id is bare bytes.
func (h *Hierarchy) extensions(id enclave.ChipID, tcb enclave.TCB) ([]pkix.Extension, error) {
	hwid := id[:]
	spl := [][2]int{{1, int(tcb.Bootloader)}, {2, int(tcb.TEE)}, {4, 0}, {5, 0}, {6, 0}, {7, 0}, {3, int(tcb.SNP)}, {8, int(tcb.Microcode)}}
	if h.product == "Turin" {
		hwid = id[:8]
		spl[2] = [2]int{9, int(tcb.FMC)}
	}
	productName, err := asn1.MarshalWithParams(h.product, "ia5")
	if err != nil {
		return nil, err
	}
	arc := func(n ...int) asn1.ObjectIdentifier {
		return append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}, n...)
	}
	ext := []pkix.Extension{{Id: arc(1), Value: []byte{2, 1, 0}}, {Id: arc(2), Value: productName}}
	for _, s := range spl {
		v, err := asn1.Marshal(s[1])
		if err != nil {
			return nil, err
		}
		ext = append(ext, pkix.Extension{Id: arc(3, s[0]), Value: v})
	}
	if h.vlek {
		cloud, err := asn1.MarshalWithParams("CN=lab.slurm-enclave.invalid", "ia5")
		return append(ext, pkix.Extension{Id: arc(5), Value: cloud}), err
	}
	return append(ext, pkix.Extension{Id: arc(4), Value: hwid}), nil
}
