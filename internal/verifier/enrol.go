package verifier

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// Strangers may ask to be enrolled; these bound what they can make the verifier keep.
const (
	maxPending     = 256
	maxPendingNode = 4
	keepPending    = time.Hour
)

type wish struct {
	api.PendingEnrol
	key   ed25519.PublicKey
	nonce enclave.Nonce // of its evidence
}

// pending are the wishes that no admin has answered. They live in memory only.
type pending struct {
	mu    sync.Mutex
	list  map[enclave.Digest]wish // by fingerprint of the node's key
	chips map[string]api.Chip     // by node of the inventory: whose certificate nobody has

	storing sync.Mutex      // held from add until the ledger has what the list says
	gone    []enclave.Nonce // of evidence whose wish has gone, and that is still in the ledger
}

func newPending() *pending {
	return &pending{list: map[enclave.Digest]wish{}, chips: map[string]api.Chip{}}
}

func (p *pending) add(w wish) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	same := 0
	for f, o := range p.list {
		if time.Since(o.At) > keepPending {
			p.leave(f)
			continue
		}
		if o.Node == w.Node && f != w.Fingerprint {
			same++
		}
	}
	if len(p.list) >= maxPending || same >= maxPendingNode {
		return enclave.Refuse("E137", enclave.FaultService, "too many enrolments are pending")
	}
	p.leave(w.Fingerprint)
	p.list[w.Fingerprint] = w
	return nil
}

// leave takes a wish off the list, whose evidence is to leave the ledger. The caller holds p.mu.
func (p *pending) leave(f enclave.Digest) {
	if w, ok := p.list[f]; ok {
		p.gone = append(p.gone, w.nonce)
		delete(p.list, f)
	}
}

// keepWish puts a wish before the admin, and its evidence into the ledger in the place of that of wishes
// that it replaces or that have expired: a chip that is genuine, somewhere, may ask as often as it likes.
func (v *Verifier) keepWish(ctx context.Context, w wish, e ledger.Evidence) error {
	p := v.pending
	p.storing.Lock()
	defer p.storing.Unlock()
	if err := p.add(w); err != nil {
		return err
	}
	p.mu.Lock()
	gone := p.gone
	p.mu.Unlock()
	if err := v.Ledger.AddUnbound(ctx, e, gone...); err != nil {
		p.drop(w.Fingerprint)
		return ledgerRefusal(err)
	}
	p.mu.Lock()
	p.gone = p.gone[len(gone):]
	p.mu.Unlock()
	return nil
}

func (p *pending) get(f enclave.Digest, node string) (wish, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.list[f]
	return w, ok && w.Node == node && time.Since(w.At) <= keepPending
}

func (p *pending) drop(f enclave.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.list, f)
}

// EnrolNonce gives the nonce for an enrolment's evidence. Anybody may ask.
func (v *Verifier) EnrolNonce(_ context.Context, r api.EnrolNonceRequest) (api.EnrolNonceAnswer, error) {
	if _, ok := v.Inventory.Find(r.Node); !ok {
		return api.EnrolNonceAnswer{}, enclave.Refuse("E136", enclave.FaultRequest, "the node is not in inventory.yaml")
	}
	policy, err := v.Appraiser.Policy("")
	if err != nil {
		return api.EnrolNonceAnswer{}, enclave.Refuse("E514", enclave.FaultService, "%v", err)
	}
	n, err := v.tickets.give(holder{node: r.Node, purpose: claim.PurposeEnrol}, v.Config.Limits.Nonce())
	if err != nil {
		return api.EnrolNonceAnswer{}, err
	}
	return api.EnrolNonceAnswer{Cluster: v.Config.Cluster, Nonce: n, Seconds: v.Config.Limits.NonceSeconds, Policy: policy}, nil
}

// EnrolRequest puts a node's wish before the admin, once its evidence proved to come from a chip
// and to name the node's key. from is the caller's address, for the admin to see.
func (v *Verifier) EnrolRequest(ctx context.Context, from string, r api.EnrolRequest) (api.EnrolTicket, error) {
	if _, ok := v.Inventory.Find(r.Node); !ok {
		return api.EnrolTicket{}, enclave.Refuse("E136", enclave.FaultRequest, "the node is not in inventory.yaml")
	}
	pub, err := pki.ParseRequest(r.Node, r.CSR)
	if err != nil {
		return api.EnrolTicket{}, enclave.Refuse("E136", enclave.FaultRequest, "%v", err)
	}
	if err = v.tickets.take(r.Nonce, holder{node: r.Node, purpose: claim.PurposeEnrol}, time.Now()); err != nil {
		return api.EnrolTicket{}, err
	}
	policy, err := v.Appraiser.Policy("")
	if err != nil {
		return api.EnrolTicket{}, enclave.Refuse("E514", enclave.FaultService, "%v", err)
	}
	keys := r.EnrolKeys(enclave.PublicKey(pub))
	result := v.Appraiser.Identify(r.Evidence, api.EnrolClaim(v.Config.Cluster, v.digest, policy, r.Node, r.Nonce, keys))
	result.Node = r.Node
	if failed := result.Failed(); failed != nil || result.Status != enclave.StatusAffirming || result.ChipID == "" {
		why := "nothing was affirmed"
		if failed != nil {
			why = failed.Name + ": " + failed.Reason
		}
		refusal := enclave.Refuse("E136", enclave.FaultRequest, "enrolment evidence: %s", why)
		if v.pending.want(r.Node, r.Evidence) {
			refusal.Fix = "on the controller: enclave certs sync --pending. Then ask again"
		}
		return api.EnrolTicket{}, refusal
	}
	w := wish{key: pub, nonce: r.Nonce, PendingEnrol: api.PendingEnrol{
		Node: r.Node, Fingerprint: sha256.Sum256(pub), ChipID: result.ChipID, Result: result, At: time.Now(), From: from,
	}}
	if masked(w.ChipID) {
		w.ReportID = result.ReportID
	}
	err = v.keepWish(ctx, w, ledger.Evidence{
		Key: enclave.JobKey{Cluster: v.Config.Cluster}, Node: r.Node, Purpose: uint8(claim.PurposeEnrol), Nonce: r.Nonce,
		Keys: keys, Evidence: r.Evidence, Result: result, At: w.At,
	})
	if err != nil {
		return api.EnrolTicket{}, err
	}
	return api.EnrolTicket{Fingerprint: w.Fingerprint}, nil
}

