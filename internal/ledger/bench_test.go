package ledger_test

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
)

func processor(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	require.NoError(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func drawn(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// BenchmarkEvidence stores the evidence of a job of 1,000 nodes, whose chips were never seen before, 512
// at a time. cpu_us is the processor's time for each, on all of its cores together.
func BenchmarkEvidence(b *testing.B) {
	l, err := ledger.Open(b.Context(), filepath.Join(b.TempDir(), "ledger.db"))
	require.NoError(b, err)
	defer func() { _ = l.Close() }()
	const nodes = 1000
	checks := make([]enclave.Check, 24)
	for i := range checks {
		checks[i] = enclave.Check{Name: fmt.Sprint("check", i), Result: enclave.CheckPass, Reason: "as the policy wants it, and a few words more"}
	}
	shared := [][]byte{drawn(1600), drawn(1600)}
	key := drawn(1216)
	number := uint64(0)
	var used time.Duration
	for b.Loop() {
		list := make([]ledger.Evidence, nodes)
		for i := range list {
			number++
			e := evidenceNumber(i)
			binary.BigEndian.PutUint64(e.Nonce[:], number)
			vcek := drawn(1300)
			e.Keys.HPKE = key
			e.Evidence = enclave.Evidence{Report: drawn(1184), Certificates: append(append(append([]byte{}, vcek...), shared[0]...), shared[1]...), Provider: "sev_guest"}
			e.Result = enclave.AttestationResult{Node: e.Node, Checks: checks, Endorsements: enclave.Endorsements{Certificates: append([][]byte{vcek}, shared...), Authorities: shared}}
			list[i] = e
		}
		began := processor(b)
		turns := make(chan struct{}, 512)
		var all sync.WaitGroup
		for _, e := range list {
			turns <- struct{}{}
			all.Go(func() {
				defer func() { <-turns }()
				require.NoError(b, l.AddEvidence(b.Context(), e))
			})
		}
		all.Wait()
		used += processor(b) - began
	}
	b.ReportMetric(float64(used.Microseconds())/float64(b.N)/nodes, "cpu_us")
}
