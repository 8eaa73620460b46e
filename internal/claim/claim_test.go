package claim_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

type vector struct {
	Name  string `json:"name"`
	Claim struct {
		Cluster     string         `json:"cluster"`
		VerifierKey enclave.Digest `json:"verifier_key"`
		Nonce       enclave.Nonce  `json:"nonce"`
		Job         uint64         `json:"job"`
		HetOffset   uint32         `json:"het_offset"`
		Restart     uint32         `json:"restart"`
		Node        string         `json:"node"`
		WireGuard   enclave.Digest `json:"wireguard"` // hexadecimal here
		Ed25519     enclave.Digest `json:"ed25519"`
		HPKE        string         `json:"hpke"`
		Intent      enclave.Digest `json:"intent"`
		Policy      enclave.Digest `json:"policy"`
		Purpose     claim.Purpose  `json:"purpose"`
		Epoch       uint32         `json:"epoch"`
	} `json:"claim"`
	Transcript string `json:"transcript"`
	ReportData string `json:"report_data"`
}

func (v vector) value(t testing.TB) claim.Claim {
	t.Helper()
	hpke, err := hex.DecodeString(v.Claim.HPKE)
	require.NoError(t, err)
	return claim.Claim{
		Cluster: v.Claim.Cluster, VerifierKey: v.Claim.VerifierKey, Nonce: v.Claim.Nonce, Job: v.Claim.Job,
		HetOffset: v.Claim.HetOffset, Restart: v.Claim.Restart, Node: v.Claim.Node,
		WireGuard: enclave.PublicKey(v.Claim.WireGuard), Ed25519: enclave.PublicKey(v.Claim.Ed25519),
		HPKE: hpke, Intent: v.Claim.Intent, Policy: v.Claim.Policy, Purpose: v.Claim.Purpose, Epoch: v.Claim.Epoch,
	}
}

func vectors(t testing.TB) []vector {
	t.Helper()
	b, err := os.ReadFile("testdata/vectors.json")
	require.NoError(t, err)
	var v []vector
	require.NoError(t, json.Unmarshal(b, &v))
	require.NotEmpty(t, v)
	return v
}

func TestCommittedVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			c := v.value(t)
			got, err := c.Transcript()
			require.NoError(t, err)
			assert.Equal(t, v.Transcript, hex.EncodeToString(got))
			data, err := c.ReportData()
			require.NoError(t, err)
			assert.Equal(t, v.ReportData, hex.EncodeToString(data[:]))
			back, err := claim.ParseTranscript(got)
			require.NoError(t, err)
			assert.Equal(t, c, back)
		})
	}
}

func TestEveryFieldIsBound(t *testing.T) {
	base := vectors(t)[0].value(t)
	want, err := base.ReportData()
	require.NoError(t, err)
	for name, change := range map[string]func(*claim.Claim){
		"evidence of another cluster":          func(c *claim.Claim) { c.Cluster = "other" },
		"evidence for another verifier":        func(c *claim.Claim) { c.VerifierKey[31] ^= 1 },
		"evidence of another nonce":            func(c *claim.Claim) { c.Nonce[0] ^= 1 },
		"evidence of another job":              func(c *claim.Claim) { c.Job++ },
		"evidence of another het component":    func(c *claim.Claim) { c.HetOffset++ },
		"evidence of the start before":         func(c *claim.Claim) { c.Restart++ },
		"evidence of another node":             func(c *claim.Claim) { c.Node = "n2" },
		"evidence of another WireGuard key":    func(c *claim.Claim) { c.WireGuard[0] ^= 1 },
		"evidence of another Ed25519 key":      func(c *claim.Claim) { c.Ed25519[0] ^= 1 },
		"evidence of another HPKE key":         func(c *claim.Claim) { c.HPKE[1215] ^= 1 },
		"evidence of another intent":           func(c *claim.Claim) { c.Intent[0] ^= 1 },
		"evidence under another policy":        func(c *claim.Claim) { c.Policy[0] ^= 1 },
		"evidence of a renewal":                func(c *claim.Claim) { c.Purpose = claim.PurposeRenew },
		"evidence of another epoch":            func(c *claim.Claim) { c.Epoch++ },
		"a byte moved from cluster to node":    func(c *claim.Claim) { c.Cluster, c.Node = "linu", "xn1" },
		"keys of two kinds exchanged":          func(c *claim.Claim) { c.WireGuard, c.Ed25519 = c.Ed25519, c.WireGuard },
		"restart and het offset exchanged":     func(c *claim.Claim) { c.HetOffset, c.Restart = 1, 0 },
		"restart in place of the het offset":   func(c *claim.Claim) { c.HetOffset, c.Restart = 0, 1 },
		"the case of the node name is spelled": func(c *claim.Claim) { c.Node = "N1" },
	} {
		t.Run(name+" differs", func(t *testing.T) {
			c := base
			c.HPKE = bytes.Clone(base.HPKE)
			change(&c)
			got, err := c.ReportData()
			require.NoError(t, err)
			assert.NotEqual(t, want, got)
		})
	}
}

