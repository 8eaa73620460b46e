package snp

import (
	"errors"
	"fmt"
)

// SiteRoots are what somebody else than this program says AMD's keys are: bundles as TestRoots
// takes them. Nothing marks what they vouch for, so only a person's own word may name them, never
// evidence or a receipt.
func SiteRoots(bundles ...[]byte) (Roots, error) {
	r := Roots{pinned: map[issuer][]pin{}}
	for _, b := range bundles {
		i, p, err := parsePin(b)
		if err != nil {
			return Roots{}, fmt.Errorf("read roots: %w", err)
		}
		r.pinned[i] = append(r.pinned[i], p)
	}
	if len(r.pinned) == 0 {
		return Roots{}, errors.New("read roots: no certificate")
	}
	return r, nil
}