// EnrolStatus gives a node its certificate once the admin said yes. A certificate is no secret.
func (v *Verifier) EnrolStatus(ctx context.Context, r api.EnrolStatusRequest) (api.EnrolStatus, error) {
	// First, for the wish goes behind the enrolment: the other way round, a yes in between would be missed in both.
	_, waits := v.pending.get(r.Fingerprint, r.Node)
	if e, err := v.enrolled(ctx, r.Node); err == nil {
		cert, err := x509.ParseCertificate(e.Certificate)
		if err != nil {
			return api.EnrolStatus{}, ledgerRefusal(err)
		}
		if pub, ok := cert.PublicKey.(ed25519.PublicKey); ok && sha256.Sum256(pub) == r.Fingerprint {
			return api.EnrolStatus{State: api.EnrolEnrolled, Certificate: e.Certificate}, nil
		}
	}
	if waits {
		return api.EnrolStatus{State: api.EnrolPending}, nil
	}
	return api.EnrolStatus{}, enclave.Refuse("E138", enclave.FaultRequest, "no such enrolment is pending: it expired, or enclaved was restarted")
}

// PendingEnrols lists the wishes, for the admin.
func (v *Verifier) PendingEnrols(ctx context.Context) (api.PendingEnrols, error) {
	v.pending.mu.Lock()
	defer v.pending.mu.Unlock()
	out := api.PendingEnrols{Pending: []api.PendingEnrol{}}
	for _, w := range v.pending.list {
		if e, err := v.enrolled(ctx, w.Node); err == nil {
			w.Replaces = e.Chip
		}
		out.Pending = append(out.Pending, w.PendingEnrol)
	}
	slices.SortFunc(out.Pending, func(a, b api.PendingEnrol) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), a.At.Compare(b.At))
	})
	return out, nil
}

// masked is true for a CHIP_ID that names no chip.
func masked(chip string) bool { return strings.Trim(chip, "0") == "" }

// EnrolApprove is the admin's yes. It names the key and the chip that the admin saw: between
// looking and saying yes nothing else can slip in.
func (v *Verifier) EnrolApprove(ctx context.Context, admin uint32, r api.ApproveRequest) (api.EnrolStatus, error) {
	w, ok := v.pending.get(r.Fingerprint, r.Node)
	switch {
	case !ok:
		return api.EnrolStatus{}, enclave.Refuse("E138", enclave.FaultRequest, "no such enrolment of %s is pending", r.Node)
	case !strings.EqualFold(w.ChipID, r.ChipID):
		return api.EnrolStatus{}, enclave.Refuse("E139", enclave.FaultRequest, "the chip is %s, not %s", w.ChipID, printable(r.ChipID, 128))
	case masked(w.ChipID) && w.ReportID == "":
		return api.EnrolStatus{}, enclave.Refuse("E139", enclave.FaultRequest, "the chip id is masked: nothing ties the node to a machine")
	case !strings.EqualFold(w.ReportID, r.ReportID):
		return api.EnrolStatus{}, enclave.Refuse("E139", enclave.FaultRequest, "the report id is %q, not %q", w.ReportID, printable(r.ReportID, 64))
	}
	der, err := v.Authority.Node(w.Node, w.key)
	if err != nil {
		return api.EnrolStatus{}, err
	}
	err = v.enrol(ctx, ledger.Enrolment{
		Node: w.Node, Chip: w.ChipID, ReportID: w.ReportID, Fingerprint: sha256.Sum256(der), Certificate: der, By: admin, At: time.Now(),
	})
	if err != nil {
		return api.EnrolStatus{}, err
	}
	v.pending.drop(r.Fingerprint)
	v.tellFleet()
	return api.EnrolStatus{State: api.EnrolEnrolled, Certificate: der}, nil
}

// Authenticate finds the node behind a client certificate: signed by this verifier, and the very
// one that is enrolled for that name now.
func (v *Verifier) Authenticate(ctx context.Context, der []byte) (string, error) {
	node, fingerprint, err := v.Authority.Check(der)
	if err != nil {
		return "", enclave.Refuse("E130", enclave.FaultService, "%v", err)
	}
	e, err := v.enrolled(ctx, node)
	switch {
	case err != nil && !errors.Is(err, ledger.ErrNotFound):
		return "", ledgerRefusal(err)
	case err != nil || e.Fingerprint != fingerprint:
		return "", enclave.Refuse("E130", enclave.FaultService, "the certificate of %s is revoked or replaced", node)
	}
	return node, nil
}
