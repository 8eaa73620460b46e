package snp

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// amdArc is the arc of AMD's certificate extensions (VCEK and VLEK specification, 57230).
func amdArc() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1} }

// extensions are AMD's words in a VCEK or VLEK.
type extensions struct {
	productName string
	spl         map[int]byte // by the last arc of 1.3.6.1.4.1.3704.1.3.N
	hwid        []byte
	csp         string
}

func parseExtensions(cert *x509.Certificate) (extensions, error) {
	e := extensions{spl: map[int]byte{}}
	seen := map[string]bool{}
	arc := amdArc()
	for _, x := range cert.Extensions {
		if len(x.Id) <= len(arc) || !x.Id[:len(arc)].Equal(arc) {
			continue
		}
		if seen[x.Id.String()] {
			return extensions{}, fmt.Errorf("extension %s is doubled", x.Id)
		}
		seen[x.Id.String()] = true
		if err := e.add(x.Id[len(arc):], x.Value); err != nil {
			return extensions{}, fmt.Errorf("extension %s: %w", x.Id, err)
		}
	}
	if e.productName == "" {
		return extensions{}, errors.New("no product name")
	}
	return e, nil
}

func (e *extensions) add(id asn1.ObjectIdentifier, value []byte) error {
	switch {
	case id.Equal(asn1.ObjectIdentifier{1}): // structVersion
		_, err := parseByte(value)
		return err
	case id.Equal(asn1.ObjectIdentifier{2}):
		return parseIA5(value, &e.productName)
	case len(id) == 2 && id[0] == 3:
		n, err := parseByte(value)
		if err != nil {
			return err
		}
		e.spl[id[1]] = n
		return nil
	case id.Equal(asn1.ObjectIdentifier{4}):
		return e.addHWID(value)
	case id.Equal(asn1.ObjectIdentifier{5}):
		return parseIA5(value, &e.csp)
	}
	return nil // what AMD may add one day and does not call critical; patch levels are counted
}

// addHWID takes the identifier as AMD writes it, bare: 64 bytes, on Turin 8. Should AMD come to
// write the OCTET STRING that it means, its two bytes more tell.
func (e *extensions) addHWID(value []byte) error {
	if n := len(value) - 2; (n == 64 || n == 8) && value[0] == asn1.TagOctetString && int(value[1]) == n {
		value = value[2:]
	}
	if len(value) != 64 && len(value) != 8 {
		return fmt.Errorf("hardware id of %d bytes", len(value))
	}
	e.hwid = value
	return nil
}

func parseByte(value []byte) (byte, error) {
	var n int
	rest, err := asn1.Unmarshal(value, &n)
	if err != nil {
		return 0, err
	}
	if len(rest) != 0 || n < 0 || n > 255 {
		return 0, errors.New("not one number from 0 to 255")
	}
	return byte(n), nil
}

func parseIA5(value []byte, s *string) error {
	if len(value) == 0 || value[0] != asn1.TagIA5String {
		return errors.New("not an IA5String")
	}
	rest, err := asn1.UnmarshalWithParams(value, s, "ia5")
	if err != nil {
		return err
	}
	if len(rest) != 0 {
		return errors.New("bytes after the string")
	}
	return nil
}

// tcb puts the patch levels where a report of this product has them.
func (e extensions) tcb(product string) (spls, error) {
	at := [8]int{1, 2, 4, 5, 6, 7, 3, 8}
	if product == turin {
		at = [8]int{9, 1, 2, 3, 5, 6, 7, 8}
	}
	var s spls
	for i, n := range at {
		v, ok := e.spl[n]
		if !ok {
			return spls{}, fmt.Errorf("no patch level %d", n)
		}
		s[i] = v
	}
	if len(e.spl) != len(at) {
		return spls{}, fmt.Errorf("%d patch levels, %s has %d", len(e.spl), product, len(at))
	}
	return s, nil
}

// isOf compares the product name, which may end in a stepping: "Milan-B0".
func (e extensions) isOf(product string) bool {
	name, _, _ := strings.Cut(e.productName, "-")
	return strings.ToLower(name) == product
}

// chip is the chip of a VCEK. A VLEK belongs to a cloud: it names that, and no chip.
func (e extensions) chip(i issuer) (chip enclave.ChipID, err error) {
	if i.kind == vlek {
		if e.csp == "" || e.hwid != nil {
			return chip, errors.New("the VLEK does not name its cloud provider")
		}
		return chip, nil
	}
	want := len(chip)
	if i.product == turin {
		want = 8
	}
	if len(e.hwid) != want || e.csp != "" {
		return chip, fmt.Errorf("the VCEK's hardware id has %d bytes, want %d", len(e.hwid), want)
	}
	copy(chip[:], e.hwid)
	return chip, nil
}
