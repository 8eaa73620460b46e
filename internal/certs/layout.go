package certs

import (
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// The suffixes of the store's files.
const (
	certificateSuffix = ".der"
	listSuffix        = ".crl"
	chainSuffix       = ".pem"
)

// turin has its own form of patch levels and chip identifiers.
const turin = "turin"

// lines are the products as the KDS spells them.
func lines() map[string]string {
	return map[string]string{"milan": "Milan", "genoa": "Genoa", turin: "Turin"}
}

// Key names one VCEK: a chip's at one patch level.
type Key struct {
	Product string // milan, genoa, turin
	Chip    enclave.ChipID
	TCB     enclave.TCB
}

// KeyOf is the key of an endorsement. A VLEK has none: it is not of a chip.
func KeyOf(e enclave.Endorsement) Key { return Key{e.Product, e.Chip, e.TCB} }

// Candidates are the keys under which a report's VCEK may lie. A version 2 report does not name
// its product, and a masked chip none at all.
func Candidates(r enclave.SNPReport) []Key {
	if r.Version == 0 || r.Signer != "VCEK" || r.ChipID == (enclave.ChipID{}) {
		return nil
	}
	if r.Product != "" {
		return []Key{{r.Product, r.ChipID, r.ReportedTCB}}
	}
	return []Key{{"milan", r.ChipID, r.ReportedTCB}, {"genoa", r.ChipID, r.ReportedTCB}}
}

// Valid is true for a key of a known product that names a chip.
func (k Key) Valid() bool {
	_, ok := lines()[k.Product]
	return ok && k.Chip != (enclave.ChipID{}) && (k.Product != turin || len(strings.Trim(k.Chip.String()[16:], "0")) == 0)
}

// Path is where the certificate lies, beneath the store: PRODUCT/CHIP_ID/BL-TEE-SNP-UCODE.der, on
// Turin FMC-BL-TEE-SNP-UCODE.der. The chip is CHIP_ID's 128 digits, the levels are decimal.
func (k Key) Path() string {
	return path.Join(k.Product, k.Chip.String(), strings.Join(k.levels("%d"), "-")+certificateSuffix)
}

func (k Key) String() string {
	return fmt.Sprintf("%s %s... at %s", k.Product, k.Chip.String()[:16], strings.Join(k.levels("%d"), "/"))
}

func (k Key) levels(format string) []string {
	n := []uint8{k.TCB.Bootloader, k.TCB.TEE, k.TCB.SNP, k.TCB.Microcode}
	if k.Product == turin {
		n = append([]uint8{k.TCB.FMC}, n...)
	}
	out := make([]string, 0, len(n))
	for _, x := range n {
		out = append(out, fmt.Sprintf(format, x))
	}
	return out
}

// ParsePath is Path's inverse.
func ParsePath(p string) (Key, error) {
	var k Key
	parts := strings.Split(p, "/")
	if len(parts) != 3 || !strings.HasSuffix(parts[2], certificateSuffix) {
		return k, fmt.Errorf("parse name %q: want PRODUCT/CHIP/LEVELS%s", p, certificateSuffix)
	}
	k.Product = parts[0]
	if err := k.Chip.UnmarshalText([]byte(parts[1])); err != nil {
		return k, fmt.Errorf("parse name %q: %w", p, err)
	}
	fields := []*uint8{&k.TCB.Bootloader, &k.TCB.TEE, &k.TCB.SNP, &k.TCB.Microcode}
	if k.Product == turin {
		fields = append([]*uint8{&k.TCB.FMC}, fields...)
	}
	levels := strings.Split(strings.TrimSuffix(parts[2], certificateSuffix), "-")
	if len(levels) != len(fields) {
		return k, fmt.Errorf("parse name %q: %d patch levels, want %d", p, len(levels), len(fields))
	}
	for i, l := range levels {
		n, err := strconv.ParseUint(l, 10, 8)
		if err != nil {
			return k, fmt.Errorf("parse name %q: %w", p, err)
		}
		*fields[i] = uint8(n)
	}
	if !k.Valid() || k.Path() != p {
		return k, fmt.Errorf("parse name %q: not as this store spells it", p)
	}
	return k, nil
}

// query is the KDS's name of the certificate (57230, 4.1): Turin's chips have 8 bytes, and FMC
// comes first.
func (k Key) query() string {
	hwid, names := k.Chip[:], []string{"blSPL", "teeSPL", "snpSPL", "ucodeSPL"}
	if k.Product == turin {
		hwid, names = k.Chip[:8], slices.Insert(names, 0, "fmcSPL")
	}
	levels := k.levels("%02d")
	for i := range names {
		names[i] += "=" + levels[i]
	}
	return fmt.Sprintf("/vcek/v1/%s/%s?%s", lines()[k.Product], hex.EncodeToString(hwid), strings.Join(names, "&"))
}

// Authority is one of AMD's intermediates, with the root above it.
type Authority struct {
	Product string
	Signer  string // VCEK or VLEK: what it makes
}

func (a Authority) String() string { return a.Product + " " + a.Signer }

// ListPath is where the root's revocation list lies. The KDS serves one for each intermediate.
func (a Authority) ListPath() string { return a.Product + "-" + strings.ToLower(a.Signer) + listSuffix }

// ChainPath is where the intermediate and its root lie, PEM, for people with openssl: the program
// trusts what is pinned in it and nothing of the store.
func (a Authority) ChainPath() string {
	return a.Product + "-" + strings.ToLower(a.Signer) + chainSuffix
}

func (a Authority) query(what string) string {
	return fmt.Sprintf("/%s/v1/%s/%s", strings.ToLower(a.Signer), lines()[a.Product], what)
}

// IsList is true for the name of a revocation list, whoever put it there.
func IsList(name string) bool { return path.Ext(name) == listSuffix && path.Base(name) == name }
