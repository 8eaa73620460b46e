package snp_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// lists makes revocation lists around now.
type lists struct {
	t   *testing.T
	now time.Time
}

func (l lists) of(h *attesttest.Hierarchy, from, to time.Duration, change func(*x509.RevocationList)) *x509.RevocationList {
	l.t.Helper()
	template := &x509.RevocationList{ThisUpdate: l.now.Add(from), NextUpdate: l.now.Add(to)}
	if change != nil {
		change(template)
	}
	b, err := h.Revocations(template)
	require.NoError(l.t, err)
	parsed, err := snp.ParseCRL(b)
	require.NoError(l.t, err)
	return parsed
}

func serials(list ...*big.Int) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		for _, s := range list {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s, RevocationTime: l.ThisUpdate})
		}
	}
}

func critical(arc ...int) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier(arc), Critical: true, Value: []byte{2, 1, 1}}}
	}
}

func TestRevocationList(t *testing.T) {
	t.Parallel()
	h, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	other, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	genoa, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys(), attesttest.Product("Genoa"))
	require.NoError(t, err)
	chip, err := h.Chip("n1")
	require.NoError(t, err)
	report, err := chip.Signed(chip.Report([64]byte{1}))
	require.NoError(t, err)
	chain, err := snp.ParseCertificates(chip.Certificate)
	require.NoError(t, err)
	roots, err := snp.TestRoots(h.Roots())
	require.NoError(t, err)
	l := lists{t, time.Now()}
	const hour = time.Hour
	clean := l.of(h, -hour, hour, nil)
	stale := l.of(h, -2*hour, -hour, nil)
	for name, tt := range map[string]struct {
		crls []*x509.RevocationList
		want enclave.CheckResult
		why  string
	}{
		"no list leaves the question open": {nil, enclave.CheckUnknown, "no CRL given"},
		"a list that does not name the key passes, whatever another root's says": {
			[]*x509.RevocationList{l.of(other, -hour, hour, serials(h.Serial())), clean}, enclave.CheckPass, "not revoked",
		},
		"a revoked signing key is refused":                    {[]*x509.RevocationList{l.of(h, -hour, hour, serials(h.Serial()))}, enclave.CheckFail, "SEV-Milan is revoked since"},
		"a revoked root is refused":                           {[]*x509.RevocationList{l.of(h, -hour, hour, serials(big.NewInt(65536)))}, enclave.CheckFail, "ARK-Milan is revoked since"},
		"a key that an old list revoked stays revoked":        {[]*x509.RevocationList{l.of(h, -2*hour, -hour, serials(h.Serial())), clean}, enclave.CheckFail, "is revoked since"},
		"serial number 0, which every VCEK has, revokes none": {[]*x509.RevocationList{l.of(h, -hour, hour, serials(new(big.Int)))}, enclave.CheckPass, "not revoked"},
		"an expired list is refused by that name":             {[]*x509.RevocationList{stale}, enclave.CheckFail, "the CRL of ARK-Milan expired at"},
		"a list of the future is refused by that name":        {[]*x509.RevocationList{l.of(h, hour, 2*hour, nil)}, enclave.CheckFail, "the CRL of ARK-Milan is not valid before"},
		"an expired list beside a good one does no harm":      {[]*x509.RevocationList{stale, clean}, enclave.CheckPass, "not revoked"},
		"a list that another root signed in this one's name":  {[]*x509.RevocationList{l.of(other, -hour, hour, nil)}, enclave.CheckFail, "not signed by it"},
		"a list of another product only is refused":           {[]*x509.RevocationList{l.of(genoa, -hour, hour, nil)}, enclave.CheckFail, "no CRL given is of ARK-Milan"},
		"a list of changes only is refused":                   {[]*x509.RevocationList{l.of(h, -hour, hour, critical(2, 5, 29, 27))}, enclave.CheckFail, "critical extension"},
		"a list that says where it is served passes":          {[]*x509.RevocationList{l.of(h, -hour, hour, critical(2, 5, 29, 28))}, enclave.CheckPass, "not revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, memo := range []*snp.Memo{nil, snp.NewMemo(10)} {
				opt := snp.Options{Roots: roots, At: l.now, CRLs: tt.crls, Memo: memo}
				for range 2 { // the second time from memory
					res := snp.Verify(report, chain, opt)
					assert.Equal(t, tt.want, res.Checks[7].Result, res.Checks[7].Reason)
					assert.Contains(t, res.Checks[7].Reason, tt.why)
					assert.Equal(t, tt.want != enclave.CheckFail, res.Genuine)
				}
			}
		})
	}
}

func TestRevocationListsInAllForms(t *testing.T) {
	t.Parallel()
	h, err := attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	der, err := h.CRL(time.Now(), time.Now().Add(time.Hour), false)
	require.NoError(t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	for name, b := range map[string][]byte{"DER": der, "PEM": text, "PEM with white space": append([]byte("\n"), append(text, '\n')...)} {
		_, err = snp.ParseCRL(b)
		require.NoError(t, err, name)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "a list cut off": der[:len(der)-1], "a byte behind the list": append(append([]byte(nil), der...), 0),
		"two lists": append(append([]byte(nil), text...), text...), "an error page": []byte("<html>429</html>"),
		"text in front": append([]byte("x\n"), text...), "a certificate": asPEM(der), "a file without end": make([]byte, 4<<20+1),
	} {
		_, err = snp.ParseCRL(b)
		require.Error(t, err, name)
	}
}

// sharedLab has one set of keys for all processes of a fuzzer: its workers get the seeds of the
// first one, and must know who signed them.
func sharedLab(f *testing.F) *attesttest.Hierarchy {
	f.Helper()
	const name = "ENCLAVE_FUZZ_LAB"
	dir := os.Getenv(name)
	if dir == "" {
		dir = f.TempDir()
		f.Setenv(name, dir)
	}
	h, err := attesttest.NewHierarchy(dir, attesttest.SmallKeys())
	require.NoError(f, err)
	return h
}

func FuzzParseCRL(f *testing.F) {
	h := sharedLab(f)
	roots, err := snp.TestRoots(h.Roots())
	require.NoError(f, err)
	signed := map[string]bool{}
	for _, revoked := range []bool{false, true} {
		der, bad := h.CRL(time.Unix(0, 0), time.Unix(1<<32, 0), revoked)
		require.NoError(f, bad)
		l, bad := x509.ParseRevocationList(der)
		require.NoError(f, bad)
		signed[string(l.RawTBSRevocationList)] = true
		f.Add(der)
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	}
	f.Add([]byte("-----BEGIN X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := roots.List(b); err != nil {
			return
		}
		l, err := snp.ParseCRL(b)
		require.NoError(t, err)
		require.True(t, signed[string(l.RawTBSRevocationList)], "nobody signed this")
	})
}
