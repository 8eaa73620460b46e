package snp

import (
	"fmt"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// The products as results and policies spell them.
const (
	milan = "milan"
	genoa = "genoa"
	turin = "turin"
	zen4c = "zen4c" // Siena and Bergamo: AMD files them under Genoa, their patch levels are their own

	// The lines with stacked cache are stepping 2 of the same model, and count their microcode
	// anew: level 79 mends a genoa-x and leaves a genoa open (AMD-SB-3019).
	milanX = "milan-x"
	genoaX = "genoa-x"
	zen5c  = "zen5c" // Turin Dense
)

func products() []string { return []string{milan, genoa, turin} }

// kind is which of a processor's two keys signed.
type kind string

const (
	vcek kind = "VCEK"
	vlek kind = "VLEK"
)

// issuer names one intermediate key of AMD's.
type issuer struct {
	product string
	kind    kind
}

// commonName is the issuer's CN in AMD's certificates.
func (i issuer) commonName() string {
	line := strings.ToUpper(i.product[:1]) + i.product[1:]
	if i.kind == vlek {
		return "SEV-VLEK-" + line
	}
	return "SEV-" + line
}

func issuers() []issuer {
	return []issuer{{milan, vcek}, {milan, vlek}, {genoa, vcek}, {genoa, vlek}, {turin, vcek}, {turin, vlek}}
}

func issuerOf(commonName string) (issuer, bool) {
	for _, i := range issuers() {
		if i.commonName() == commonName {
			return i, true
		}
	}
	return issuer{}, false
}

// partOf tells the processor from the family, model and stepping that reports carry since
// version 3. Models are AMD's ranges, so a new stepping needs no new release.
func partOf(family, model, stepping byte) (product, part string, err error) {
	stacked := stepping == 2
	switch {
	case family == 0x19 && model <= 0x0f && stacked:
		return milan, milanX, nil
	case family == 0x19 && model <= 0x0f:
		return milan, milan, nil
	case family == 0x19 && model >= 0x10 && model <= 0x1f && stacked:
		return genoa, genoaX, nil
	case family == 0x19 && model >= 0x10 && model <= 0x1f:
		return genoa, genoa, nil
	case family == 0x19 && model >= 0xa0 && model <= 0xaf:
		return genoa, zen4c, nil
	case family == 0x1a && model <= 0x0f:
		return turin, turin, nil
	case family == 0x1a && model <= 0x1f:
		return turin, zen5c, nil
	}
	return "", "", fmt.Errorf("family %#x model %#x is no known product", family, model)
}

// spls are the eight bytes of a TCB_VERSION, lowest first.
type spls [8]byte

func splsOf(tcb uint64) (s spls) {
	for i := range s {
		s[i] = byte(tcb >> (8 * i))
	}
	return s
}

func tcbOf(product string, tcb uint64) enclave.TCB { return splsOf(tcb).of(product) }

// of names the parts. Turin moved them: byte 0 is the FMC, and the other three follow it.
func (s spls) of(product string) enclave.TCB {
	if product == turin {
		return enclave.TCB{FMC: s[0], Bootloader: s[1], TEE: s[2], SNP: s[3], Microcode: s[7]}
	}
	return enclave.TCB{Bootloader: s[0], TEE: s[1], SNP: s[6], Microcode: s[7]}
}
