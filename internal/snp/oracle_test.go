package snp_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	pb "github.com/google/go-sev-guest/proto/sevsnp"
	sgtest "github.com/google/go-sev-guest/testing"
	"github.com/google/go-sev-guest/validate"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/google/go-sev-guest/verify/trust"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// oracle is go-sev-guest's own verify and validate, asked for a second opinion.
type oracle struct {
	roots map[string][]*trust.AMDRootCerts
}

// judge gives the library's opinion; differs names the reason where it can't have ours.
func (o oracle) judge(report, cert []byte, at time.Time) (differs string, err error) {
	if len(report) > snp.ReportSize {
		return "it ignores bytes behind the report", nil
	}
	p, err := abi.ReportToProto(report)
	if err != nil {
		return "", err
	}
	if p.GetVersion() >= abi.ReportVersion3 && (report[0x188] == 0x1a || report[0x189] >= 0xa0) {
		return "it knows no Turin's patch levels and no Siena or Bergamo", nil
	}
	if p.GetCpuid1EaxFms() != 0 && report[0x189] == 0 {
		return "it knows Milan's model 1 only, AMD names 0 to 15", nil
	}
	info, err := abi.ParseSignerInfo(p.GetSignerInfo())
	if err != nil {
		return "", err
	}
	chain := &pb.CertificateChain{VcekCert: cert}
	if info.SigningKey == abi.VlekReportSigner {
		if o.roots == nil {
			return "its default roots have no key for VLEKs", nil
		}
		chain = &pb.CertificateChain{VlekCert: cert}
	}
	opt := verify.DefaultOptions()
	opt.DisableCertFetching, opt.Now = true, at
	if o.roots != nil {
		opt.TrustedRoots = o.roots
	}
	attestation := &pb.Attestation{Report: p, CertificateChain: chain}
	if err := verify.SnpAttestation(attestation, opt); err != nil {
		return "", err
	}
	return "", validate.SnpAttestation(attestation, &validate.Options{
		GuestPolicy: abi.SnpPolicy{SMT: true, Debug: true, MigrateMA: true, CXLAllowed: true}, PermitProvisionalFirmware: true,
	})
}

// compare says what the library says, or why it doesn't count.
func (o oracle) compare(t *testing.T, report, cert []byte, at time.Time, ours snp.Result) {
	t.Helper()
	differs, err := o.judge(report, cert, at)
	if differs != "" {
		t.Log("the library is not asked: " + differs)
		return
	}
	assert.Equal(t, err == nil, ours.Genuine, "the library says %v, we say %v", err, ours.Checks)
}

// signer is the library's own test hierarchy, for what nobody else has AMD's keys: reports with
// wrong fields and good signatures.
type signer struct {
	*sgtest.AmdSigner
	line  string
	roots snp.Roots
}

func newSigner(t *testing.T, product string, tcb kds.TCBParts) signer {
	t.Helper()
	line := kds.ProductLineOfProductName(product)
	level, err := kds.ComposeTCBParts(tcb)
	require.NoError(t, err)
	b := sgtest.AmdSignerBuilder{Keys: sgtest.DefaultAmdKeys(), ProductName: product, CSPID: "lab", TCB: level, HWID: [64]byte{1, 2, 3}}
	now := time.Now()
	b.VcekCustom.Extensions = sgtest.CustomExtensions(tcb, b.HWID[:], "", product)
	b.VlekCustom.Extensions = sgtest.CustomExtensions(tcb, nil, "lab", line)
	b.ArkCreationTime, b.AskCreationTime, b.AsvkCreationTime, b.VcekCreationTime, b.VlekCreationTime = now, now, now, now, now
	s, err := b.TestOnlyCertChain()
	require.NoError(t, err)
	roots, err := snp.TestRoots(append(bytes.Clone(s.Ask.Raw), s.Ark.Raw...), append(bytes.Clone(s.Asvk.Raw), s.Ark.Raw...))
	require.NoError(t, err)
	return signer{s, line, roots}
}

