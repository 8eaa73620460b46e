package verifier

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

func TestOnlyEvidenceThatIsStoredIsNamedInItsPlace(t *testing.T) {
	t.Parallel()
	post := &api.Announcement{Nonce: enclave.Nonce{7}, Keys: enclave.NodeKeys{HPKE: []byte{1}}}
	result := &enclave.AttestationResult{Status: enclave.StatusAffirming}
	refusal := enclave.Refuse("E223", enclave.FaultNode, "tunnel key is another node's")
	x := &seat{node: enclave.Node{Name: "n1"}, broken: refusal}
	assert.Equal(t, ledger.Member{Node: "n1", Refusal: refusal}, x.member(), "it sent none")
	x.post, x.appraised = post, appraised{result: result}
	assert.Equal(t, ledger.Member{Node: "n1", Keys: &post.Keys, Result: result, Refusal: refusal}, x.member(), "the ledger would not take it")
	x.stored = true
	assert.Equal(t, ledger.Member{Node: "n1", Keys: &post.Keys, Result: result, Nonce: &post.Nonce, Refusal: refusal}, x.member())
}
