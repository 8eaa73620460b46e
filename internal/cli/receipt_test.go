package cli_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt/receipttest"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// office is a reader's desk: a receipt, the root to trust for AMD's, the centre's key.
type office struct {
	t     *testing.T
	scene *receipttest.Scene
	dir   string
}

func newOffice(t *testing.T, simulated bool) *office {
	t.Helper()
	o := &office{t: t, dir: t.TempDir()}
	var err error
	o.scene, err = receipttest.New(o.path("amd"), simulated, "n1", "n2")
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(o.path("roots"), 0o755))
	o.write("roots/milan.pem", o.scene.Amd.Roots())
	o.write("key.pem", publicPEM(t, o.scene.Public()))
	o.write("r.json", o.seal())
	return o
}

func (o *office) path(name string) string { return filepath.Join(o.dir, name) }

func (o *office) write(name string, b []byte) {
	o.t.Helper()
	require.NoError(o.t, os.WriteFile(o.path(name), b, 0o600))
}

func (o *office) seal() []byte {
	o.t.Helper()
	b, err := o.scene.Seal()
	require.NoError(o.t, err)
	return b
}

func publicPEM(t *testing.T, k ed25519.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// verify runs the command without any way to enclaved.
func (o *office) verify(args ...string) (string, int) {
	o.t.Helper()
	return enclaveCommand(o.t, nil, append([]string{"--config", "/broken", "receipt", "verify", o.path("r.json")}, args...)...)
}

// steady takes from a screen what differs from run to run.
func steady(s string) string {
	s = regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(s, "DIGEST")
	return regexp.MustCompile(`20[0-9]{2}-[0-9T:-]+Z`).ReplaceAllString(s, "TIME")
}

func TestReceiptVerifySays(t *testing.T) {
	t.Parallel()
	t.Run("a receipt of hardware, pinned, by the reader's roots: status 0", func(t *testing.T) {
		t.Parallel()
		o := newOffice(t, false)
		out, status := o.verify("--roots", o.path("roots"), "--key", o.path("key.pem"))
		assert.Zero(t, status, out)
		golden(t, "receipt-real", steady(out))
	})
	t.Run("by AMD's roots the same receipt is bad: status 6", func(t *testing.T) {
		t.Parallel()
		o := newOffice(t, false)
		out, status := o.verify()
		assert.Equal(t, 6, status)
		assert.Contains(t, out, "RESULT: BAD")
		assert.NotContains(t, out, "[AMD hardware]")
	})
	t.Run("a simulated one says so first: status 3, and 0 where that is allowed", func(t *testing.T) {
		t.Parallel()
		o := newOffice(t, true)
		out, status := o.verify()
		assert.Equal(t, 3, status)
		golden(t, "receipt-simulated", steady(out))
		allowed, status := o.verify("--allow-simulated")
		assert.Zero(t, status)
		assert.Equal(t, out, allowed)
		first, _, _ := strings.Cut(out, "\n")
		assert.Equal(t, "SIMULATED: proves nothing about hardware", first)
		assert.Contains(t, out, "unpinned")
	})
	t.Run("a stricter policy of the reader's: status 6", func(t *testing.T) {
		t.Parallel()
		o := newOffice(t, true)
		o.write("mine.yaml", []byte(strings.Replace(receipttest.PolicyText(true), "snp: 24", "snp: 25", 1)))
		out, status := o.verify("--allow-simulated", "--policy", o.path("mine.yaml"))
		assert.Equal(t, 6, status)
		assert.Contains(t, out, "tcb_minimum")
	})
	t.Run("JSON", func(t *testing.T) {
		t.Parallel()
		o := newOffice(t, true)
		out, status := o.verify("--allow-simulated", "--json")
		require.Zero(t, status)
		var doc struct {
			Good, Simulated bool
			Job             uint32
			Verdict         string
			Key             struct {
				Fingerprint string
				Pinned      bool
			}
			Lines []struct {
				Node, Name, Result string
				Vouches            string `json:"vouched_for_by"`
			}
		}
		require.NoError(t, json.Unmarshal([]byte(out), &doc))
		assert.True(t, doc.Good && doc.Simulated)
		assert.Equal(t, uint32(4711), doc.Job)
		assert.Equal(t, "sha256:"+receipt.KeyID(o.scene.Public()).String(), doc.Key.Fingerprint)
		for _, l := range doc.Lines {
			assert.NotEmpty(t, l.Vouches, l.Name)
		}
	})
}

func TestReceiptVerifyFails(t *testing.T) {
	t.Parallel()
	o := newOffice(t, true)
	other := newOffice(t, true)
	for name, tt := range map[string]struct {
		args   []string
		status int
	}{
		"a file that is not there":         {[]string{"receipt", "verify", o.path("none")}, 1},
		"no file":                          {[]string{"receipt", "verify"}, 2},
		"an unknown flag":                  {[]string{"receipt", "verify", "--online", o.path("r.json")}, 2},
		"a file that is no receipt":        {[]string{"receipt", "verify", o.path("key.pem")}, 6},
		"a key that is not the centre's":   {[]string{"receipt", "verify", "--allow-simulated", "--key", other.path("key.pem"), o.path("r.json")}, 6},
		"a key file that is none":          {[]string{"receipt", "verify", "--key", o.path("r.json"), o.path("r.json")}, 1},
		"a key file that is not there":     {[]string{"receipt", "verify", "--key", o.path("none"), o.path("r.json")}, 1},
		"roots that are none":              {[]string{"receipt", "verify", "--roots", o.dir + "/amd/none", o.path("r.json")}, 1},
		"a policy that is none":            {[]string{"receipt", "verify", "--policy", o.path("key.pem"), o.path("r.json")}, 1},
		"a folder of receipts without any": {[]string{"audit", "verify", "--dir", t.TempDir()}, 1},
		"a folder that is not there":       {[]string{"audit", "verify", "--dir", o.path("none")}, 1},
		"a head that is none":              {[]string{"audit", "verify", "--dir", o.dir, "--head", "7"}, 2},
		"a number that is none":            {[]string{"audit", "verify", "--dir", o.dir, "--from", "0"}, 2},
		"receipt alone":                    {[]string{"receipt"}, 2},
		"audit alone":                      {[]string{"audit"}, 2},
		"a job that is none":               {[]string{"receipt", "export", "x"}, 2},
		"a start that is none":             {[]string{"receipt", "export", "7.x"}, 2},
		"an audit without enclaved":        {[]string{"--config", "/broken", "audit", "verify"}, 4},
		"an export without enclaved":       {[]string{"--config", "/broken", "receipt", "export", "7"}, 4},
	} {
		t.Run(fmt.Sprintf("%s: status %d", name, tt.status), func(t *testing.T) {
			t.Parallel()
			_, status := enclaveCommand(t, &source{}, tt.args...)
			assert.Equal(t, tt.status, status)
		})
	}
}

func TestAFlippedByteIsStatusSix(t *testing.T) {
	t.Parallel()
	o := newOffice(t, true)
	file := o.seal()
	for i := 0; i < len(file); i += 211 { // every byte is flipped in internal/receipt/check
		spoilt := slices.Clone(file)
		spoilt[i] ^= 1
		o.write("r.json", spoilt)
		_, status := o.verify("--allow-simulated")
		require.Equalf(t, 6, status, "byte %d", i)
	}
	o.write("r.json", file[:len(file)-1])
	_, status := o.verify("--allow-simulated")
	assert.Equal(t, 6, status, "the last byte is gone")
}

// chained makes n receipts of one centre as a ledger hands them out.
func (o *office) chained(n int) *source {
	o.t.Helper()
	src := &source{}
	var before enclave.Digest
	for i := range n {
		p := &o.scene.Statement.Predicate
		p.Job.Job = uint32(100 + i)
		subject, err := receipt.SubjectOf(p.Job)
		require.NoError(o.t, err)
		o.scene.Statement.Subject = []receipt.Subject{subject}
		p.Chain = receipt.Chain{Sequence: uint64(i + 1), Previous: before}
		file := o.seal()
		src.receipts = append(src.receipts, api.Receipt{Job: p.Job.JobKey, Sequence: uint64(i + 1), Digest: sha256.Sum256(file), Previous: before, File: file})
		before = sha256.Sum256(file)
	}
	src.keys = api.ReceiptKeys{Real: enclave.PublicKey(o.scene.Real.Public().(ed25519.PublicKey)), Simulated: enclave.PublicKey(o.scene.Fake.Public().(ed25519.PublicKey))}
	return src
}

func TestReceiptExport(t *testing.T) {
	t.Parallel()
	o := newOffice(t, true)
	src := o.chained(2)
	out, status := enclaveCommand(t, src, "receipt", "export", "101")
	assert.Zero(t, status)
	assert.Equal(t, string(src.receipts[1].File), out)
	path := o.path("out.json")
	for range 2 { // the second time it is there already
		_, status = enclaveCommand(t, src, "receipt", "export", "100.0", "-o", path)
		assert.Zero(t, status)
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, src.receipts[0].File, b)
	_, status = enclaveCommand(t, src, "receipt", "export", "101", "-o", path)
	assert.Equal(t, 1, status, "another content is not overwritten")
	_, status = enclaveCommand(t, src, "receipt", "export", "7")
	assert.Equal(t, 7, status)
	src.err = enclave.Refuse("E142", enclave.FaultService, "not yet")
	_, status = enclaveCommand(t, src, "receipt", "export", "7")
	assert.Equal(t, 4, status)
}

func TestReceiptKey(t *testing.T) {
	t.Parallel()
	o := newOffice(t, true)
	src := o.chained(1)
	hardware, status := enclaveCommand(t, src, "receipt", "key")
	assert.Zero(t, status)
	fake, status := enclaveCommand(t, src, "receipt", "key", "--simulated")
	assert.Zero(t, status)
	assert.NotEqual(t, hardware, fake)
	assert.Contains(t, fake, "# simulated-receipt key sha256:")
	o.write("both.pem", []byte(hardware+fake))
	_, status = o.verify("--allow-simulated", "--key", o.path("both.pem"))
	assert.Zero(t, status, "what it prints is what --key reads")
	out, status := enclaveCommand(t, src, "receipt", "key", "--json")
	assert.Zero(t, status)
	assert.Contains(t, out, `"role": "receipt"`)
}

func TestAuditVerify(t *testing.T) {
	t.Parallel()
	o := newOffice(t, true)
	src := o.chained(5)
	out, status := enclaveCommand(t, src, "audit", "verify", "--key", o.path("key.pem"))
	assert.Zero(t, status, out)
	golden(t, "audit", steady(out))
	head := src.receipts[4]
	noted := fmt.Sprintf("%d:%s", head.Sequence, head.Digest)
	assert.Contains(t, out, "head "+noted)

	folder := o.path("receipts")
	require.NoError(t, os.Mkdir(folder, 0o755))
	for i, r := range src.receipts { // names in another order than the numbers
		require.NoError(t, os.WriteFile(filepath.Join(folder, fmt.Sprintf("%c.json", 'z'-i)), r.File, 0o600))
	}
	offline, status := enclaveCommand(t, nil, "--config", "/broken", "audit", "verify", "--dir", folder, "--key", o.path("key.pem"), "--head", noted)
	assert.Zero(t, status, offline)
	assert.Equal(t, out, offline)

	t.Run("a removed receipt is found", func(t *testing.T) {
		t.Parallel()
		out, status := enclaveCommand(t, &source{receipts: slices.Delete(slices.Clone(src.receipts), 2, 3)}, "audit", "verify")
		assert.Equal(t, 6, status)
		assert.Contains(t, out, "receipt 3 is missing")
	})
	t.Run("a changed receipt is found", func(t *testing.T) {
		t.Parallel()
		list := slices.Clone(src.receipts)
		list[2].File = slices.Clone(list[2].File)
		list[2].File[200] ^= 1
		out, status := enclaveCommand(t, &source{receipts: list}, "audit", "verify", "--json")
		assert.Equal(t, 6, status)
		assert.Contains(t, out, `"good": false`)
	})
	t.Run("rows that changed places are found", func(t *testing.T) {
		t.Parallel()
		list := slices.Clone(src.receipts)
		list[1].File, list[2].File = list[2].File, list[1].File
		out, status := enclaveCommand(t, &source{receipts: list}, "audit", "verify")
		assert.Equal(t, 6, status)
		assert.Contains(t, out, "the ledger says otherwise")
	})
	t.Run("a cut tail is found with the head that was noted, and not without", func(t *testing.T) {
		t.Parallel()
		cut := &source{receipts: src.receipts[:3]}
		_, status := enclaveCommand(t, cut, "audit", "verify")
		assert.Zero(t, status)
		out, status := enclaveCommand(t, cut, "audit", "verify", "--head", noted)
		assert.Equal(t, 6, status)
		assert.Contains(t, out, "which you noted, is not there")
	})
	t.Run("an empty ledger is whole", func(t *testing.T) {
		t.Parallel()
		out, status := enclaveCommand(t, &source{}, "audit", "verify")
		assert.Zero(t, status)
		assert.Contains(t, out, "0 receipts")
	})
	t.Run("users are told that it is for operators", func(t *testing.T) {
		t.Parallel()
		_, status := enclaveCommand(t, &source{err: enclave.Refuse("E143", enclave.FaultRequest, "operators only")}, "audit", "verify")
		assert.Equal(t, 5, status)
	})
}

func TestTheReportNamesItsReceipt(t *testing.T) {
	t.Parallel()
	r := protected()
	r.Receipt, r.Sequence = "sha256:"+strings.Repeat("0a", 32), 12
	out, _ := enclaveCommand(t, &source{report: r}, "report", "4711")
	assert.Contains(t, out, "Receipt  number 12, sha256:0a0a")
	assert.Contains(t, out, "enclave receipt export 4711.1")
}