func (s signer) oracle() oracle {
	return oracle{map[string][]*trust.AMDRootCerts{s.line: {{
		ProductLine: s.line, ProductCerts: &trust.ProductCerts{Ark: s.Ark, Ask: s.Ask, Asvk: s.Asvk},
	}}}}
}

func (s signer) sign(t *testing.T, r attesttest.Report, bend func([]byte)) []byte {
	t.Helper()
	b := r.Marshal()
	if bend != nil {
		bend(b)
	}
	key := s.Keys.Vcek
	if r.SignerInfo>>2&7 == 1 {
		key = s.Keys.Vlek
	}
	sum := sha512.Sum384(abi.SignedComponent(b))
	x, y, err := ecdsa.Sign(rand.Reader, key, sum[:])
	require.NoError(t, err)
	require.NoError(t, abi.SetSignature(x, y, b))
	return b
}

// TestOracleAgreesOnSignedReports bends one field each and signs: a signature must not be the only
// thing that refuses what the firmware would never write.
func TestOracleAgreesOnSignedReports(t *testing.T) {
	t.Parallel()
	level := kds.TCBParts{BlSpl: 4, SnpSpl: 24, UcodeSpl: 219}
	for _, p := range []struct {
		name          string
		family, model byte
	}{{"Milan-B0", 0x19, 0x01}, {"Genoa-B1", 0x19, 0x11}} {
		s := newSigner(t, p.name, level)
		for version := uint32(1); version <= 6; version++ {
			base := attesttest.Report{
				Version: version, Policy: attesttest.PolicyReserved | attesttest.PolicySMT, SignatureAlgorithm: abi.SignEcdsaP384Sha384, PlatformInfo: 0x25,
				Family: p.family, Model: p.model, Stepping: 1, ChipID: s.HWID, Measurement: attesttest.LabMeasurement(), ReportData: [64]byte{1},
				CurrentTCB: uint64(s.TCB), ReportedTCB: uint64(s.TCB), CommittedTCB: uint64(s.TCB), LaunchTCB: uint64(s.TCB),
			}
			if version < 3 {
				base.Family, base.Model, base.Stepping = 0, 0, 0
			}
			if version == 2 && p.family == 0x19 && p.model == 0x11 {
				continue // the library takes every version 2 report for a Milan's
			}
			for name, bend := range bends() {
				t.Run(fmt.Sprintf("%s version %d, %s", p.name, version, name), func(t *testing.T) {
					r, b := base, []byte(nil)
					late := bend(&r)
					b = s.sign(t, r, late)
					cert := s.Vcek.Raw
					if r.SignerInfo>>2&7 == 1 {
						cert = s.Vlek.Raw
					}
					chain, err := snp.ParseCertificates(cert)
					require.NoError(t, err)
					res := snp.Verify(b, chain, snp.Options{Roots: s.roots, At: time.Now()})
					s.oracle().compare(t, b, cert, time.Now(), res)
					if name == "as it should be" || name == "signed by a VLEK" {
						assert.Equal(t, version >= 2 && version <= 5, res.Genuine, "%v", res.Checks)
					}
				})
			}
		}
	}
}

