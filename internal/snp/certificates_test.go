package snp_test

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"testing"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

func vcekOf(t testing.TB) []byte {
	t.Helper()
	_, chain, _ := genuine(t, "milan version 2 is genuine")
	return chain.Endorsement("VCEK").Raw
}

func otherVCEK(t testing.TB) []byte {
	t.Helper()
	_, chain, _ := genuine(t, "the certificate of another chip is refused")
	return chain.Endorsement("VCEK").Raw
}

// chainDER is a PEM bundle's certificates, one after the other.
func chainDER(t testing.TB, bundle []byte) (der []byte) {
	t.Helper()
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		der = append(der, block.Bytes...)
	}
	require.NotEmpty(t, der)
	return der
}

func asPEM(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }

func TestCertificatesInAllForms(t *testing.T) {
	der := vcekOf(t)
	set, _ := load(t)
	roots := []byte(set.Roots[0])
	tableOf := (&abi.CertTable{Entries: []abi.CertTableEntry{{GUID: uuid.MustParse(abi.VcekGUID), RawCert: der}}}).Marshal()
	for name, b := range map[string][]byte{
		"DER":                         der,
		"PEM":                         asPEM(der),
		"PEM with the chain":          append(asPEM(der), roots...),
		"PEM with the chain in front": append(bytes.Clone(roots), asPEM(der)...),
		"DER with the chain behind":   append(bytes.Clone(der), chainDER(t, roots)...),
		"DER with the chain in front": append(chainDER(t, roots), der...),
		"the same certificate twice":  append(asPEM(der), asPEM(der)...),
		"the host's table":            tableOf,
		"a table with entries of a host's own and a signing key in AMD's older format": (&abi.CertTable{Entries: []abi.CertTableEntry{
			{GUID: uuid.MustParse("00000000-1111-2222-3333-444444444444"), RawCert: []byte("not ours")},
			{GUID: uuid.MustParse(abi.AskGUID), RawCert: []byte{1, 0, 0, 0}},
			{GUID: uuid.MustParse(abi.VcekGUID), RawCert: der},
		}}).Marshal(),
		"the host's table of full pages": append(bytes.Clone(tableOf), make([]byte, 4096)...),
	} {
		t.Run(name+" parses", func(t *testing.T) {
			chain, err := snp.ParseCertificates(b)
			require.NoError(t, err)
			require.NotNil(t, chain.Endorsement("VCEK"))
			assert.Equal(t, der, chain.Endorsement("VCEK").Raw)
			assert.Nil(t, chain.Endorsement("VLEK"))
			assert.Nil(t, chain.Endorsement("none"))
		})
	}
}

func TestCertificatesRefused(t *testing.T) {
	der := vcekOf(t)
	report, _, opt := genuine(t, "milan version 2 is genuine")
	overflow := (&abi.CertTable{Entries: []abi.CertTableEntry{{GUID: uuid.MustParse(abi.VcekGUID), RawCert: der}}}).Marshal()
	binary.LittleEndian.PutUint32(overflow[16:], 0xfffffff0) // offset + length is small in 32 bits
	binary.LittleEndian.PutUint32(overflow[20:], 0x20)
	doubled := (&abi.CertTable{Entries: []abi.CertTableEntry{
		{GUID: uuid.MustParse(abi.VcekGUID), RawCert: der}, {GUID: uuid.MustParse(abi.VcekGUID), RawCert: der},
	}}).Marshal()
	for name, b := range map[string][]byte{
		"a byte behind the certificate":     append(bytes.Clone(der), 0),
		"a certificate cut off":             der[:len(der)-1],
		"a byte behind the chain":           append(append(bytes.Clone(der), der...), 1),
		"two VCEKs":                         append(asPEM(der), asPEM(otherVCEK(t))...),
		"two VCEKs in DER":                  append(bytes.Clone(der), otherVCEK(t)...),
		"a private key":                     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}),
		"text in front of PEM":              append([]byte("hello\n"), asPEM(der)...),
		"text behind PEM":                   append(asPEM(der), "hello"...),
		"a PEM block that does not decode":  append([]byte("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"), asPEM(der)...),
		"a table cut off":                   []byte("not a table"),
		"a table entry that wraps around":   overflow,
		"a table with an entry twice":       doubled,
		"a table entry that is no DER":      (&abi.CertTable{Entries: []abi.CertTableEntry{{GUID: uuid.MustParse(abi.VcekGUID), RawCert: []byte{1, 2}}}}).Marshal(),
		"a file without end":                make([]byte, 1<<20+1),
		"a PEM that names certificate only": []byte("-----BEGIN CERTIFICATE-----"),
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			chain, err := snp.ParseCertificates(b)
			require.Error(t, err)
			require.NotErrorIs(t, err, snp.ErrNoCertificate)
			res := snp.Verify(report, chain, opt)
			assert.Equal(t, []string{"chain"}, failures(res))
			assert.False(t, res.NoCertificate)
		})
	}
}

