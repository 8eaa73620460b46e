package appraise

import (
	"slices"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Preset is a published set of minimum patch levels. What a name means never changes once it was
// released: policies, and receipts that hold their text, name it. A new bulletin is a new name.
//
// AMD names SNP firmware and microcode levels in its bulletins (TCB[SNP], TCB[MICROCODE]; the
// microcode level is the low byte of the patch's number). It rarely names a level for boot loader,
// TEE and FMC: those are taken from genuine reports that were published with these SNP levels, and
// the basis says so.
type Preset struct {
	Name    string                 `json:"name"`
	Minimum map[string]enclave.TCB `json:"minimum"` // by part
	Basis   []string               `json:"basis"`   // which level comes from where
}

// Presets are all presets, a product's newest last.
func Presets() []Preset {
	return []Preset{
		{
			Name: "milan-2025",
			Minimum: map[string]enclave.TCB{
				"milan":   {Bootloader: 4, SNP: 0x18, Microcode: 0xdb},
				"milan-x": {Bootloader: 4, SNP: 0x18, Microcode: 0x44},
			},
			Basis: []string{
				"snp 24: AMD-SB-3019 (microcode signatures, CVE-2024-56161) asks for TCB[SNP] 0x18; AMD-SB-3015 (BadRAM, CVE-2024-21944) asks for 0x17",
				"ucode 219, milan-x 68: AMD-SB-3019 and AMD-SB-7033 ask for patch 0x0A0011DB and 0x0A001244",
				"bl 4, tee 0: no bulletin names them; genuine reports with snp 24 have them",
			},
		},
		{
			Name:    "milan-2026",
			Minimum: map[string]enclave.TCB{"milan": {Bootloader: 4, SNP: 0x1d, Microcode: 0xde}},
			Basis: []string{
				"snp 29: AMD-SB-3030 (CVE-2025-61971) asks for TCB[SNP] 0x1D; AMD-SB-3016 (CVE-2023-20585) asks for 0x1B",
				"ucode 222: no number of AMD-SB-3027 (CVE-2025-29943) for Milan is known to us; genuine reports with snp 27 and later have it",
				"bl 4, tee 0: no bulletin names them; genuine reports have them",
				"milan-x is left out, because no number for its microcode is known to us: with this preset it is refused unless minimum_tcb names it",
			},
		},
		{
			Name: "genoa-2025",
			Minimum: map[string]enclave.TCB{
				"genoa":   {Bootloader: 10, SNP: 0x17, Microcode: 0x54},
				"genoa-x": {Bootloader: 10, SNP: 0x17, Microcode: 0x4f},
				"zen4c":   {Bootloader: 10, SNP: 0x17, Microcode: 0x19},
			},
			Basis: []string{
				"snp 23: AMD-SB-3019 (microcode signatures, CVE-2024-56161) asks for TCB[SNP] 0x17; AMD-SB-3015 (BadRAM, CVE-2024-21944) asks for 0x16",
				"ucode 84, genoa-x 79, zen4c 25: AMD-SB-3019 and AMD-SB-7033 ask for patch 0x0A101154, 0x0A10124F and 0x0AA00219",
				"bl 10, tee 0: no bulletin names them; genuine reports with snp 23 have them",
			},
		},
		{
			Name: "genoa-2026",
			Minimum: map[string]enclave.TCB{
				"genoa":   {Bootloader: 10, SNP: 0x1c, Microcode: 0x56},
				"genoa-x": {Bootloader: 10, SNP: 0x1c, Microcode: 0x51},
				"zen4c":   {Bootloader: 10, SNP: 0x1c, Microcode: 0x1b},
			},
			Basis: []string{
				"snp 28: AMD-SB-3034 (CVE-2025-54510) was quoted with TCB[SNP] 0x1C for EPYC 9004 and later without a number, so the stricter reading is taken; AMD-SB-3020 (CVE-2025-0033) and AMD-SB-3016 (CVE-2023-20585) ask for 0x1B",
				"ucode 86, genoa-x 81: AMD-SB-3027 (CVE-2025-29943) asks for TCB[MICROCODE] 0x56 and 0x51",
				"zen4c ucode 27: no number of AMD-SB-3027 for it is known to us; a genuine report with snp 27 has it",
				"bl 10, tee 0: no bulletin names them; genuine reports have them",
			},
		},
		{
			Name:    "turin-2025",
			Minimum: map[string]enclave.TCB{"turin": {FMC: 1, Bootloader: 1, TEE: 1, SNP: 4, Microcode: 0x51}},
			Basis: []string{
				"snp 4: AMD-SB-3020 (CVE-2025-0033) asks for TCB[SNP] 0x04",
				"ucode 81: AMD-SB-3027 (CVE-2025-29943) asks for TCB[MICROCODE] 0x51; AMD-SB-3020 for patch 0x0B002150",
				"fmc 1, bl 1, tee 1: no bulletin names them; genuine reports with snp 4 have them",
				"zen5c (Turin Dense) is left out, because no number for its microcode is known to us: it is refused unless minimum_tcb names it",
			},
		},
	}
}

// FindPreset finds a preset by name.
func FindPreset(name string) (Preset, bool) {
	all := Presets()
	i := slices.IndexFunc(all, func(p Preset) bool { return p.Name == name })
	if i < 0 {
		return Preset{}, false
	}
	return all[i], true
}

// NewestPreset is the newest preset that has the part, false when none has.
func NewestPreset(part string) (Preset, bool) {
	for _, p := range slices.Backward(Presets()) {
		if _, ok := p.Minimum[part]; ok {
			return p, true
		}
	}
	return Preset{}, false
}

// parts are the lines of processors whose patch levels count for themselves.
func parts() []string {
	return []string{"milan", "milan-x", "genoa", "genoa-x", "zen4c", "turin", "zen5c"}
}

// hasFMC is true for the parts whose patch levels begin with the FMC's.
func hasFMC(part string) bool { return part == "turin" || part == "zen5c" }
