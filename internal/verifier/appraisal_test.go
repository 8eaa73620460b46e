package verifier_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/certs"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
)

// court is an Appraisal of production with a lab's keys and a certificate store.
type court struct {
	t    testing.TB
	dir  string
	lab  *attesttest.Hierarchy
	chip *attesttest.Chip
	a    *verifier.Appraisal

	config config.Controller
}

func newCourt(t testing.TB) *court {
	t.Helper()
	k := &court{t: t, dir: t.TempDir()}
	var err error
	k.lab, err = attesttest.NewHierarchy(t.TempDir(), attesttest.SmallKeys())
	require.NoError(t, err)
	k.chip, err = k.lab.Chip("n1")
	require.NoError(t, err)
	level := attesttest.CurrentTCB()
	k.write("roots/lab.pem", k.lab.Roots())
	k.write("policy.d/default.yaml", fmt.Appendf(nil, "name: default\nreference_values: [{name: lab, measurement: %s, covers: [firmware, kernel, rootfs]}]\n"+
		"minimum_tcb: {milan: {bl: %d, tee: %d, snp: %d, ucode: %d}}\nallow_simulated: true\n",
		attesttest.LabMeasurement(), level.Bootloader, level.TEE, level.SNP, level.Microcode))
	k.config = config.Controller{
		AllowSimulated: true, SimulatedRoots: k.path("roots"), Certificates: k.path("certs"), Policies: k.path("policy.d"), Policy: "default",
	}
	k.a, err = verifier.LoadAppraisal(k.config)
	require.NoError(t, err)
	require.NoError(t, k.a.Refresh(), "a store that is not there is empty")
	return k
}

func (k *court) path(name string) string { return filepath.Join(k.dir, name) }

func (k *court) write(name string, b []byte) {
	k.t.Helper()
	require.NoError(k.t, os.MkdirAll(filepath.Dir(k.path(name)), 0o755))
	require.NoError(k.t, os.WriteFile(k.path(name), b, 0o644))
}

// put stores as enclave certs sync does.
func (k *court) put(name string, b []byte) {
	k.t.Helper()
	require.NoError(k.t, os.MkdirAll(k.path("certs"), 0o755))
	s, err := certs.Open(k.path("certs"))
	require.NoError(k.t, err)
	defer func() { require.NoError(k.t, s.Close()) }()
	require.NoError(k.t, s.Write(name, b))
}

// check is one check's result for evidence with these certificates.
func (k *court) check(name string, certificates []byte) enclave.Check {
	k.t.Helper()
	c := claim.Claim{Cluster: "c1", Node: "n1", HPKE: make([]byte, claim.HPKESize), Purpose: claim.PurposeEnrol, Nonce: enclave.Nonce{1}}
	data, err := c.ReportData()
	require.NoError(k.t, err)
	report, err := k.chip.Signed(k.chip.Report(data))
	require.NoError(k.t, err)
	res := k.a.Identify(enclave.Evidence{Report: report, Certificates: certificates}, c)
	for _, x := range res.Checks {
		if x.Name == name {
			return x
		}
	}
	k.t.Fatalf("no check %s in %v", name, res.Checks)
	return enclave.Check{}
}

func (k *court) crl(from, to time.Duration, revoked bool) []byte {
	k.t.Helper()
	b, err := k.lab.CRL(time.Now().Add(from), time.Now().Add(to), revoked)
	require.NoError(k.t, err)
	return b
}

func TestStoredCertificateIsUsedWhereTheHostGaveNone(t *testing.T) {
	t.Parallel()
	k := newCourt(t)
	assert.Equal(t, enclave.CheckPass, k.check("signature", k.chip.Table()).Result)
	c := k.check("chain", nil)
	assert.Equal(t, enclave.CheckFail, c.Result)
	assert.Contains(t, c.Reason, "there is no certificate of the VCEK")
	key := certs.Key{Product: "milan", Chip: k.chip.ID, TCB: k.chip.TCB}
	k.put(key.Path(), k.chip.Certificate)
	assert.Equal(t, enclave.CheckPass, k.check("signature", nil).Result, "at once")
	assert.Equal(t, enclave.CheckPass, k.check("signature", k.lab.Roots()).Result, "a host may give the keys above it alone")
	assert.Equal(t, enclave.CheckFail, k.check("chain", []byte("garbage")).Result, "what a host gave and is wrong is not replaced")
	k.put(key.Path(), []byte("garbage"))
	assert.Equal(t, enclave.CheckFail, k.check("chain", nil).Result)
	k.a.Learn(nil) // does not mind
}

