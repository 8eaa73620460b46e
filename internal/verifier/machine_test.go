package verifier_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// fleet is the appraiser of production with a lab's chips.
type fleet struct {
	t         *testing.T
	chips     *attesttest.Hierarchy
	appraisal *verifier.Appraisal
}

func policyText(more string) string {
	tcb := attesttest.CurrentTCB()
	return fmt.Sprintf("name: default\nreference_values: [{name: lab, measurement: %s, covers: [rootfs]}]\n"+
		"minimum_tcb: {milan: {bl: %d, tee: %d, snp: %d, ucode: %d}}\nallow_simulated: true\n%s",
		attesttest.LabMeasurement(), tcb.Bootloader, tcb.TEE, tcb.SNP, tcb.Microcode, more)
}

func newFleet(t *testing.T, more string) *fleet {
	t.Helper()
	dir := t.TempDir()
	chips, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	for _, d := range []string{"roots", "policy.d", "certs"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "roots/lab.pem"), chips.Roots(), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "policy.d/default.yaml"), []byte(policyText(more)), 0o644))
	a, err := verifier.LoadAppraisal(config.Controller{
		AllowSimulated: true, SimulatedRoots: filepath.Join(dir, "roots"), Policies: filepath.Join(dir, "policy.d"), Policy: "default",
		Certificates: filepath.Join(dir, "certs"),
	})
	require.NoError(t, err)
	return &fleet{t: t, chips: chips, appraisal: a}
}

// evidence is genuine: chip signs a report for the claim, as change leaves it.
func (f *fleet) evidence(chip string, c claim.Claim, change func(*attesttest.Report)) enclave.Evidence {
	f.t.Helper()
	k, err := f.chips.Chip(chip)
	require.NoError(f.t, err)
	data, err := c.ReportData()
	require.NoError(f.t, err)
	r := k.Report(data)
	if change != nil {
		change(&r)
	}
	b, err := k.Signed(r)
	require.NoError(f.t, err)
	return enclave.Evidence{Report: b, Certificates: k.Table(), Provider: "sev_guest"}
}

func (f *fleet) claim(purpose claim.Purpose) claim.Claim {
	f.t.Helper()
	digest, err := f.appraisal.Policy("")
	require.NoError(f.t, err)
	c := claim.Claim{
		Cluster: "c1", Node: "n1", Nonce: enclave.Nonce{1}, VerifierKey: enclave.Digest{2}, Policy: digest, Purpose: purpose,
		WireGuard: enclave.PublicKey{3}, Ed25519: enclave.PublicKey{4}, HPKE: make([]byte, 1216),
	}
	if purpose != claim.PurposeEnrol {
		c.Job, c.Epoch = 7, 1
	}
	return c
}

func mask(r *attesttest.Report) { r.ChipID = enclave.ChipID{} }

func TestAGenuineReportOfAnotherMachineIsRefused(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "")
	c := f.claim(claim.PurposeJob)
	n1 := verifier.Machine{Chip: attesttest.ChipID("n1").String()}
	own := f.appraisal.Appraise(verifier.Rules{}, f.evidence("n1", c, nil), c, n1)
	require.Nil(t, own.Failed())
	assert.Equal(t, enclave.StatusAffirming, own.Status)
	// The same image on another machine of the site signs for n1's name, keys and nonce.
	other := f.appraisal.Appraise(verifier.Rules{}, f.evidence("n2", c, nil), c, n1)
	require.NotNil(t, other.Failed())
	assert.Equal(t, "chip", other.Failed().Name)
	assert.Contains(t, other.Failed().Reason, "the report is of chip")
	assert.NotEqual(t, enclave.StatusAffirming, other.Status)
	// n2's report with n1's chip id written into it is no report at all.
	forged := f.evidence("n2", c, nil)
	id := attesttest.ChipID("n1")
	copy(forged.Report[0x1a0:], id[:])
	assert.NotNil(t, f.appraisal.Appraise(verifier.Rules{}, forged, c, n1).Failed())
}

func TestAMaskedMachineIsKnownByItsReportID(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "masked_chips: accept\n")
	c := f.claim(claim.PurposeEnrol)
	wish := f.appraisal.Identify(f.evidence("n1", c, mask), c)
	require.Nil(t, wish.Failed())
	m := verifier.Machine{Chip: wish.ChipID, ReportID: wish.ReportID}
	require.Equal(t, enclave.ChipID{}.String(), m.Chip)

	c = f.claim(claim.PurposeJob)
	same := f.appraisal.Appraise(verifier.Rules{}, f.evidence("n1", c, mask), c, m)
	require.Nil(t, same.Failed())
	for name, e := range map[string]enclave.Evidence{
		"another machine, masked, too": f.evidence("n2", c, mask),
		"another machine, by its name": f.evidence("n2", c, nil),
		"the guest started anew":       f.evidence("n1", c, func(r *attesttest.Report) { mask(r); r.ReportID[0]++ }),
	} {
		res := f.appraisal.Appraise(verifier.Rules{}, e, c, m)
		require.NotNil(t, res.Failed(), name)
		assert.Equal(t, "chip", res.Failed().Name, name)
	}
	refuses := newFleet(t, "")
	c = refuses.claim(claim.PurposeEnrol)
	wish = refuses.appraisal.Identify(refuses.evidence("n1", c, mask), c)
	require.NotNil(t, wish.Failed())
	assert.Contains(t, wish.Failed().Reason, "masked")
}

