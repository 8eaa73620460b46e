// Package claim writes and reads the transcript that REPORT_DATA commits to.
//
// One report binds one node's new keys to one job, one nonce and one verifier: REPORT_DATA is
// the SHA-512 of the transcript. The node computes it before it asks for a report, the verifier
// computes it from its own copy of every field. The package is pure; it decides nothing about
// what the fields mean.
package claim

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// Purpose says what a report was asked for. The zero value is no purpose.
type Purpose uint8

// The three purposes. Evidence of one never serves another.
const (
	PurposeJob   Purpose = 1 // a job starts
	PurposeRenew Purpose = 2 // a job runs on
	PurposeEnrol Purpose = 3 // an admin takes the node in; there is no job
)

// HPKESize is the length of an MLKEM768X25519 public key.
const HPKESize = 1216

// maxName bounds a name, so that a transcript from outside cannot be made of one.
const maxName = 1024

// Claim is everything that a report vouches for.
type Claim struct {
	Cluster     string         // ClusterName as slurm.conf spells it
	VerifierKey enclave.Digest // SHA-256 of the verifier's raw Ed25519 key
	Nonce       enclave.Nonce  // the verifier's, used once
	Job         uint64
	HetOffset   uint32
	Restart     uint32
	Node        string // NodeName as slurm.conf spells it
	WireGuard   enclave.PublicKey
	Ed25519     enclave.PublicKey
	HPKE        []byte         // HPKESize bytes, MLKEM768X25519
	Intent      enclave.Digest // zero in version 1
	Policy      enclave.Digest // digest of the appraisal policy
	Purpose     Purpose
	Epoch       uint32
}

// Validate refuses a claim that has no transcript.
func (c Claim) Validate() error {
	if err := checkName("cluster", c.Cluster); err != nil {
		return err
	}
	if err := checkName("node", c.Node); err != nil {
		return err
	}
	if len(c.HPKE) != HPKESize {
		return fmt.Errorf("check claim: HPKE key has %d bytes, want %d", len(c.HPKE), HPKESize)
	}
	if c.Nonce == (enclave.Nonce{}) {
		return errors.New("check claim: nonce is zero")
	}
	switch c.Purpose {
	case PurposeJob, PurposeRenew:
		return nil
	case PurposeEnrol:
		if c.Job != 0 || c.HetOffset != 0 || c.Restart != 0 || c.Epoch != 0 {
			return errors.New("check claim: an enrolment names a job")
		}
		return nil
	default:
		return fmt.Errorf("check claim: unknown purpose %d", c.Purpose)
	}
}

func checkName(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("check claim: %s name is empty", what)
	case len(s) > maxName:
		return fmt.Errorf("check claim: %s name has %d bytes, at most %d", what, len(s), maxName)
	case !utf8.ValidString(s):
		return fmt.Errorf("check claim: %s name is not UTF-8", what)
	}
	return nil
}

// ReportData is the SHA-512 of the transcript: the 64 bytes of REPORT_DATA.
func (c Claim) ReportData() ([64]byte, error) {
	t, err := c.Transcript()
	if err != nil {
		return [64]byte{}, err
	}
	return sha512.Sum512(t), nil
}