func TestListsOfTheStore(t *testing.T) {
	t.Parallel()
	k := newCourt(t)
	crl := func() enclave.Check { return k.check("crl", k.chip.Table()) }
	assert.Equal(t, "no CRL given, and the policy does not require one", crl().Reason)

	k.put("milan-vcek.crl", k.crl(-time.Hour, time.Hour, false))
	require.NoError(t, k.a.Refresh())
	assert.Equal(t, enclave.CheckPass, crl().Result)
	require.NoError(t, k.a.Refresh())

	k.put("milan-vcek.crl", []byte("<html>"))
	require.ErrorContains(t, k.a.Refresh(), "read revocation list milan-vcek.crl: parse CRL")
	require.NoError(t, k.a.Refresh(), "said once")
	assert.Equal(t, "SEV-Milan is not revoked", crl().Reason, "the last good one stays")

	k.put("milan-vcek.crl", k.crl(-time.Minute, time.Hour, true))
	require.NoError(t, k.a.Refresh())
	assert.Equal(t, enclave.CheckFail, crl().Result)
	assert.Contains(t, crl().Reason, "SEV-Milan is revoked since")

	k.put("milan-vcek.crl", k.crl(-time.Hour, time.Hour, false))
	require.ErrorContains(t, k.a.Refresh(), "the newest so far of")
	assert.Equal(t, enclave.CheckFail, crl().Result, "an older list takes no revocation back")

	require.NoError(t, os.Remove(k.path("certs/milan-vcek.crl")))
	require.NoError(t, k.a.Refresh())
	assert.Contains(t, crl().Reason, "no CRL given", "an admin may take a list away")
	k.put("milan-vcek.crl", k.crl(-time.Hour, time.Hour, false))
	require.ErrorContains(t, k.a.Refresh(), "the newest so far of", "and can't put an older one there for it")
	assert.Contains(t, crl().Reason, "no CRL given")
}

func TestAnOlderListDoesNotComeInWithAReload(t *testing.T) {
	t.Parallel()
	k := newCourt(t)
	k.put("milan-vcek.crl", k.crl(-time.Minute, time.Hour, true))
	require.NoError(t, k.a.Refresh())
	reload := func() error {
		next, err := verifier.LoadAppraisal(k.config)
		require.NoError(t, err)
		next.Follow(k.a)
		k.a = next
		return next.Refresh()
	}
	require.NoError(t, reload(), "the same list")
	revoked := func() enclave.Check { return k.check("crl", k.chip.Table()) }
	require.Equal(t, enclave.CheckFail, revoked().Result)
	k.put("milan-vcek.crl", k.crl(-time.Hour, time.Hour, false))
	require.ErrorContains(t, reload(), "the newest so far of")
	assert.Equal(t, enclave.CheckFail, revoked().Result, "the revocation stays in force")
	require.NoError(t, os.Remove(k.path("certs/milan-vcek.crl")))
	require.NoError(t, reload())
	k.put("milan-vcek.crl", k.crl(-time.Hour, time.Hour, false))
	require.ErrorContains(t, reload(), "the newest so far of", "nor in two steps")
	k.put("milan-vcek.crl", k.crl(-time.Second, time.Hour, false))
	require.NoError(t, reload())
	assert.Equal(t, enclave.CheckPass, revoked().Result, "a newer one counts")
}

func TestCertificatesAreVerifiedAhead(t *testing.T) {
	t.Parallel()
	k := newCourt(t)
	other, err := k.lab.Chip("n2")
	require.NoError(t, err)
	k.put(certs.Key{Product: "milan", Chip: k.chip.ID, TCB: k.chip.TCB}.Path(), k.chip.Certificate)
	assert.Zero(t, k.a.Known())
	k.a.Learn([][]byte{other.Certificate, []byte("garbage")})
	assert.Equal(t, 2, k.a.Known(), "the one that was seen and the one of the store")
	assert.Equal(t, enclave.CheckPass, k.check("signature", k.chip.Table()).Result)
	assert.Equal(t, 2, k.a.Known(), "the report's was known")
}
