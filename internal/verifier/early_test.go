package verifier_test

import (
	"crypto/hpke"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// TestTheKeyToldWithTheNonceBindsNobody: what counts is the key of the announcement.
func TestTheKeyToldWithTheNonceBindsNobody(t *testing.T) {
	t.Parallel()
	stranger, err := hpke.MLKEM768X25519().GenerateKey()
	require.NoError(t, err)
	const own, other, bad, none = "own", "another's", "bad", "none"
	for name, told := range map[string][]string{
		"the key that is announced then":          {own},
		"that key twice, as after a lost answer":  {own, own},
		"another key":                             {other},
		"another key, and then the announced one": {other, own},
		"no key of the kind":                      {bad},
		"none":                                    {none},
	} {
		bubble(t, name, func(t *testing.T, w *world) {
			k, n1 := w.register(job(7, "n1", "n2")), w.nodes["n1"]
			keys := map[string][]byte{own: n1.Keys.HPKE, other: stranger.PublicKey().Bytes(), bad: []byte("short")}
			var nonce api.NonceAnswer
			for _, which := range told {
				var err error
				nonce, err = w.v.Nonce(t.Context(), "n1", api.NonceRequest{Job: k, Node: "n1", Purpose: claim.PurposeJob, HPKE: keys[which]})
				require.NoError(t, err)
			}
			a, err := n1.Announce(k, claim.PurposeJob, nonce)
			require.NoError(t, err)
			assert.Equal(t, map[string]string{"n1 opens its seed": "go", "n2 is let into the roster": "go"}, together(map[string]func() error{
				"n1 opens its seed": func() error {
					answer, err := w.v.PostEvidence(t.Context(), "n1", a)
					if err == nil {
						_, _, err = answer.Accept(n1.Expect(k, nonce.Nonce))
					}
					return err
				},
				"n2 is let into the roster": func() error {
					_, err := w.v.PostEvidence(t.Context(), "n2", w.announce(k, "n2"))
					return err
				},
			}))
		})
	}
}
