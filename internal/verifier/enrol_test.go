package verifier_test

import (
	"crypto/ed25519"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// A node asks again and again, and the admin's yes may fall into any moment of an answer.
func TestANodeThatWaitsHearsOfTheYes(t *testing.T) {
	t.Parallel()
	bubble(t, "whenever it comes", func(t *testing.T, w *world) {
		for range 40 {
			_, key, err := ed25519.GenerateKey(nil)
			require.NoError(t, err)
			ticket, err := w.v.EnrolRequest(t.Context(), "", w.wish("n1", key))
			require.NoError(t, err)
			answers := make(chan error, 1)
			begun := make(chan struct{})
			go func() {
				close(begun)
				for {
					s, bad := w.v.EnrolStatus(t.Context(), api.EnrolStatusRequest{Node: "n1", Fingerprint: ticket.Fingerprint})
					if bad != nil || s.State == api.EnrolEnrolled {
						answers <- bad
						return
					}
				}
			}()
			<-begun
			_, err = w.v.EnrolApprove(t.Context(), 0, api.ApproveRequest{Node: "n1", Fingerprint: ticket.Fingerprint, ChipID: w.nodes["n1"].Chip})
			require.NoError(t, err)
			assert.NoError(t, <-answers)
		}
	})
}
