// Package snp says whether an SEV-SNP attestation report is genuine: whether the processor that
// it names signed it, and whether AMD says so of that processor's key.
//
// It checks form, chain, certificate and signature, each under its own name. It does not judge
// what the report says: reference values, minimum patch levels and the debug bit are appraise's.
// It fetches nothing, trusts no root that comes with the evidence, and keeps no state, so any
// number of goroutines may use one Roots.
//
// It stands on go-sev-guest's parsers and signature check but not on its one-call verify, which
// accepts reports with bytes at the end, refuses Turin, Siena and Bergamo, and writes into the
// options it is given.
package snp
