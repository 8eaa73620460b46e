package appraise

import (
	"fmt"
	"slices"
	"strings"
)

// flag is one bit of a report that a policy can ask for by name.
type flag struct {
	name  string
	bit   uint
	clear bool // the bit has to be 0
}

func (f flag) in(v uint64) bool { return (v>>f.bit&1 == 1) != f.clear }

// platformFlags are PLATFORM_INFO (AMD publication 56860, table 24): what the host's firmware says
// of the machine.
func platformFlags() []flag {
	return []flag{
		{name: "smt_disabled", bit: 0, clear: true},
		{name: "tsme", bit: 1},
		{name: "ecc", bit: 2},
		{name: "rapl_disabled", bit: 3},
		{name: "ciphertext_hiding", bit: 4},
		{name: "tio", bit: 7},
	}
}

// Single bits of PLATFORM_INFO and of the guest policy (the same, table 9).
const (
	platformSMT   = 1 << 0
	platformAlias = 1 << 5
	guestCXL      = 1 << 21
)

// guestFlags are what a guest policy can demand of the machine: the firmware launches the guest
// nowhere else.
func guestFlags() []flag {
	return []flag{
		{name: "single_socket", bit: 20},
		{name: "aes_256_xts", bit: 22},
		{name: "rapl_disabled", bit: 23},
		{name: "ciphertext_hiding", bit: 24},
		{name: "page_swap_disabled", bit: 25},
	}
}

// chosen finds flags by name; each is named once.
func chosen(key string, known []flag, names []string) ([]flag, error) {
	var out []flag
	for _, n := range names {
		i := slices.IndexFunc(known, func(f flag) bool { return f.name == n })
		if i < 0 {
			return nil, fmt.Errorf("%s: %q: want some of %s", key, n, strings.Join(named(known), ", "))
		}
		if slices.Contains(out, known[i]) {
			return nil, fmt.Errorf("%s: %s is listed twice", key, n)
		}
		out = append(out, known[i])
	}
	return out, nil
}

func named(list []flag) []string {
	out := make([]string, 0, len(list))
	for _, f := range list {
		out = append(out, f.name)
	}
	return out
}

// missing names the flags that do not hold.
func missing(want []flag, v uint64) []string {
	var out []string
	for _, f := range want {
		if !f.in(v) {
			out = append(out, f.name)
		}
	}
	return out
}
