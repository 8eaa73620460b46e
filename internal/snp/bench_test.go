package snp_test

import (
	"crypto/ecdsa"
	"crypto/sha512"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// cpu is the processor time of the whole process: wall time would count other people's work.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// bare is the ECDSA P-384 verification that a report's verification contains, and nothing else.
type bare struct {
	key    *ecdsa.PublicKey
	digest [sha512.Size384]byte
	der    []byte
}

func bareOf(b testing.TB, report []byte, certs snp.Chain) bare {
	b.Helper()
	key, ok := certs.Endorsement("VCEK").PublicKey.(*ecdsa.PublicKey)
	require.True(b, ok)
	der, err := abi.ReportToSignatureDER(report)
	require.NoError(b, err)
	return bare{key, sha512.Sum384(abi.SignedComponent(report)), der}
}

func (v bare) run(b testing.TB) {
	if !ecdsa.VerifyASN1(v.key, v.digest[:], v.der) {
		b.Fatal("the bare verification fails")
	}
}

// ratio runs both in turns of the same length, so that what else the machine does hits both alike,
// and reports what one costs in units of the other, by processor time.
func ratio(b *testing.B, unit string, ours, theirs func()) {
	b.Helper()
	const turn = 8
	var a, c time.Duration
	ours()
	theirs()
	runtime.GC()
	for b.Loop() {
		t0 := cpu()
		for range turn {
			ours()
		}
		t1 := cpu()
		for range turn {
			theirs()
		}
		a, c = a+t1-t0, c+cpu()-t1
	}
	b.ReportMetric(float64(a)/float64(c), unit)
	b.ReportMetric(float64(c.Microseconds())/float64(b.N*turn), "bare-cpu-us")
}

// BenchmarkVerify is one real report with AMD's keys. cached: the certificate came before.
// cold: nothing was there, not even the roots.
func BenchmarkVerify(b *testing.B) {
	report, now := testdata.AttestationBytes[:snp.ReportSize], time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	chain, err := snp.ParseCertificates(testdata.VcekBytes)
	require.NoError(b, err)
	v := bareOf(b, report, chain)
	once := func(opt snp.Options) {
		chain, err := snp.ParseCertificates(testdata.VcekBytes)
		if err != nil || !snp.Verify(report, chain, opt).Genuine {
			b.Fatal("the report is genuine")
		}
	}
	b.Run("cached", func(b *testing.B) {
		roots, err := snp.AMDRoots()
		require.NoError(b, err)
		opt := snp.Options{Roots: roots, At: now, Memo: snp.NewMemo(1000)}
		ratio(b, "x-bare", func() { once(opt) }, func() { v.run(b) })
	})
	b.Run("cold", func(b *testing.B) {
		ratio(b, "x-bare", func() {
			roots, err := snp.AMDRoots()
			if err != nil {
				b.Fatal(err)
			}
			once(snp.Options{Roots: roots, At: now})
		}, func() { v.run(b) })
	})
}

type evidence struct {
	report, certs []byte
	bare          bare
}

// thousand are as many chips, each with its own key and report.
func thousand(b *testing.B) ([]evidence, snp.Roots) {
	b.Helper()
	h, err := attesttest.NewHierarchy(b.TempDir()) // of AMD's key sizes
	require.NoError(b, err)
	roots, err := snp.TestRoots(h.Roots())
	require.NoError(b, err)
	list := make([]evidence, 1000)
	var wg sync.WaitGroup
	for w := range runtime.NumCPU() {
		wg.Go(func() {
			for i := w; i < len(list); i += runtime.NumCPU() {
				chip, err := h.NewChip(attesttest.ChipID(string(rune(i))), attesttest.CurrentTCB(), attesttest.Validity{})
				if err != nil {
					panic(err)
				}
				report, err := chip.Signed(chip.Report([64]byte{byte(i), byte(i >> 8)}))
				if err != nil {
					panic(err)
				}
				list[i] = evidence{report: report, certs: chip.Table()}
			}
		})
	}
	wg.Wait()
	for i := range list {
		chain, err := snp.ParseCertificates(list[i].certs)
		require.NoError(b, err)
		list[i].bare = bareOf(b, list[i].report, chain)
	}
	return list, roots
}

// everybody does f for all, on all cores.
func everybody(list []evidence, f func(evidence)) {
	var wg sync.WaitGroup
	for w := range runtime.NumCPU() {
		wg.Go(func() {
			for i := w; i < len(list); i += runtime.NumCPU() {
				f(list[i])
			}
		})
	}
	wg.Wait()
}

// BenchmarkThousandNodes is a job of 1,000 nodes. known: their certificates were verified before,
// at enrolment or at start from the store; first: never seen.
func BenchmarkThousandNodes(b *testing.B) {
	list, roots := thousand(b)
	job := func(memo *snp.Memo) {
		everybody(list, func(e evidence) {
			chain, err := snp.ParseCertificates(e.certs)
			if err != nil || !snp.Verify(e.report, chain, snp.Options{Roots: roots, At: time.Now(), Memo: memo}).Genuine {
				panic("the report is genuine")
			}
		})
	}
	for name, memo := range map[string]func() *snp.Memo{
		"known": func() func() *snp.Memo { m := snp.NewMemo(2 * len(list)); job(m); return func() *snp.Memo { return m } }(),
		"first": func() *snp.Memo { return snp.NewMemo(2 * len(list)) },
	} {
		b.Run(name, func(b *testing.B) {
			var ours, bare, wall time.Duration
			var before, after runtime.MemStats
			var bytes uint64
			for b.Loop() {
				m := memo()
				runtime.GC()
				runtime.ReadMemStats(&before)
				t0, w0 := cpu(), time.Now()
				job(m)
				t1 := cpu()
				wall += time.Since(w0)
				runtime.ReadMemStats(&after)
				bytes = max(bytes, after.HeapInuse-min(after.HeapInuse, before.HeapInuse))
				everybody(list, func(e evidence) { e.bare.run(b) })
				ours, bare = ours+t1-t0, bare+cpu()-t1
			}
			b.ReportMetric(float64(ours)/float64(bare), "x-1000-bare")
			b.ReportMetric(float64(wall.Milliseconds())/float64(b.N), "job-ms")
			b.ReportMetric(float64(bytes)/(1<<20), "heap-growth-MiB")
		})
	}
}
