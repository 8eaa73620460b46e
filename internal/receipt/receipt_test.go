package receipt_test

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
)

// key is a fixed one: its receipts are the same in every run.
func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return ed25519.PublicKey(k[ed25519.SeedSize:]) }

func statement() receipt.Statement {
	s := receipt.Statement{Type: receipt.StatementType, PredicateType: receipt.TypeReal}
	s.Predicate.Job = enclave.Job{JobKey: enclave.JobKey{Cluster: "c1", Job: 7}, Name: "a <b> & c", Nodes: []string{"n1"}}
	s.Predicate.Signer = receipt.Endorse(key(2), receipt.RoleReal, public(key(1)))
	return s
}

func TestTheEncodingBeforeSigningIsDSSEs(t *testing.T) {
	t.Parallel()
	// The example of DSSE's own protocol.md.
	assert.Equal(t, "DSSEv1 29 http://example.com/HelloWorld 11 hello world", string(receipt.PAE("http://example.com/HelloWorld", []byte("hello world"))))
	assert.Equal(t, "DSSEv1 0  0 ", string(receipt.PAE("", nil)))
}

func TestAReceiptIsOpenedAsItWasSealed(t *testing.T) {
	t.Parallel()
	s := statement()
	file, err := receipt.Seal(key(1), s)
	require.NoError(t, err)
	again, err := receipt.Seal(key(1), s)
	require.NoError(t, err)
	assert.Equal(t, file, again, "one statement has one file")
	o, err := receipt.Open(file)
	require.NoError(t, err)
	assert.Equal(t, s.Predicate.Job, o.Statement.Predicate.Job)
	assert.Equal(t, enclave.Digest(sha256.Sum256(file)), o.Digest, "sha256sum names it")
	require.NoError(t, o.CheckSignature(public(key(1))))
	require.Error(t, o.CheckSignature(public(key(2))))
	require.Error(t, o.CheckSignature(nil))
	t.Run("text that is not UTF-8 is replaced before it is signed", func(t *testing.T) {
		t.Parallel()
		s := statement()
		s.Predicate.Job.Name = "\xff\xfe"
		file, err := receipt.Seal(key(1), s)
		require.NoError(t, err)
		o, err := receipt.Open(file)
		require.NoError(t, err)
		assert.Equal(t, "\ufffd\ufffd", o.Statement.Predicate.Job.Name)
	})
	t.Run("without a key nothing is sealed", func(t *testing.T) {
		t.Parallel()
		_, err := receipt.Seal(nil, statement())
		require.Error(t, err)
	})
}

func TestAKeyIsEndorsedForOneRole(t *testing.T) {
	t.Parallel()
	verifier := enclave.PublicKey(public(key(2)))
	s := receipt.Endorse(key(2), receipt.RoleSimulated, public(key(1)))
	require.NoError(t, s.CheckEndorsement(verifier))
	s.Role = receipt.RoleReal
	require.Error(t, s.CheckEndorsement(verifier), "the simulated key never is the real one")
	require.Error(t, s.CheckEndorsement(enclave.PublicKey{}))
	assert.Equal(t, receipt.RoleReal, receipt.RoleFor(receipt.TypeReal))
	assert.Equal(t, receipt.RoleSimulated, receipt.RoleFor(receipt.TypeSimulated))
	assert.Equal(t, receipt.RoleSimulated, receipt.RoleFor("anything else"))
}

// spelled makes an envelope by hand around a payload.
func spelled(payload string) string {
	p := []byte(payload)
	sig := ed25519.Sign(key(1), receipt.PAE(receipt.PayloadType, p))
	return `{"payload":"` + base64.StdEncoding.EncodeToString(p) + `","payloadType":"` + receipt.PayloadType +
		`","signatures":[{"keyid":"` + receipt.KeyID(public(key(1))).String() + `","sig":"` + base64.StdEncoding.EncodeToString(sig) + `"}]}` + "\n"
}

func TestOnlyTheOneFormIsOpened(t *testing.T) {
	t.Parallel()
	file, err := receipt.Seal(key(1), statement())
	require.NoError(t, err)
	o, err := receipt.Open(file)
	require.NoError(t, err)
	good, payload := string(file), string(o.Payload())
	require.Equal(t, good, spelled(payload))
	swap := func(old, now string) string {
		require.Contains(t, payload, old)
		return spelled(strings.Replace(payload, old, now, 1))
	}
	var indented bytes.Buffer
	require.NoError(t, json.Indent(&indented, file, "", " "))
	for name, bad := range map[string]string{
		"nothing":                       "",
		"no newline at the end":         strings.TrimSuffix(good, "\n"),
		"two newlines at the end":       good + "\n",
		"another document behind":       good + good,
		"white space":                   indented.String(),
		"an unknown field":              strings.Replace(good, `{"payload"`, `{"x":1,"payload"`, 1),
		"a field in capitals":           strings.Replace(good, `"payload"`, `"Payload"`, 1),
		"a field twice":                 strings.Replace(good, `{"payload":`, `{"payload":"","payload":`, 1),
		"another payload type":          strings.Replace(good, "in-toto", "in-tata", 1),
		"no signature":                  good[:strings.Index(good, `"signatures"`)] + `"signatures":[]}` + "\n",
		"a keyid in capitals":           strings.Replace(good, receipt.KeyID(public(key(1))).String(), strings.ToUpper(receipt.KeyID(public(key(1))).String()), 1),
		"base64 of the other alphabet":  strings.Replace(good, "=", "", 1),
		"a statement of another type":   swap("Statement/v1", "Statement/v2"),
		"a predicate of another type":   swap("/job-receipt/v1", "/job-receipt/v2"),
		"an unknown field of the job":   swap(`"uid":0`, `"uid":0,"x":0`),
		"an escape that was not needed": swap(`a <b>`, `a \u003cb>`),
		"a number in another form":      swap(`"uid":0`, `"uid":0e0`),
		"a list that is not there":      swap(`"rosters":null`, `"rosters":[],"rosters":null`),
		"white space in the statement":  swap(`"uid":0`, `"uid": 0`),
		"a time in another zone":        swap(`"sealed":"0001-01-01T00:00:00Z"`, `"sealed":"0001-01-01T00:00:00+00:00"`),
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			_, err := receipt.Open([]byte(bad))
			require.Error(t, err)
		})
	}
}

