package snp

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-sev-guest/abi"
	pb "github.com/google/go-sev-guest/proto/sevsnp"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
)

// ReportSize is the length of a report, every version's.
const ReportSize = abi.ReportSize

// Options is what a report is judged by.
type Options struct {
	Roots Roots
	At    time.Time              // the verifier's clock; the zero time is refused
	CRLs  []*x509.RevocationList // of any products; none: the check crl is unknown
	Memo  *Memo                  // of signatures above the report's; nil: each is verified again
}

// Result is what Verify found. Its fields come from the report and are hearsay until Genuine.
type Result struct {
	enclave.SNPReport
	NoCertificate bool // nothing failed but that there is no VCEK or VLEK to judge by
}

// notReached is the reason of a check behind one that failed.
const notReached = "not reached"

// verification is one run of Verify; each step fills what the next ones need.
type verification struct {
	report []byte
	chain  Chain
	opt    Options
	res    *Result

	proto  *pb.Report
	kind   kind
	cert   *x509.Certificate
	issuer issuer
	pin    pin
	ext    extensions

	chained bool // a pinned root vouches for cert, and ext is read
}

// step is one named check: what it came to, and why. Reasons are for people.
type step struct {
	name string
	run  func(*verification) (enclave.CheckResult, string)
}

// steps are all checks, in the order of the result.
func steps() []step {
	return []step{
		{"parse", (*verification).parse},
		{"length", (*verification).length},
		{"version", (*verification).version},
		{"product", (*verification).product},
		{"root", (*verification).root},
		{"chain", (*verification).checkChain},
		{"validity", (*verification).validity},
		{"crl", (*verification).crl},
		{"tcb", (*verification).tcb},
		{"hwid", (*verification).hwid},
		{"signature", (*verification).signature},
	}
}

// Verify makes all checks in order. Up to the chain each needs the one before, so the first
// failure ends them and the rest is unknown; behind it all are made, because "expired" and
// "another chip's" are found together and the admin wants both. The report is genuine when all
// passed; only crl may be unknown, when no list was given.
func Verify(report []byte, certs Chain, opt Options) Result {
	res := Result{}
	res.Simulated = opt.Roots.simulated()
	v := &verification{report: report, chain: certs, opt: opt, res: &res}
	genuine, failed := true, false
	for _, s := range steps() {
		c := enclave.Check{Name: s.name, Result: enclave.CheckUnknown, Reason: notReached}
		if !failed {
			c.Result, c.Reason = s.run(v)
		}
		failed = failed || (c.Result == enclave.CheckFail && !v.chained)
		if c.Result != enclave.CheckPass && (s.name != "crl" || c.Result == enclave.CheckFail) {
			genuine = false
		}
		res.Checks = append(res.Checks, c)
	}
	res.Genuine = genuine
	res.Endorsements = v.endorsements()
	return res
}

// endorsements are the inputs of the checks that Verify made, for whoever makes them again. Behind a
// chain that passed they are what AMD has signed and nothing else: whatever a host gives besides is its
// own writing, as long as it likes, and no check would come out another way without it.
func (v *verification) endorsements() enclave.Endorsements {
	e := enclave.Endorsements{Certificates: v.chain.der()}
	if v.chained {
		e.Certificates = v.vouched()
	}
	if v.pin.root == nil {
		return e
	}
	e.Authorities = [][]byte{v.pin.intermediate.Raw, v.pin.root.Raw}
	for _, l := range v.opt.CRLs {
		if bytes.Equal(l.RawIssuer, v.pin.root.RawSubject) {
			e.CRLs = append(e.CRLs, l.Raw)
		}
	}
	return e
}

// vouched are the certificate that was judged, and the pinned ones that came with it.
func (v *verification) vouched() [][]byte {
	out := [][]byte{v.cert.Raw}
	for _, c := range v.chain.others {
		if v.opt.Roots.copyOf(c.Raw) != nil && !slices.ContainsFunc(out, func(b []byte) bool { return bytes.Equal(b, c.Raw) }) {
			out = append(out, c.Raw)
		}
	}
	return out
}

func pass(format string, args ...any) (enclave.CheckResult, string) {
	return enclave.CheckPass, fmt.Sprintf(format, args...)
}

func fail(format string, args ...any) (enclave.CheckResult, string) {
	return enclave.CheckFail, fmt.Sprintf(format, args...)
}

func unknown(format string, args ...any) (enclave.CheckResult, string) {
	return enclave.CheckUnknown, fmt.Sprintf(format, args...)
}
