package enclaved_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt/check"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/client"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
)

// receipt runs a job on two nodes to its end and waits for its receipt.
func (c *controller) receipt(j enclave.Job, nodes map[string]*client.Client) ledger.Receipt {
	t := c.t
	t.Helper()
	_, err := c.admin(0).Register(t.Context(), api.RegisterRequest{Job: j})
	require.NoError(t, err)
	done := make(chan error, len(nodes))
	for name, k := range nodes {
		go func() { done <- c.bringUp(k, j.JobKey, name, netip.MustParseAddr("10.0.0."+name[1:])) }()
	}
	for range nodes {
		if up := <-done; c.spoil == nil {
			require.NoError(t, up)
		}
	}
	for name, k := range nodes {
		require.NoError(t, k.Teardown(t.Context(), api.TeardownRequest{NodeRequest: api.NodeRequest{Job: j.JobKey, Node: name, Epoch: 1}, Closed: true}))
	}
	_, err = c.admin(0).Settled(t.Context(), j.JobKey)
	require.NoError(t, err)
	l, err := ledger.Open(t.Context(), c.path("state/ledger.db"))
	require.NoError(t, err)
	defer func() { assert.NoError(t, l.Close()) }()
	var r ledger.Receipt
	require.Eventually(t, func() bool {
		r, err = l.ReceiptOf(t.Context(), j.JobKey)
		return err == nil
	}, time.Minute, 50*time.Millisecond, "%v\n%s", err, c.log)
	return r
}

func bad(r check.Report) string {
	var b strings.Builder
	for _, l := range r.Lines {
		if l.Result == check.Bad {
			b.WriteString(l.Node + " " + l.Name + ": " + l.Reason + "\n")
		}
	}
	return b.String()
}

func two(id uint32) enclave.Job {
	return enclave.Job{
		JobKey: enclave.JobKey{Cluster: "c1", Job: id}, UID: 2001, User: "alice", Account: "onc", Partition: "cpu-sev",
		Nodes: []string{"n1", "n2"}, Batch: true,
	}
}

// What enclaved seals is checked with nothing but AMD's roots and the key that it made.
func TestP6WhatWasSealedHolds(t *testing.T) {
	t.Parallel()
	c := start(t)
	nodes := map[string]*client.Client{"n1": c.enrol("n1"), "n2": c.enrol("n2")}
	amd, err := snp.AMDRoots()
	require.NoError(t, err)
	key, err := pki.LoadKey(c.path("state/receipt-simulated.key"))
	require.NoError(t, err)
	opt := check.Options{Roots: amd, Keys: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}}

	r := c.receipt(two(1), nodes)
	report := check.Check(r.Envelope, opt)
	require.True(t, report.Good(), bad(report))
	assert.True(t, report.Simulated() && report.Pinned)
	p := report.Said.Predicate
	assert.Equal(t, policy(), p.Policy.Text)
	require.Len(t, p.Authorities, 1)
	block, _ := pem.Decode(c.chips.Roots())
	assert.Equal(t, block.Bytes, p.Documents[p.Authorities[0].Intermediate.String()])
	chain := []ledger.Receipt{r}

	// Refused evidence is judged again with the same outcome, check by check.
	foreign, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	stranger, err := foreign.Chip("n2")
	require.NoError(t, err)
	chip, err := c.chips.Chip("n2")
	require.NoError(t, err)
	other, err := c.chips.Chip("n1")
	require.NoError(t, err)
	old, err := chip.At(attesttest.OldTCB())
	require.NoError(t, err)
	again := func(by *attesttest.Chip, change func(*attesttest.Report)) func(*enclave.Evidence) {
		return func(e *enclave.Evidence) {
			report := by.Report([64]byte(e.Report[0x50:0x90]))
			change(&report)
			e.Report, _ = by.Signed(report) // one that is not signed is refused, too
			e.Certificates = by.Table()
		}
	}
	nothing := func(*attesttest.Report) {}
	for name, spoil := range map[string]func(*enclave.Evidence){
		"a changed report":             func(e *enclave.Evidence) { e.Report[0x90]++ },
		"a report that is cut":         func(e *enclave.Evidence) { e.Report = e.Report[:1000] },
		"a report that is none":        func(e *enclave.Evidence) { e.Report = []byte("none") },
		"no report":                    func(e *enclave.Evidence) { e.Report = nil },
		"no certificates":              func(e *enclave.Evidence) { e.Certificates = nil },
		"certificates that are none":   func(e *enclave.Evidence) { e.Certificates = bytes.Repeat([]byte{7}, 99) },
		"another lab's chip":           again(stranger, nothing),
		"another lab's certificates":   func(e *enclave.Evidence) { e.Certificates = stranger.Table() },
		"another node's chip":          again(other, nothing),
		"old firmware":                 again(old, nothing),
		"a guest that may be debugged": again(chip, func(r *attesttest.Report) { r.Policy |= attesttest.PolicyDebug }),
		"another measurement":          again(chip, func(r *attesttest.Report) { r.Measurement[0]++ }),
		"another question's report":    again(chip, func(r *attesttest.Report) { r.ReportData[0]++ }),
	} {
		c.spoil = spoil
		r := c.receipt(two(uint32(10+len(chain))), nodes)
		report := check.Check(r.Envelope, opt)
		require.True(t, report.Good(), "%s:\n%s", name, bad(report))
		assert.Equal(t, enclave.VerdictRefused, report.Said.Predicate.Verdict, name)
		chain = append(chain, r)
	}
	walk := check.NewChain(1, nil, nil)
	for _, r := range chain {
		walk.Add(check.Link{Name: r.Key.String(), File: r.Envelope, Row: &check.Row{Job: r.Key, Sequence: r.Sequence, Digest: r.Digest, Previous: r.Previous}})
	}
	assert.Empty(t, walk.Faults)
}

func TestKeysOfReceiptsAreMadeOnceAndNobodyElseReadsThem(t *testing.T) {
	t.Parallel()
	c := start(t)
	var texts []string
	for _, name := range []string{"verifier.key", "receipt.key", "receipt-simulated.key"} {
		info, err := os.Stat(c.path("state/" + name))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o400), info.Mode().Perm(), name)
		b, err := os.ReadFile(c.path("state/" + name))
		require.NoError(t, err)
		assert.NotContains(t, texts, string(b), "each key is one of its own")
		texts = append(texts, string(b))
	}
	require.NoError(t, c.end())
	t.Run("a key that is the verifier's does not serve", func(t *testing.T) {
		require.NoError(t, os.Remove(c.path("state/receipt.key")))
		require.NoError(t, os.WriteFile(c.path("state/receipt.key"), []byte(texts[0]), 0o400))
		require.ErrorContains(t, c.run(t.Context()), "are one")
	})
	t.Run("nor does one that others read", func(t *testing.T) {
		require.NoError(t, os.Chmod(c.path("state/receipt.key"), 0o444))
		r, ok := enclave.AsRefusal(c.run(t.Context()))
		require.True(t, ok)
		assert.Equal(t, enclave.Code("E004"), r.Code)
	})
}
