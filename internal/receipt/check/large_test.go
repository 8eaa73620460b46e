package check_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/receipt/check"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt/receipttest"
)

// many are the names of a job's nodes.
func many(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("n%05d", i+1)
	}
	return out
}

// processor is what this process has used.
func processor(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	require.NoError(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReceipt seals the receipt of a large job and judges it again. The times are on the wall and,
// with _cpu, on all processors together.
func BenchmarkReceipt(b *testing.B) {
	for _, nodes := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			s, err := receipttest.New(b.TempDir(), true, many(nodes)...)
			require.NoError(b, err)
			var sealing, checking, sealingCPU, checkingCPU time.Duration
			size := 0
			for b.Loop() {
				began, used := time.Now(), processor(b)
				file, err := s.Seal()
				require.NoError(b, err)
				sealing, sealingCPU = sealing+time.Since(began), sealingCPU+processor(b)-used
				size = len(file)
				began, used = time.Now(), processor(b)
				r := check.Check(file, check.Options{})
				checking, checkingCPU = checking+time.Since(began), checkingCPU+processor(b)-used
				require.True(b, r.Opened)
				assert.Zero(b, r.Faults())
			}
			b.ReportMetric(float64(size)/(1<<20), "MiB")
			for unit, took := range map[string]time.Duration{"seal_s": sealing, "seal_cpu_s": sealingCPU, "check_s": checking, "check_cpu_s": checkingCPU} {
				b.ReportMetric(took.Seconds()/float64(b.N), unit)
			}
		})
	}
}