// bends are what is changed before the report is signed; one may bend its bytes once more.
func bends() map[string]func(r *attesttest.Report) func([]byte) {
	set := func(f func(*attesttest.Report)) func(*attesttest.Report) func([]byte) {
		return func(r *attesttest.Report) func([]byte) { f(r); return nil }
	}
	at := func(i int) func(*attesttest.Report) func([]byte) {
		return func(*attesttest.Report) func([]byte) { return func(b []byte) { b[i] ^= 1 } }
	}
	return map[string]func(*attesttest.Report) func([]byte){
		"as it should be":               set(func(*attesttest.Report) {}),
		"signed by a VLEK":              set(func(r *attesttest.Report) { r.SignerInfo, r.ChipID = 1<<2, enclave.ChipID{} }),
		"chip masked":                   set(func(r *attesttest.Report) { r.ChipID = enclave.ChipID{} }),
		"another chip":                  set(func(r *attesttest.Report) { r.ChipID[63] = 1 }),
		"chip key masked":               set(func(r *attesttest.Report) { r.SignerInfo = 1 << 1 }),
		"author key":                    set(func(r *attesttest.Report) { r.SignerInfo, r.AuthorKeyDigest[0] = 1, 1 }),
		"no signing key":                set(func(r *attesttest.Report) { r.SignerInfo = 7 << 2 }),
		"reserved signing key":          set(func(r *attesttest.Report) { r.SignerInfo = 2 << 2 }),
		"reserved bit of signer info":   set(func(r *attesttest.Report) { r.SignerInfo = 1 << 5 }),
		"debug":                         set(func(r *attesttest.Report) { r.Policy |= attesttest.PolicyDebug }),
		"migration agent":               set(func(r *attesttest.Report) { r.Policy |= attesttest.PolicyMigrate }),
		"reserved policy bit clear":     set(func(r *attesttest.Report) { r.Policy &^= attesttest.PolicyReserved }),
		"unknown policy bit":            set(func(r *attesttest.Report) { r.Policy |= 1 << 26 }),
		"page swap disabled":            set(func(r *attesttest.Report) { r.Policy |= 1 << 25 }),
		"VMPL 1":                        set(func(r *attesttest.Report) { r.VMPL = 1 }),
		"VMPL 4":                        set(func(r *attesttest.Report) { r.VMPL = 4 }),
		"all platform bits":             set(func(r *attesttest.Report) { r.PlatformInfo = 0xff }),
		"another patch level":           set(func(r *attesttest.Report) { r.ReportedTCB ^= 1 << 48 }),
		"older patch level committed":   set(func(r *attesttest.Report) { r.CommittedTCB -= 1 << 48 }),
		"reserved byte of patch levels": set(func(r *attesttest.Report) { r.ReportedTCB |= 1 << 24 }),
		"algorithm 0":                   set(func(r *attesttest.Report) { r.SignatureAlgorithm = 0 }),
		"algorithm 2":                   set(func(r *attesttest.Report) { r.SignatureAlgorithm = 2 }),
		"a Milan processor":             set(func(r *attesttest.Report) { r.Family, r.Model = 0x19, 0x00 }),
		"a Genoa processor":             set(func(r *attesttest.Report) { r.Family, r.Model = 0x19, 0x11 }),
		"an unknown processor":          set(func(r *attesttest.Report) { r.Family, r.Model = 0x17, 0x31 }),
		"no processor":                  set(func(r *attesttest.Report) { r.Family, r.Model, r.Stepping = 0, 0, 0 }),
		"mitigations":                   set(func(r *attesttest.Report) { r.LaunchMitigations, r.CurrentMitigations = 1, 3 }),
		"reserved 4c":                   at(0x4c),
		"reserved 18b":                  at(0x18b),
		"reserved 1eb":                  at(0x1eb),
		"reserved 1ef":                  at(0x1ef),
		"reserved 208":                  at(0x208),
		"reserved 29f":                  at(0x29f),
	}
}

func TestOracleAgreesOnChangedBytesOfARealReport(t *testing.T) {
	t.Parallel()
	report := testdata.AttestationBytes[:snp.ReportSize]
	amd, err := snp.AMDRoots()
	require.NoError(t, err)
	chain, err := snp.ParseCertificates(testdata.VcekBytes)
	require.NoError(t, err)
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	opt := snp.Options{Roots: amd, At: at, Memo: snp.NewMemo(10)}
	require.True(t, snp.Verify(report, chain, opt).Genuine)
	o := oracle{}
	o.compare(t, report, testdata.VcekBytes, at, snp.Verify(report, chain, opt))
	for i := 0; i < snp.ReportSize; i += 13 {
		changed := append([]byte(nil), report...)
		changed[i] ^= 0x10
		res := snp.Verify(changed, chain, opt)
		assert.False(t, res.Genuine, "byte %#x", i)
		assert.Contains(t, []enclave.CheckResult{enclave.CheckFail}, firstFailed(res).Result, "byte %#x", i)
		o.compare(t, changed, testdata.VcekBytes, at, res)
	}
}