// enveloped is spelled for a payload of any type.
func enveloped(payload []byte, payloadType string) []byte {
	sig := ed25519.Sign(key(1), receipt.PAE(payloadType, payload))
	return []byte(`{"payload":"` + base64.StdEncoding.EncodeToString(payload) + `","payloadType":"` + payloadType +
		`","signatures":[{"keyid":"` + receipt.KeyID(public(key(1))).String() + `","sig":"` + base64.StdEncoding.EncodeToString(sig) + `"}]}` + "\n")
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return out.Bytes()
}

func TestALargeStatementIsSignedCompressed(t *testing.T) {
	t.Parallel()
	s := statement()
	s.Predicate.NotCovered = []string{strings.Repeat("what the job computed ", 500_000)}
	file, err := receipt.Seal(key(1), s)
	require.NoError(t, err)
	assert.Less(t, len(file), 1<<20)
	o, err := receipt.Open(file)
	require.NoError(t, err)
	require.NoError(t, o.CheckSignature(public(key(1))))
	assert.Equal(t, s.Predicate.NotCovered, o.Statement.Predicate.NotCovered)
	require.Equal(t, file, enveloped(o.Payload(), receipt.PayloadTypeGzip), "it is what jq and gunzip take apart")
	z, err := gzip.NewReader(bytes.NewReader(o.Payload()))
	require.NoError(t, err)
	plain, err := io.ReadAll(z)
	require.NoError(t, err)
	small, err := receipt.Seal(key(1), statement())
	require.NoError(t, err)
	opened, err := receipt.Open(small)
	require.NoError(t, err)
	spoilt := bytes.Clone(o.Payload())
	spoilt[len(spoilt)-6]++ // of the checksum
	for name, bad := range map[string][]byte{
		"a large one that is not compressed":  enveloped(plain, receipt.PayloadType),
		"a small one that is compressed":      enveloped(gzipped(t, opened.Payload()), receipt.PayloadTypeGzip),
		"one with something behind it":        enveloped(append(bytes.Clone(o.Payload()), 0), receipt.PayloadTypeGzip),
		"one with another one behind it":      enveloped(append(bytes.Clone(o.Payload()), o.Payload()...), receipt.PayloadTypeGzip),
		"one that does not decompress":        enveloped(spoilt, receipt.PayloadTypeGzip),
		"one that was never compressed":       enveloped([]byte("{}"), receipt.PayloadTypeGzip),
		"one with white space in it":          enveloped(gzipped(t, append([]byte(" "), plain...)), receipt.PayloadTypeGzip),
		"one of a type that nobody has heard": enveloped(o.Payload(), receipt.PayloadType+"+zstd"),
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			_, err := receipt.Open(bad)
			require.Error(t, err)
		})
	}
	t.Run("a type that was changed after it was signed is found", func(t *testing.T) {
		t.Parallel()
		other := bytes.Replace(small, []byte(receipt.PayloadType), []byte(receipt.PayloadTypeGzip), 1)
		_, err := receipt.Open(other)
		require.Error(t, err)
	})
}

func TestEvidenceIsNamedByItsSignedBody(t *testing.T) {
	t.Parallel()
	a := bytes.Repeat([]byte{1}, 1184)
	b := bytes.Clone(a)
	b[0x2a0]++
	assert.Equal(t, receipt.EvidenceDigest(a), receipt.EvidenceDigest(b), "signatures are malleable")
	b[0x29f]++
	assert.NotEqual(t, receipt.EvidenceDigest(a), receipt.EvidenceDigest(b))
	assert.NotEqual(t, receipt.EvidenceDigest(nil), receipt.EvidenceDigest([]byte{0}))
}

func FuzzOpen(f *testing.F) {
	file, err := receipt.Seal(key(1), statement())
	require.NoError(f, err)
	f.Add(file)
	f.Add([]byte(spelled("{}")))
	f.Add([]byte(`{"payload":"","payloadType":"","signatures":null}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := receipt.Open(b)
		if err != nil || o.CheckSignature(public(key(1))) != nil {
			return
		}
		again, err := receipt.Seal(key(1), o.Statement)
		require.NoError(t, err)
		require.Equal(t, b, again, "what is opened and signed has one form")
	})
}