func TestNothingIsNoCertificate(t *testing.T) {
	unknownEntry := (&abi.CertTable{Entries: []abi.CertTableEntry{{GUID: uuid.MustParse(abi.ExtraPlatformInfoGUID), RawCert: []byte{1}}}}).Marshal()
	for _, b := range [][]byte{nil, {}, []byte("\n"), make([]byte, 4096), unknownEntry} {
		chain, err := snp.ParseCertificates(b)
		require.ErrorIs(t, err, snp.ErrNoCertificate)
		report, _, opt := genuine(t, "milan version 2 is genuine")
		assert.True(t, snp.Verify(report, chain, opt).NoCertificate)
	}
}

func TestSigningKeyIsNoVCEK(t *testing.T) {
	set, _ := load(t)
	chain, err := snp.ParseCertificates([]byte(set.Roots[0]))
	require.NoError(t, err)
	report, _, opt := genuine(t, "milan version 2 is genuine")
	res := snp.Verify(report, chain, opt)
	assert.False(t, res.Genuine)
	assert.False(t, res.NoCertificate)
	assert.Equal(t, []string{"chain"}, failures(res))
}

// wholeTable is what a host hands out: the chip's certificate and AMD's two above it.
func wholeTable(t testing.TB) []byte {
	t.Helper()
	set, _ := load(t)
	var above [][]byte
	for block, rest := pem.Decode([]byte(set.Roots[0])); block != nil; block, rest = pem.Decode(rest) {
		above = append(above, block.Bytes)
	}
	require.Len(t, above, 2)
	return (&abi.CertTable{Entries: []abi.CertTableEntry{
		{GUID: uuid.MustParse(abi.VcekGUID), RawCert: vcekOf(t)},
		{GUID: uuid.MustParse(abi.AskGUID), RawCert: above[0]},
		{GUID: uuid.MustParse(abi.ArkGUID), RawCert: above[1]},
	}}).Marshal()
}

func TestPinnedCertificatesOfATableAreNotParsedAgain(t *testing.T) {
	_, roots := load(t)
	table := wholeTable(t)
	plain, err := snp.ParseCertificates(table)
	require.NoError(t, err)
	chain, err := roots.ParseCertificates(table)
	require.NoError(t, err)
	assert.Equal(t, plain, chain, "it is the same chain")
	parse := func(f func([]byte) (snp.Chain, error)) float64 {
		return testing.AllocsPerRun(20, func() { _, _ = f(table) })
	}
	assert.Less(t, parse(roots.ParseCertificates), parse(snp.ParseCertificates)/2)
}

func FuzzParseCertificates(f *testing.F) {
	set, roots := load(f)
	for _, v := range set.Vectors {
		_, certs := v.bytes(f)
		f.Add(certs)
	}
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"))
	f.Add(make([]byte, 48))
	f.Add(wholeTable(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		chain, err := snp.ParseCertificates(b)
		same, sameErr := roots.ParseCertificates(b)
		require.Equal(t, chain, same, "whatever is pinned")
		require.Equal(t, err, sameErr)
		if err != nil {
			require.Nil(t, chain.Endorsement("VCEK"))
			require.Nil(t, chain.Endorsement("VLEK"))
		}
	})
}

func FuzzVerify(f *testing.F) {
	set, roots := load(f)
	for _, v := range set.Vectors {
		report, certs := v.bytes(f)
		f.Add(report, certs)
	}
	genuineBodies := map[string]bool{}
	for _, v := range set.Vectors {
		report, _ := v.bytes(f)
		genuineBodies[string(report[:0x2a0])] = true
	}
	f.Fuzz(func(t *testing.T, report, certs []byte) {
		chain, _ := snp.ParseCertificates(certs)
		res := snp.Verify(report, chain, snp.Options{Roots: roots, At: set.At})
		require.Len(t, res.Checks, 11)
		if res.Genuine {
			require.True(t, genuineBodies[string(report[:0x2a0])], "nobody signed this")
		}
	})
}
