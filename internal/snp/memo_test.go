package snp_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

func TestMemoChangesNoVerdict(t *testing.T) {
	t.Parallel()
	set, roots := load(t)
	memo := snp.NewMemo(100)
	for range 2 {
		for _, v := range set.Vectors {
			report, certs := v.bytes(t)
			at := set.At
			if v.After != "" {
				d, err := time.ParseDuration(v.After)
				require.NoError(t, err)
				at = at.Add(d)
			}
			chain, err := snp.ParseCertificates(certs)
			require.NoError(t, err)
			opt := snp.Options{Roots: roots, At: at}
			bare := snp.Verify(report, chain, opt)
			opt.Memo = memo
			assert.Equal(t, bare, snp.Verify(report, chain, opt), v.Name)
		}
	}
}

func TestMemoKnowsGoodSignaturesOnlyAndForgetsSome(t *testing.T) {
	t.Parallel()
	h, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	forged, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	roots, err := snp.TestRoots(h.Roots())
	require.NoError(t, err)
	memo := snp.NewMemo(8)
	opt := snp.Options{Roots: roots, At: time.Now(), Memo: memo}
	ask := func(h *attesttest.Hierarchy, node string) bool {
		chip, err := h.NewChip(attesttest.ChipID(node), attesttest.CurrentTCB(), attesttest.Validity{})
		require.NoError(t, err)
		report, err := chip.Signed(chip.Report([64]byte{1}))
		require.NoError(t, err)
		chain, err := snp.ParseCertificates(chip.Certificate)
		require.NoError(t, err)
		return snp.Verify(report, chain, opt).Genuine
	}
	for range 20 {
		require.False(t, ask(forged, "n1"))
	}
	assert.Zero(t, memo.Len(), "a forger leaves nothing behind")
	for i := range 40 {
		require.True(t, ask(h, "n1"))
		assert.LessOrEqual(t, memo.Len(), 8, "after %d", i)
	}
	assert.GreaterOrEqual(t, memo.Len(), 4)
}

// TestVerifyIsSafeForManyGoroutines is for the race detector: other reports, lists and a memo that
// is too small, at once.
func TestVerifyIsSafeForManyGoroutines(t *testing.T) {
	t.Parallel()
	set, roots := load(t)
	h, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	list := lists{t, set.At}.of(h, -time.Hour, time.Hour, nil)
	opt := snp.Options{Roots: roots, At: set.At, Memo: snp.NewMemo(4)}
	opt.CRLs = append(opt.CRLs, list)
	amd, err := snp.AMDRoots()
	require.NoError(t, err)
	var wg sync.WaitGroup
	for _, v := range set.Vectors {
		report, certs := v.bytes(t)
		chain, err := snp.ParseCertificates(certs)
		require.NoError(t, err)
		want := snp.Verify(report, chain, opt)
		for range 3 {
			wg.Go(func() {
				assert.Equal(t, want, snp.Verify(report, chain, opt))
				other := opt
				other.Roots = snp.Join(amd, roots)
				assert.True(t, snp.Verify(report, chain, other).Simulated)
			})
		}
	}
	wg.Wait()
}
