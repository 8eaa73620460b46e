package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// request makes a new key, has the chip vouch for it, and waits until the admin said yes. Only
// then is anything stored: a node that is enrolled already stays so if the wish comes to nothing.
func (m Machine) request(ctx context.Context, config, node string, out io.Writer) error {
	if node == "" {
		var err error
		if node, err = m.Name(config); err != nil {
			return &ExitError{ExitUnknown, fmt.Errorf("find this node's name: %w; --node NAME says it", err)}
		}
	}
	e, verifier, err := m.Enroller(config)
	if err != nil {
		return &ExitError{ExitUnknown, err}
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	wish, err := m.wish(ctx, e, verifier, node, pub, key)
	if err != nil {
		return err
	}
	ticket, err := e.EnrolRequest(ctx, wish)
	if err != nil {
		return asked(err)
	}
	err = printText(out, fmt.Sprintf("NODE  %s\nKEY   %s\n%swaiting for the admin: enclave node enrol %s\n", printable(node), ticket.Fingerprint, machineLine(wish.Evidence.Report), printable(node)))
	if err != nil {
		return err
	}
	der, err := await(ctx, e, api.EnrolStatusRequest{Node: node, Fingerprint: ticket.Fingerprint})
	if err != nil {
		return err
	}
	if err := m.Store(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}); err != nil {
		return fmt.Errorf("store certificate: %w", err)
	}
	return printText(out, "enrolled\n")
}

// machineLine is what the admin compares: the chip, or what stands for it where the host masks it.
func machineLine(report []byte) string {
	r := snp.Verify(report, snp.Chain{}, snp.Options{}) // for its fields: it trusts nobody
	switch {
	case r.Version == 0:
		return ""
	case r.ChipID == enclave.ChipID{}:
		return fmt.Sprintf("ID    %s (report id: the host masks the chip)\n", enclave.Digest(r.ReportID))
	}
	return fmt.Sprintf("CHIP  %s\n", r.ChipID)
}

// wish makes key, request and report. The sealing key is thrown away: the claim has no empty
// field, and an enrolment has nothing to be sealed.
func (m Machine) wish(ctx context.Context, e Enroller, verifier enclave.Digest, node string, pub ed25519.PublicKey, key ed25519.PrivateKey) (api.EnrolRequest, error) {
	var none api.EnrolRequest
	sealing, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return none, fmt.Errorf("make key: %w", err)
	}
	csr, err := pki.Request(node, key)
	if err != nil {
		return none, fmt.Errorf("make certificate request: %w", err)
	}
	nonce, err := e.EnrolNonce(ctx, node)
	if err != nil {
		return none, asked(err)
	}
	r := api.EnrolRequest{Node: node, Nonce: nonce.Nonce, HPKE: sealing.PublicKey().Bytes(), CSR: csr}
	data, err := api.EnrolClaim(nonce.Cluster, verifier, nonce.Policy, node, nonce.Nonce, r.EnrolKeys(enclave.PublicKey(pub))).ReportData()
	if err != nil {
		return none, err
	}
	if r.Evidence, err = m.Attest(ctx, data); err != nil {
		return none, fmt.Errorf("get report: %w", err)
	}
	return r, nil
}

// await polls until the admin said yes.
func await(ctx context.Context, e Enroller, r api.EnrolStatusRequest) ([]byte, error) {
	t := time.NewTicker(pollEnrolment)
	defer t.Stop()
	for {
		s, err := e.EnrolStatus(ctx, r)
		switch {
		case err != nil:
			return nil, asked(err)
		case s.State == api.EnrolEnrolled:
			return s.Certificate, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-t.C:
		}
	}
}
