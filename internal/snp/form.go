package snp

import (
	"encoding/binary"

	"github.com/google/go-sev-guest/abi"
	pb "github.com/google/go-sev-guest/proto/sevsnp"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// The report versions whose layout is known (AMD publication 56860).
const (
	minVersion = abi.MinSupportedReportVersion
	maxVersion = abi.MaxSupportedReportVersion
)

// parse reads the fields that are there; length says whether all are, and nothing more.
func (v *verification) parse() (enclave.CheckResult, string) {
	if len(v.report) < 4 {
		if len(v.report) == 0 {
			return fail("the report is empty")
		}
		return fail("%d bytes hold no report", len(v.report))
	}
	var whole [ReportSize]byte
	copy(whole[:], v.report)
	p, err := abi.ReportToProto(whole[:])
	if err != nil {
		return fail("the report (it says version %d) is malformed: %.80s", binary.LittleEndian.Uint32(whole[:]), err.Error())
	}
	v.proto = p
	if len(v.report) != ReportSize {
		return pass("the bytes that are there parse")
	}
	return pass("all fields parse")
}

// length is exact: bytes behind the signature are not signed, and the library ignores them.
func (v *verification) length() (enclave.CheckResult, string) {
	switch n := len(v.report); {
	case n < ReportSize:
		return fail("the report is cut off: %d bytes, want %d", n, ReportSize)
	case n > ReportSize:
		return fail("the report is too long: %d bytes, want %d", n, ReportSize)
	}
	return pass("%d bytes", ReportSize)
}

func (v *verification) version() (enclave.CheckResult, string) {
	n := v.proto.GetVersion()
	if n < minVersion || n > maxVersion {
		return fail("unknown report version %d, known are %d to %d", n, minVersion, maxVersion)
	}
	v.fill()
	return pass("version %d", n)
}

// fill copies the fields out of a report whose form is known.
func (v *verification) fill() {
	p, r := v.proto, &v.res.SNPReport
	r.Version = p.GetVersion()
	r.Policy = p.GetPolicy()
	if policy, err := abi.ParseSnpPolicy(r.Policy); err == nil { // parse refused it otherwise
		r.Debug, r.MigrationAgent, r.SMT = policy.Debug, policy.MigrateMA, policy.SMT
	}
	r.VMPL = p.GetVmpl()
	v.setProduct("", "") // Milan's layout of the patch levels until the product is known
	copy(r.Measurement[:], p.GetMeasurement())
	copy(r.ReportData[:], p.GetReportData())
	copy(r.HostData[:], p.GetHostData())
	copy(r.ReportID[:], p.GetReportId())
	copy(r.ChipID[:], p.GetChipId())
	r.GuestSVN, r.PlatformInfo = p.GetGuestSvn(), p.GetPlatformInfo()
	copy(r.IDKeyDigest[:], p.GetIdKeyDigest())
	copy(r.AuthorKeyDigest[:], p.GetAuthorKeyDigest())
	r.LaunchMitigations, r.CurrentMitigations = p.GetLaunchMitVector(), p.GetCurrentMitVector()
	r.Signer = signerOf(p)
	v.kind = kind(r.Signer)
	v.cert = v.chain.Endorsement(r.Signer)
}

func signerOf(p *pb.Report) string {
	info, err := abi.ParseSignerInfo(p.GetSignerInfo())
	if err != nil {
		return "none"
	}
	switch info.SigningKey {
	case abi.VcekReportSigner:
		return string(vcek)
	case abi.VlekReportSigner:
		return string(vlek)
	}
	return "none"
}

// product asks the report's processor and the certificate's issuer, who must agree. A version 2
// report, or one whose firmware left the processor out, does not name it: then the issuer alone
// says it, and the chain proves it.
func (v *verification) product() (enclave.CheckResult, string) {
	named := ""
	if v.res.Version >= abi.ReportVersion3 && v.proto.GetCpuid1EaxFms() != 0 {
		product, part, err := partOf(v.report[0x188], v.report[0x189], v.report[0x18a])
		if err != nil {
			return fail("the report's processor %v", err)
		}
		named = product
		v.setProduct(product, part)
	}
	if v.cert == nil {
		if named == "" {
			return unknown("the report, of version %d, does not name its product, and there is no certificate that does", v.res.Version)
		}
		return pass("%s, as the report says", v.res.Part)
	}
	cn := v.cert.Issuer.CommonName
	i, ok := issuerOf(cn)
	switch {
	case !ok:
		return fail("the certificate's issuer %q is no AMD product's", cn)
	case named == "":
		v.setProduct(i.product, i.product)
	case named != i.product:
		return fail("the report is of a %s, the certificate of a %s", named, i.product)
	}
	v.issuer = i
	return pass("%s", v.res.Part)
}

func (v *verification) setProduct(product, part string) {
	p, r := v.proto, &v.res.SNPReport
	r.Product, r.Part = product, part
	r.CurrentTCB = tcbOf(product, p.GetCurrentTcb())
	r.ReportedTCB = tcbOf(product, p.GetReportedTcb())
	r.CommittedTCB = tcbOf(product, p.GetCommittedTcb())
	r.LaunchTCB = tcbOf(product, p.GetLaunchTcb())
}