func TestClaimsWithoutTranscript(t *testing.T) {
	base := vectors(t)[0].value(t)
	for name, change := range map[string]func(*claim.Claim){
		"no cluster name":                func(c *claim.Claim) { c.Cluster = "" },
		"no node name":                   func(c *claim.Claim) { c.Node = "" },
		"a node name that is not UTF-8":  func(c *claim.Claim) { c.Node = "n\xff" },
		"a cluster name without end":     func(c *claim.Claim) { c.Cluster = strings.Repeat("x", 1025) },
		"no HPKE key":                    func(c *claim.Claim) { c.HPKE = nil },
		"an X25519 key as HPKE key":      func(c *claim.Claim) { c.HPKE = c.HPKE[:32] },
		"an HPKE key with a byte more":   func(c *claim.Claim) { c.HPKE = append(bytes.Clone(c.HPKE), 0) },
		"a zero nonce":                   func(c *claim.Claim) { c.Nonce = enclave.Nonce{} },
		"no purpose":                     func(c *claim.Claim) { c.Purpose = 0 },
		"an unknown purpose":             func(c *claim.Claim) { c.Purpose = 4 },
		"an enrolment that names a job":  func(c *claim.Claim) { c.Purpose = claim.PurposeEnrol },
		"an enrolment with a restart":    func(c *claim.Claim) { c.Purpose, c.Job, c.Restart = claim.PurposeEnrol, 0, 1 },
		"an enrolment with an epoch":     func(c *claim.Claim) { c.Purpose, c.Job, c.Epoch = claim.PurposeEnrol, 0, 1 },
		"an enrolment with a het offset": func(c *claim.Claim) { c.Purpose, c.Job, c.HetOffset = claim.PurposeEnrol, 0, 1 },
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			c := base
			change(&c)
			_, err := c.Transcript()
			require.Error(t, err)
			_, err = c.ReportData()
			require.Error(t, err)
		})
	}
}

func TestTranscriptsFromOutside(t *testing.T) {
	good, err := vectors(t)[0].value(t).Transcript()
	require.NoError(t, err)
	head := len("slurm-enclave/report-data/v1")
	for name, b := range map[string][]byte{
		"an empty transcript":              nil,
		"another domain":                   append([]byte("slurm-enclave/report-data/v2"), good[head:]...),
		"a byte after the last field":      append(bytes.Clone(good), 0),
		"a transcript cut in a field":      good[:len(good)-1],
		"a transcript cut in a header":     good[:head+3],
		"a field out of order":             swap(good, head, 0, 2),
		"a length beyond the end":          swap(good, head, 2, 0xff),
		"a doubled field":                  append(append(bytes.Clone(good[:head+11]), good[head:head+11]...), good[head+11:]...),
		"the fields without a domain tag":  good[head:],
		"a domain tag and no field at all": good[:head],
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			_, err := claim.ParseTranscript(b)
			require.Error(t, err)
		})
	}
}

func swap(b []byte, head, at int, v byte) []byte {
	c := bytes.Clone(b)
	c[head+at] = v
	return c
}

func FuzzParseTranscript(f *testing.F) {
	for _, v := range vectors(f) {
		b, err := hex.DecodeString(v.Transcript)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add([]byte("slurm-enclave/report-data/v1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := claim.ParseTranscript(b)
		if err != nil {
			return
		}
		again, err := c.Transcript()
		require.NoError(t, err)
		require.Equal(t, b, again, "a transcript has one spelling")
	})
}

func FuzzNoSplicing(f *testing.F) {
	f.Add("linux", "n1", uint64(1), uint32(0), uint32(0), byte(1), "linu", "xn1", uint64(1), uint32(0), uint32(0), byte(1))
	f.Add("a", "b", uint64(1), uint32(2), uint32(3), byte(1), "a", "b", uint64(1), uint32(3), uint32(2), byte(2))
	f.Fuzz(func(t *testing.T, c1, n1 string, j1 uint64, r1, e1 uint32, p1 byte, c2, n2 string, j2 uint64, r2, e2 uint32, p2 byte) {
		mk := func(c, n string, j uint64, r, e uint32, p byte) claim.Claim {
			return claim.Claim{
				Cluster: c, Node: n, Job: j, Restart: r, Epoch: e, Purpose: claim.Purpose(p),
				Nonce: enclave.Nonce{1}, HPKE: make([]byte, claim.HPKESize),
			}
		}
		a, b := mk(c1, n1, j1, r1, e1, p1), mk(c2, n2, j2, r2, e2, p2)
		ta, erra := a.Transcript()
		tb, errb := b.Transcript()
		if erra != nil || errb != nil {
			return
		}
		same := c1 == c2 && n1 == n2 && j1 == j2 && r1 == r2 && e1 == e2 && p1 == p2
		require.Equal(t, same, bytes.Equal(ta, tb))
	})
}
