package verifier

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"sync"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// proofGood is how long a node's proof outside of a job is good for an admin to return the node.
const proofGood = 15 * time.Minute

// proofs are when nodes last proved themselves outside of a job. They live in memory only: after
// a restart a node is asked once more.
type proofs struct {
	mu   sync.Mutex
	last map[string]proof
}

type proof struct {
	at    time.Time
	nonce enclave.Nonce // of its evidence
}

// keepProof stores a proof in the place of the node's one before: it may make as many as it likes.
func (v *Verifier) keepProof(ctx context.Context, e ledger.Evidence) error {
	p := &v.proofs
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := v.Ledger.AddUnbound(ctx, e, p.last[e.Node].nonce); err != nil {
		return err
	}
	p.last[e.Node] = proof{at: time.Now(), nonce: e.Nonce}
	return nil
}

// since is true for a proof that is not older than t, and young enough.
func (p *proofs) since(node string, t time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, ok := p.last[node]
	return ok && !last.at.Before(t) && time.Since(last.at) <= proofGood
}

// Prove judges an enrolled node's evidence as for a job, under the site's default policy. A node
// that fails is told why; nothing happens to it, and nothing of it is kept.
func (v *Verifier) Prove(ctx context.Context, node string, r api.ProveRequest) (api.ProveAnswer, error) {
	enrolled, err := v.enrolled(ctx, node)
	if err != nil {
		return api.ProveAnswer{}, enclave.Refuse("E130", enclave.FaultService, "node %s is not enrolled", node)
	}
	key, err := enrolledKey(enrolled)
	if err != nil {
		return api.ProveAnswer{}, err
	}
	if err = v.tickets.take(r.Nonce, holder{node: node, purpose: claim.PurposeEnrol}, time.Now()); err != nil {
		return api.ProveAnswer{}, err
	}
	policy, err := v.Appraiser.Policy("")
	if err != nil {
		return api.ProveAnswer{}, enclave.Refuse("E514", enclave.FaultService, "%v", err)
	}
	keys := enclave.NodeKeys{Ed25519: key, HPKE: r.HPKE}
	c := api.EnrolClaim(v.Config.Cluster, v.digest, policy, node, r.Nonce, keys)
	var result enclave.AttestationResult
	v.inTurn(func() {
		result = v.Appraiser.Appraise(Rules{}, r.Evidence, c, Machine{Chip: enrolled.Chip, ReportID: enrolled.ReportID})
	})
	result.Node = node
	if failed := result.Failed(); failed != nil {
		refusal := enclave.Refuse(codeOf(failed.Name), enclave.FaultNode, "check %s: %s", failed.Name, failed.Reason)
		refusal.Node, refusal.Check = node, failed.Name
		return api.ProveAnswer{}, refusal
	}
	if result.Status != enclave.StatusAffirming {
		return api.ProveAnswer{}, enclave.Refuse(codeOf("appraisal"), enclave.FaultNode, "nothing was affirmed")
	}
	err = v.keepProof(ctx, ledger.Evidence{
		Key: enclave.JobKey{Cluster: v.Config.Cluster}, Node: node, Purpose: uint8(claim.PurposeEnrol), Nonce: r.Nonce,
		Keys: keys, Evidence: r.Evidence, Result: result, At: time.Now(),
	})
	if err != nil {
		return api.ProveAnswer{}, ledgerRefusal(err)
	}
	return api.ProveAnswer{Result: result}, nil
}

// enrolledKey is the key in the node's certificate.
func enrolledKey(e ledger.Enrolment) (enclave.PublicKey, error) {
	cert, err := x509.ParseCertificate(e.Certificate)
	if err != nil {
		return enclave.PublicKey{}, ledgerRefusal(err)
	}
	pub, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return enclave.PublicKey{}, enclave.Refuse("E130", enclave.FaultService, "the certificate of %s holds no Ed25519 key", e.Node)
	}
	return enclave.PublicKey(pub), nil
}
