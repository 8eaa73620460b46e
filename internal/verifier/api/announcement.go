package api

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

const tagAnnouncement = "slurm-enclave/announcement/v1"

// Announcement is a node's evidence with what it wants to be on the roster. The report binds
// the keys; the Ed25519 signature binds the rest and proves that the node holds that key.
type Announcement struct {
	Job       enclave.JobKey   `json:"job"`
	Node      string           `json:"node"`
	Epoch     uint32           `json:"epoch"`
	Purpose   claim.Purpose    `json:"purpose"`
	Nonce     enclave.Nonce    `json:"nonce"`
	Keys      enclave.NodeKeys `json:"keys"`
	Addresses []netip.Addr     `json:"addresses"`
	Endpoint  netip.AddrPort   `json:"endpoint"`
	Evidence  enclave.Evidence `json:"evidence"`
	Signature []byte           `json:"signature"`
}

// Sign has the announcement signed with the node's Ed25519 key of this job; the key stays where it is.
func (a *Announcement) Sign(sign func(message []byte) ([]byte, error)) (err error) {
	if a.Signature, err = sign(a.signed()); err != nil {
		return fmt.Errorf("sign announcement: %w", err)
	}
	return nil
}

// CheckSignature proves possession of the announced Ed25519 key.
func (a *Announcement) CheckSignature() error {
	if !ed25519.Verify(a.Keys.Ed25519[:], a.signed(), a.Signature) {
		return errors.New("check announcement: not signed by the announced key")
	}
	return nil
}

// signed is every field, length-prefixed in order; evidence by its SHA-256.
func (a *Announcement) signed() []byte {
	b := []byte(tagAnnouncement)
	put := func(v []byte) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(v))) // bodies are bounded by MaxBody
		b = append(b, v...)
	}
	number := func(v uint32) { put(binary.BigEndian.AppendUint32(nil, v)) }
	put([]byte(a.Job.Cluster))
	number(a.Job.Job)
	number(a.Job.Restart)
	put([]byte(a.Node))
	number(a.Epoch)
	put([]byte{byte(a.Purpose)})
	put(a.Nonce[:])
	put(a.Keys.WireGuard[:])
	put(a.Keys.Ed25519[:])
	put(a.Keys.HPKE)
	number(uint32(len(a.Addresses))) // bodies are bounded by MaxBody
	for _, x := range a.Addresses {
		put([]byte(x.String()))
	}
	put([]byte(a.Endpoint.String()))
	report, certificates := sha256.Sum256(a.Evidence.Report), sha256.Sum256(a.Evidence.Certificates)
	put(report[:])
	put(certificates[:])
	put([]byte(a.Evidence.Provider))
	return b
}
