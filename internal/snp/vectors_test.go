package snp_test

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

var update = flag.Bool("update", false, "write new simulated vectors with new test keys")

const vectorFile = "testdata/simulated.json"

// vectorFiles are reports of a test hierarchy: the code is the same as for AMD's, the roots are not.
type vectorSet struct {
	Simulated bool     `json:"simulated"`
	Roots     []string `json:"roots"`
	At        time.Time
	Vectors   []vector `json:"vectors"`
}

type vector struct {
	Name         string   `json:"name"`
	Part         string   `json:"part"`
	Report       string   `json:"report"`
	Certificates string   `json:"certificates"`
	After        string   `json:"after,omitempty"` // judged that much later
	Failed       []string `json:"failed"`
}

func (v vector) bytes(t testing.TB) (report, certs []byte) {
	t.Helper()
	report, err := hex.DecodeString(v.Report)
	require.NoError(t, err)
	certs, err = hex.DecodeString(v.Certificates)
	require.NoError(t, err)
	return report, certs
}

func load(t testing.TB) (vectorSet, snp.Roots) {
	t.Helper()
	b, err := os.ReadFile(vectorFile)
	require.NoError(t, err)
	var set vectorSet
	require.NoError(t, json.Unmarshal(b, &set))
	require.True(t, set.Simulated)
	bundles := make([][]byte, 0, len(set.Roots))
	for _, r := range set.Roots {
		bundles = append(bundles, []byte(r))
	}
	roots, err := snp.TestRoots(bundles...)
	require.NoError(t, err)
	return set, roots
}

func failures(res snp.Result) []string {
	names := []string{}
	for _, c := range res.Checks {
		if c.Result == enclave.CheckFail {
			names = append(names, c.Name)
		}
	}
	return names
}

func TestSimulatedVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	set, roots := load(t)
	for _, v := range set.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			report, certs := v.bytes(t)
			at := set.At
			if v.After != "" {
				d, err := time.ParseDuration(v.After)
				require.NoError(t, err)
				at = at.Add(d)
			}
			chain, err := snp.ParseCertificates(certs)
			require.NoError(t, err)
			res := snp.Verify(report, chain, snp.Options{Roots: roots, At: at})
			assert.Equal(t, v.Failed, failures(res), "%v", res.Checks)
			assert.Equal(t, len(v.Failed) == 0, res.Genuine)
			assert.True(t, res.Simulated, "a lab's root vouches for simulated reports only")
			if res.Genuine {
				assert.Equal(t, v.Part, res.Part)
			}
			amd, err := snp.AMDRoots()
			require.NoError(t, err)
			assert.False(t, snp.Verify(report, chain, snp.Options{Roots: amd, At: at}).Genuine, "AMD's roots don't vouch for it")
		})
	}
}

// writeVectors makes them anew. The private keys end with the test.
func writeVectors(t *testing.T) {
	t.Helper()
	make1 := func(product string) *attesttest.Hierarchy {
		h, err := attesttest.NewHierarchy(t.TempDir(), attesttest.Product(product))
		require.NoError(t, err)
		return h
	}
	milan, genoa, turin, forged := make1("Milan"), make1("Genoa"), make1("Turin"), make1("Milan")
	set := vectorSet{Simulated: true, At: time.Now().UTC().Truncate(time.Second)}
	for _, h := range []*attesttest.Hierarchy{milan, genoa, turin} {
		set.Roots = append(set.Roots, string(h.Roots()))
	}
	chip := func(h *attesttest.Hierarchy, node string, tcb enclave.TCB) *attesttest.Chip {
		c, err := h.NewChip(attesttest.ChipID(node), tcb, attesttest.Validity{})
		require.NoError(t, err)
		return c
	}
	now := attesttest.CurrentTCB()
	add := func(name, part string, c *attesttest.Chip, certs []byte, after string, failed []string, change func(*attesttest.Report)) {
		r := c.Report([64]byte{1, 2, 3})
		if change != nil {
			change(&r)
		}
		b, err := c.Signed(r)
		require.NoError(t, err)
		set.Vectors = append(set.Vectors, vector{
			Name: name, Part: part, Report: hex.EncodeToString(b), Certificates: hex.EncodeToString(certs), After: after, Failed: failed,
		})
	}
	n1, n2, g1, t1 := chip(milan, "n1", now), chip(milan, "n2", now), chip(genoa, "n1", now), chip(turin, "n1", enclave.TCB{FMC: 1, Bootloader: 1, TEE: 1, SNP: 4, Microcode: 81})
	version := func(n uint32) func(*attesttest.Report) { return func(r *attesttest.Report) { r.Version = n } }
	none := []string{}
	add("milan version 2 is genuine", "milan", n1, n1.Certificate, "", none, version(2))
	add("milan version 3 with the host's table is genuine", "milan", n1, n1.Table(), "", none, nil)
	add("milan version 4 is genuine", "milan", n1, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n1.Certificate}), "", none, version(4))
	add("milan version 5 is genuine", "milan", n1, n1.Certificate, "", none, version(5))
	add("genoa version 3 is genuine", "genoa", g1, g1.Certificate, "", none, nil)
	add("siena version 5 is genuine", "zen4c", g1, g1.Certificate, "", none, func(r *attesttest.Report) { r.Version, r.Model = 5, 0xa0 })
	add("turin version 5 is genuine", "turin", t1, t1.Certificate, "", none, nil)
	add("a masked chip is genuine", "milan", n1, n1.Certificate, "", none, func(r *attesttest.Report) { r.ChipID = enclave.ChipID{} })
	add("the certificate of another chip is refused", "milan", n1, n2.Certificate, "", []string{"hwid", "signature"}, nil)
	add("the certificate of another turin is refused", "turin", t1, chip(turin, "n2", t1.TCB).Certificate, "", []string{"hwid", "signature"}, nil)
	add("the certificate of another patch level is refused", "milan", n1, chip(milan, "n1", attesttest.OldTCB()).Certificate, "", []string{"tcb", "signature"}, nil)
	add("a signature of another key is refused", "milan", n1, chip(milan, "n1", now).Certificate, "", []string{"signature"}, nil)
	add("the certificate of another product is refused", "milan", n1, g1.Certificate, "", []string{"product"}, nil)
	add("a version 2 report with the certificate of another product is refused", "milan", n1, g1.Certificate, "", []string{"signature"}, version(2))
	add("an unknown processor is refused", "milan", n1, n1.Certificate, "", []string{"product"}, func(r *attesttest.Report) { r.Family = 0x1b })
	add("an expired certificate is refused", "milan", n1, n1.Certificate, "62000h", []string{"validity"}, nil)
	add("a certificate not yet valid is refused", "milan", n1, n1.Certificate, "-48h", []string{"validity"}, nil)
	f1 := chip(forged, "n1", now)
	add("a forged root in the table is refused", "milan", f1, f1.Table(), "", []string{"root"}, nil)
	add("a forged chain with the root left out is refused", "milan", f1, f1.Certificate, "", []string{"chain"}, nil)
	add("a report that no key signed is refused", "milan", n1, n1.Certificate, "", []string{"chain"}, func(r *attesttest.Report) { r.SignerInfo = 7 << 2 })
	add("a report that says VLEK is refused with a VCEK", "milan", n1, n1.Certificate, "", []string{"root"}, func(r *attesttest.Report) { r.SignerInfo = 1 << 2 })
	b, err := json.MarshalIndent(set, "", " ")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll("testdata", 0o755))
	require.NoError(t, os.WriteFile(vectorFile, b, 0o644))
}