func TestAJobIsJudgedByTheTextOfItsStart(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "")
	c := f.claim(claim.PurposeRenew)
	m := verifier.Machine{Chip: attesttest.ChipID("n1").String()}
	e := f.evidence("n1", c, nil)
	assert.Nil(t, f.appraisal.Appraise(verifier.Rules{Text: policyText("")}, e, c, m).Failed())
	stricter := f.appraisal.Appraise(verifier.Rules{Text: policyText("smt: deny\n")}, e, c, m)
	require.NotNil(t, stricter.Failed())
	assert.Equal(t, "smt", stricter.Failed().Name)
	broken := f.appraisal.Appraise(verifier.Rules{Text: "name: x\n"}, e, c, m)
	require.NotNil(t, broken.Failed())
	assert.Equal(t, enclave.StatusNone, broken.Status)
	assert.Equal(t, "policy", broken.Failed().Name)
	assert.NotEmpty(t, broken.Unjudged, "no node is to blame")
	assert.NotEmpty(t, f.appraisal.Appraise(verifier.Rules{Name: "gone"}, e, c, m).Unjudged)
	digest, err := f.appraisal.Policy("default")
	require.NoError(t, err)
	text, err := f.appraisal.Text(digest)
	require.NoError(t, err)
	assert.Equal(t, policyText(""), text)
	_, err = f.appraisal.Text(enclave.Digest{1})
	assert.Error(t, err)
}

func TestRunningJobsKeepTheirPolicy(t *testing.T) {
	t.Parallel()
	bubble(t, "renewed under the text of the start, over a change and a restart", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		w.appraiser.Version = 5
		w.restart()
		n, err := w.v.Nonce(t.Context(), "n1", api.NonceRequest{Job: k, Node: "n1", Purpose: claim.PurposeRenew})
		require.NoError(t, err)
		a, err := w.nodes["n1"].Announce(k, claim.PurposeRenew, n)
		require.NoError(t, err)
		_, err = w.v.Renew(t.Context(), "n1", a)
		require.NoError(t, err)
		assert.Equal(t, []string{"version: 0"}, w.appraiser.Judged())
		w.all(w.register(job(8, "n1")), "n1")
		assert.Len(t, w.appraiser.Judged(), 1, "new jobs have the new one")
	})
}

func TestAPolicyThatNoLongerLoads(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ spoil, mend func(*world) }{
		"because this release is stricter": {
			func(w *world) { w.appraiser.Strict = true }, func(w *world) { w.appraiser.Strict = false },
		},
		"because the ledger can't be read": {
			func(w *world) { w.tell("ALTER TABLE policies RENAME TO unread") }, func(w *world) { w.tell("ALTER TABLE unread RENAME TO policies") },
		},
	} {
		bubble(t, "drains no node and ends no job: "+name, func(t *testing.T, w *world) {
			k := w.register(job(7, "n1"))
			w.all(k, "n1")
			w.appraiser.Version = 5
			c.spoil(w)
			for range 3 {
				assert.Equal(t, "E546 policy", told(w.renew(k, "n1")))
			}
			assert.Empty(t, w.site.Drained())
			assert.NotContains(t, w.site.Calls(), "end 7.0")
			c.mend(w)
			require.NoError(t, w.renew(k, "n1"))
		})
	}
}

func TestLatestEvidenceIsForOperators(t *testing.T) {
	t.Parallel()
	bubble(t, "as the node sent it", func(t *testing.T, w *world) {
		operator := verifier.Viewer{UID: 7, Operator: true}
		_, err := w.v.LatestEvidence(t.Context(), operator, "n1")
		assert.Equal(t, "E135 request", told(err), "there is none")
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		_, err = w.v.LatestEvidence(t.Context(), verifier.Viewer{UID: 2001}, "n1")
		assert.Equal(t, "E132 request", told(err), "not even to the job's user")
		e, err := w.v.LatestEvidence(t.Context(), operator, "n1")
		require.NoError(t, err)
		assert.Equal(t, "7.0", e.Job)
		assert.Equal(t, enclave.StatusAffirming, e.Result.Status)
		assert.Contains(t, string(e.Evidence.Report), w.nodes["n1"].Chip)
	})
}
