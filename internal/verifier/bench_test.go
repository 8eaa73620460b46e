package verifier_test

import (
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
)

// member is one node of a large job, with its own chip, keys, nonce and report.
type member struct {
	claim    claim.Claim
	chip     string
	evidence enclave.Evidence

	key    *ecdsa.PublicKey // of its VCEK, with what it signed: the work that can't be spared
	digest [sha512.Size384]byte
	der    []byte
}

func (k *court) member(i int) member {
	node := fmt.Sprintf("n%d", i)
	chip, err := k.lab.NewChip(attesttest.ChipID(node), attesttest.CurrentTCB(), attesttest.Validity{})
	require.NoError(k.t, err)
	m := member{chip: chip.ID.String()}
	m.claim = claim.Claim{
		Cluster: "c1", Node: node, HPKE: make([]byte, claim.HPKESize), Purpose: claim.PurposeJob, Job: 7, Epoch: 1,
		Nonce: enclave.Nonce{byte(i), byte(i >> 8), 1},
	}
	data, err := m.claim.ReportData()
	require.NoError(k.t, err)
	report, err := chip.Signed(chip.Report(data))
	require.NoError(k.t, err)
	m.evidence = enclave.Evidence{Report: report, Certificates: chip.Table()}
	cert, err := x509.ParseCertificate(chip.Certificate)
	require.NoError(k.t, err)
	var ok bool
	m.key, ok = cert.PublicKey.(*ecdsa.PublicKey)
	require.True(k.t, ok)
	m.digest = sha512.Sum384(abi.SignedComponent(report))
	m.der, err = abi.ReportToSignatureDER(report)
	require.NoError(k.t, err)
	return m
}

// onAllCores does f for every number below n.
func onAllCores(n int, f func(i int)) {
	var wg sync.WaitGroup
	for w := range runtime.NumCPU() {
		wg.Go(func() {
			for i := w; i < n; i += runtime.NumCPU() {
				f(i)
			}
		})
	}
	wg.Wait()
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAppraiseThousandNodes is all that enclaved does with the evidence of a job of 1,000
// nodes that it knows: claim, chain, revocation, signature, policy; by processor time, in units of
// 1,000 bare ECDSA P-384 verifications, made in turns.
func BenchmarkAppraiseThousandNodes(b *testing.B) {
	k := newCourt(b)
	k.put("milan-vcek.crl", k.crl(-time.Hour, time.Hour, false))
	require.NoError(b, k.a.Refresh())
	list := make([]member, 1000)
	onAllCores(len(list), func(i int) { list[i] = k.member(i) })
	appraise := func(i int) {
		r := k.a.Appraise(verifier.Rules{}, list[i].evidence, list[i].claim, verifier.Machine{Chip: list[i].chip})
		if r.Status != enclave.StatusAffirming {
			panic(fmt.Sprint(r.Checks))
		}
	}
	onAllCores(len(list), appraise) // they were enrolled
	var ours, bare, wall time.Duration
	var before, after runtime.MemStats
	var heap uint64
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		c, w := cpuTime(), time.Now()
		onAllCores(len(list), appraise)
		ours, wall = ours+cpuTime()-c, wall+time.Since(w)
		runtime.ReadMemStats(&after)
		heap = max(heap, after.HeapInuse-min(after.HeapInuse, before.HeapInuse))
		c = cpuTime()
		onAllCores(len(list), func(i int) {
			if !ecdsa.VerifyASN1(list[i].key, list[i].digest[:], list[i].der) {
				panic("the bare verification fails")
			}
		})
		bare += cpuTime() - c
	}
	b.ReportMetric(float64(ours)/float64(bare), "x-1000-bare")
	b.ReportMetric(float64(wall.Milliseconds())/float64(b.N), "job-ms")
	b.ReportMetric(float64(heap)/(1<<20), "heap-growth-MiB")
}
