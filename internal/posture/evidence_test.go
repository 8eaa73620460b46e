package posture_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ladder"
	"github.com/slurm-enclave/slurm-enclave/internal/posture"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// site is a chip of a lab and the files of a machine beside it.
type site struct {
	chip *attesttest.Chip
	data [64]byte
	c    config.Controller
}

func newSite(t *testing.T) *site {
	t.Helper()
	h, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	chip, err := h.Chip("n1")
	require.NoError(t, err)
	s := &site{chip: chip, data: [64]byte{1, 2, 3}, c: config.Default().Controller}
	s.c.AllowSimulated, s.c.SimulatedRoots, s.c.Policies, s.c.Certificates = true, t.TempDir(), t.TempDir(), t.TempDir()
	put(t, filepath.Join(s.c.SimulatedRoots, "lab.pem"), h.Roots())
	s.policy(t, attesttest.CurrentTCB())
	return s
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, b, 0o644))
}

func (s *site) policy(t *testing.T, least enclave.TCB) {
	t.Helper()
	put(t, filepath.Join(s.c.Policies, "default.yaml"), fmt.Appendf(nil, `name: default
reference_values: [{name: lab, measurement: %s, covers: [firmware, kernel, rootfs]}]
minimum_tcb: {milan: {bl: %d, tee: %d, snp: %d, ucode: %d}}
allow_simulated: true
`, attesttest.LabMeasurement(), least.Bootloader, least.TEE, least.SNP, least.Microcode))
}

func (s *site) evidence(t *testing.T) enclave.Evidence {
	t.Helper()
	b, err := s.chip.Signed(s.chip.Report(s.data))
	require.NoError(t, err)
	return enclave.Evidence{Report: b, Certificates: s.chip.Table()}
}

func (s *site) judge(e enclave.Evidence) ladder.Attester {
	return posture.Judge(e, s.data, s.c, time.Now())
}

func TestJudge(t *testing.T) {
	t.Run("a lab's report is genuine, simulated and affirmed", func(t *testing.T) {
		s := newSite(t)
		got := s.judge(s.evidence(t))
		assert.True(t, got.Made)
		assert.True(t, got.Verdict.Genuine && got.Verdict.Simulated && got.Verdict.Bound, got.Verdict)
		assert.Equal(t, ladder.Appraisal{Policy: "default", Affirms: true}, got.Appraisal)
	})
	t.Run("a lab's roots are not believed unless allowed", func(t *testing.T) {
		s := newSite(t)
		s.c.AllowSimulated = false
		got := s.judge(s.evidence(t))
		assert.False(t, got.Verdict.Genuine)
		assert.NotEmpty(t, got.Verdict.Failed)
		assert.Equal(t, ladder.Invalid, ladder.Climb(ladder.Facts{Attester: got}).Outcome)
	})
	t.Run("a report over other bytes is not ours", func(t *testing.T) {
		s := newSite(t)
		e := s.evidence(t)
		s.data[63]++
		assert.False(t, s.judge(e).Verdict.Bound)
	})
	t.Run("a flipped byte is not genuine", func(t *testing.T) {
		s := newSite(t)
		e := s.evidence(t)
		e.Report[0x90] ^= 1
		assert.False(t, s.judge(e).Verdict.Genuine)
	})
	t.Run("no report at all is not genuine", func(t *testing.T) {
		v := newSite(t).judge(enclave.Evidence{}).Verdict
		assert.False(t, v.Genuine || v.Bound)
	})
	t.Run("without a certificate it stays open", func(t *testing.T) {
		s := newSite(t)
		e := s.evidence(t)
		e.Certificates = nil
		got := s.judge(e)
		assert.False(t, got.Verdict.Genuine)
		assert.True(t, got.Verdict.NoCertificate && got.Verdict.Bound)
		assert.Equal(t, ladder.Unknown, ladder.Climb(ladder.Facts{Attester: got}).Outcome)
	})
	t.Run("a stored certificate is found", func(t *testing.T) {
		s := newSite(t)
		e := s.evidence(t)
		table := e.Certificates
		e.Certificates = nil
		keys := certs.Candidates(snp.Verify(e.Report, snp.Chain{}, snp.Options{}).SNPReport)
		put(t, filepath.Join(s.c.Certificates, keys[0].Path()), table)
		assert.True(t, s.judge(e).Verdict.Genuine)
	})
	t.Run("no policy on this machine is no error", func(t *testing.T) {
		s := newSite(t)
		s.c.Policies = t.TempDir()
		assert.Equal(t, ladder.Appraisal{}, s.judge(s.evidence(t)).Appraisal)
	})
	t.Run("a policy that cannot be used affirms nothing", func(t *testing.T) {
		s := newSite(t)
		put(t, filepath.Join(s.c.Policies, "default.yaml"), []byte("name: default\n"))
		got := s.judge(s.evidence(t)).Appraisal
		assert.Contains(t, got.Error, "default.yaml")
		assert.False(t, got.Affirms)
	})
	t.Run("firmware below the minimum is named with its code", func(t *testing.T) {
		s := newSite(t)
		least := attesttest.CurrentTCB()
		least.SNP++
		s.policy(t, least)
		got := s.judge(s.evidence(t)).Appraisal
		assert.False(t, got.Affirms)
		require.NotEmpty(t, got.Failed)
		assert.Equal(t, enclave.Code("E235"), got.Failed[0].Code)
	})
	t.Run("a revocation list that cannot be read is said", func(t *testing.T) {
		s := newSite(t)
		put(t, filepath.Join(s.c.Certificates, "milan.crl"), []byte("no list"))
		assert.NotEmpty(t, s.judge(s.evidence(t)).Appraisal.Error)
	})
}
