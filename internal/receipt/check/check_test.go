package check_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt/check"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt/receipttest"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// amd is where the one test hierarchy lies: making its keys takes longer than all checks.
var amd string

func TestMain(m *testing.M) {
	var err error
	if amd, err = os.MkdirTemp("", "amd"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(amd) // the machine's /tmp keeps what could not be removed
	os.Exit(code)
}

func newScene(t *testing.T, simulated bool) *receipttest.Scene {
	t.Helper()
	s, err := receipttest.New(amd, simulated, "n1", "n2", "n3")
	require.NoError(t, err)
	return s
}

func seal(t *testing.T, s *receipttest.Scene) []byte {
	t.Helper()
	file, err := s.Seal()
	require.NoError(t, err)
	return file
}

// trusting is a reader who takes the scene's root for AMD's, and has the centre's key.
func trusting(t *testing.T, s *receipttest.Scene) check.Options {
	t.Helper()
	roots, err := s.Roots()
	require.NoError(t, err)
	return check.Options{Roots: roots, Keys: []ed25519.PublicKey{s.Public()}}
}

// faults are the names of the bad lines, each once.
func faults(r check.Report) string {
	var names []string
	for _, l := range r.Lines {
		if l.Result == check.Bad && !slices.Contains(names, l.Name) {
			names = append(names, l.Name)
		}
	}
	return strings.Join(names, " ")
}

func text(r check.Report) string {
	var b strings.Builder
	for _, l := range r.Lines {
		fmt.Fprintf(&b, "%d %-5s %s %s: %s [%s]\n", l.Level, l.Result, l.Node, l.Name, l.Reason, l.Vouches)
	}
	return b.String()
}

func TestAReceiptOfHardwareHolds(t *testing.T) {
	t.Parallel()
	s := newScene(t, false)
	r := check.Check(seal(t, s), trusting(t, s))
	assert.True(t, r.Good(), text(r))
	assert.True(t, r.Pinned)
	assert.False(t, r.Simulated())
	for _, l := range r.Lines {
		assert.NotEmpty(t, l.Vouches, l.Name)
		assert.NotEmpty(t, l.Reason, l.Name)
		if l.Name == "signature" && l.Node == "n2" {
			assert.Equal(t, check.Hardware, l.Vouches)
		}
		if l.Name == "teardown" {
			assert.Equal(t, check.Attested, l.Vouches)
			assert.Equal(t, check.Statement, l.Result)
		}
	}
	t.Run("without the centre's key it says that nobody pinned it", func(t *testing.T) {
		t.Parallel()
		opt := trusting(t, s)
		opt.Keys = nil
		r := check.Check(seal(t, s), opt)
		assert.True(t, r.Good(), text(r))
		assert.False(t, r.Pinned)
		assert.Contains(t, text(r), check.Unpinned)
		assert.NotContains(t, text(r), "["+check.Signature+"]")
	})
	t.Run("AMD's roots don't vouch for it", func(t *testing.T) {
		t.Parallel()
		opt := trusting(t, s)
		var err error
		opt.Roots, err = snp.AMDRoots()
		require.NoError(t, err)
		r := check.Check(seal(t, s), opt)
		assert.False(t, r.Good())
		assert.NotContains(t, text(r), "["+check.Hardware+"]")
	})
}

func TestASimulatedReceiptHoldsByItsOwnRootAndStaysSimulated(t *testing.T) {
	t.Parallel()
	s := newScene(t, true)
	pinned, err := snp.AMDRoots()
	require.NoError(t, err)
	opt := check.Options{Roots: pinned, Keys: []ed25519.PublicKey{s.Public()}}
	r := check.Check(seal(t, s), opt)
	assert.True(t, r.Good(), text(r))
	assert.True(t, r.Simulated())
	assert.NotContains(t, text(r), "["+check.Hardware+"]")
	assert.Contains(t, text(r), "UNTRUSTED")
}

func TestRenewalsAndANodeThatLeftHold(t *testing.T) {
	t.Parallel()
	s := newScene(t, false)
	p := &s.Statement.Predicate
	for i := range p.Nodes {
		e, err := s.Evidence(p.Nodes[i].Name, claimOf(p.Nodes[i]), claim.PurposeRenew)
		require.NoError(t, err)
		p.Nodes[i].Evidence = append(p.Nodes[i].Evidence, e)
		p.Nodes[i].Renewals = receipt.Renewals{Made: 7, Affirmed: 7, Last: &s.At}
	}
	require.NoError(t, s.AddRoster(p.Rosters[0].Peers[:2], "n3"))
	p.Rosters[1].Refusal = enclave.Refuse("E220", enclave.FaultNode, "revoked")
	p.Verdict, p.Refusal = enclave.VerdictRefused, p.Rosters[1].Refusal
	r := check.Check(seal(t, s), trusting(t, s))
	assert.True(t, r.Good(), text(r))
	assert.Contains(t, text(r), "out of the roster")
}

func TestARefusedJobsReceiptHolds(t *testing.T) {
	t.Parallel()
	s := newScene(t, false)
	p := &s.Statement.Predicate
	p.Verdict, p.Refusal, p.Times.Started = enclave.VerdictRefused, enclave.Refuse("E510", enclave.FaultService, "node n2 never spoke"), nil
	p.Rosters, p.Nodes[1].Evidence, p.Nodes[1].Ready, p.Nodes[1].Teardown = nil, nil, nil, receipt.Teardown{}
	// The third node's report is genuine, and of another chip than the one that is enrolled.
	e := &p.Nodes[2].Evidence[0]
	p.Nodes[2].Enrolled.Chip = attesttest.ChipID("another").String()
	for i := range e.Result.Checks {
		if e.Result.Checks[i].Name == "chip" {
			e.Result.Checks[i].Result = enclave.CheckFail
		}
	}
	e.Result.Status = enclave.StatusContraindicated
	r := check.Check(seal(t, s), trusting(t, s))
	assert.True(t, r.Good(), text(r))
	assert.Contains(t, text(r), "FAIL, as the receipt says")
	assert.Contains(t, text(r), "no report")
}

func claimOf(n receipt.Node) claim.Claim {
	k := n.Evidence[0].Claim
	return claim.Claim{WireGuard: k.WireGuard, Ed25519: k.Ed25519, HPKE: k.HPKE}
}

// A verifier that lies signs whatever it likes: what it can't sign are reports and rosters of
// nodes' own keys. Each of these is sealed again with the right key after it was spoilt.
func TestALyingVerifierIsFoundOut(t *testing.T) {
	t.Parallel()
	other := newScene(t, false)
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, s *receipttest.Scene, p *receipt.Predicate)
		want  string
	}{
		"a swapped node": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Nodes[0].Evidence, p.Nodes[1].Evidence = p.Nodes[1].Evidence, p.Nodes[0].Evidence
		}, "claim"},
		"a swapped node under the other's name": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Nodes[0].Evidence = slices.Clone(p.Nodes[1].Evidence)
			p.Nodes[0].Evidence[0].Claim.Node = "n1"
		}, "report_data"},
		"a dropped node": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) { p.Nodes = p.Nodes[:2] }, "node_list"},
		"a node dropped from job, list and roster": {func(t *testing.T, s *receipttest.Scene, p *receipt.Predicate) {
			p.Nodes, p.Job.Nodes, p.Rosters[0].Peers = p.Nodes[:2], p.Job.Nodes[:2], p.Rosters[0].Peers[:2]
			subject, err := receipt.SubjectOf(p.Job)
			require.NoError(t, err)
			s.Statement.Subject = []receipt.Subject{subject}
		}, "roster"},
		"a node without evidence": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Nodes[1].Evidence = []receipt.Evidence{}
		}, "roster_keys"},
		"another job's report": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Job.Job = 4712
			p.Nodes[0].Evidence[0].Claim.Job = 4712
		}, "report_data"},
		"another job's roster": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Rosters = other.Statement.Predicate.Rosters
		}, "roster"},
		"another tenant's folder": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) { p.Tenant.Subtree = "proj/astro" }, "roster"},
		"a replaced policy text": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Policy.Text = strings.Replace(p.Policy.Text, "snp: 24", "snp: 25", 1)
		}, "policy"},
		"a replaced policy text and digest": {func(t *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Policy.Text = strings.Replace(p.Policy.Text, "# What", "# that", 1)
			own, err := appraise.Load(strings.NewReader(p.Policy.Text))
			require.NoError(t, err)
			p.Policy.Digest = own.Digest()
			for i := range p.Nodes {
				p.Nodes[i].Evidence[0].Claim.Policy = own.Digest()
			}
		}, "report_data"},
		"a leaf with another tunnel key": {func(t *testing.T, s *receipttest.Scene, p *receipt.Predicate) {
			peers := slices.Clone(p.Rosters[0].Peers)
			peers[1].Key[0]++
			p.Rosters = nil
			require.NoError(t, s.AddRoster(peers, ""))
		}, "roster_keys"},
		"a node nobody attested on the roster": {func(t *testing.T, s *receipttest.Scene, p *receipt.Predicate) {
			peers := slices.Clone(p.Rosters[0].Peers)
			extra := peers[0]
			extra.Node, extra.Key = "n9", enclave.PublicKey{9}
			p.Rosters = nil
			require.NoError(t, s.AddRoster(append(peers, extra), ""))
		}, "roster_keys"},
		"a node that left and stayed": {func(t *testing.T, s *receipttest.Scene, p *receipt.Predicate) {
			require.NoError(t, s.AddRoster(p.Rosters[0].Peers, "n3"))
		}, "roster_keys"},
		"a dropped epoch": {func(t *testing.T, s *receipttest.Scene, p *receipt.Predicate) {
			require.NoError(t, s.AddRoster(p.Rosters[0].Peers[:2], "n3"))
			p.Rosters = p.Rosters[1:]
		}, "roster"},
		"a swapped nonce": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Nodes[0].Evidence[0].Claim.Nonce[0]++
		}, "report_data"},
		"a report shown twice": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Nodes[0].Evidence = append(p.Nodes[0].Evidence, p.Nodes[0].Evidence[0])
		}, "claim"},
		"a report whose bytes differ": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			e := &p.Nodes[0].Evidence[0]
			e.Report[0x50]++
			e.Digest = receipt.EvidenceDigest(e.Report)
		}, "signature"},
		"a digest that is another's": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) { p.Nodes[0].Evidence[0].Digest[0]++ }, "digest"},
		"a failed check called passed": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Nodes[0].Enrolled.Chip = attesttest.ChipID("another").String()
		}, "chip"},
		"a passed check called failed": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Nodes[0].Evidence[0].Result.Checks[3].Result = enclave.CheckFail
		}, "product"},
		"a measurement that nobody reported": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Nodes[0].Evidence[0].Result.Measurement = strings.Repeat("0", 96)
		}, "result"},
		"a certificate under another's digest": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			d := p.Nodes[0].Evidence[0].Certificates[0].String()
			p.Documents[d] = append(bytes.Clone(p.Documents[d]), 0)
		}, "documents"},
		"a revocation list left out": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) { p.Nodes[0].Evidence[0].CRLs = nil }, "crl"},
		"a time at which no certificate was valid": {func(_ *testing.T, s *receipttest.Scene, p *receipt.Predicate) {
			p.Nodes[0].Evidence[0].At = s.At.AddDate(9, 0, 0)
		}, "validity"},
		"another verifier's key": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Verifier.Key = other.Statement.Predicate.Verifier.Key
		}, "key"},
		"a swapped signing key": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Signer.Key = other.Statement.Predicate.Signer.Key
		}, "signature"},
		"a verdict too good": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) {
			p.Refusal = enclave.Refuse("E220", enclave.FaultNode, "x")
		}, "verdict"},
		"a job that never ended":                 {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) { p.Times.Ended = nil }, "verdict"},
		"a job that did not start":               {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) { p.Times.Started = nil }, "verdict"},
		"a job that was swapped":                 {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) { p.Job.User = "mallory" }, "subject"},
		"weak called strong":                     {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) { p.Weak = true }, "outcome"},
		"a number out of the chain":              {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) { p.Chain.Sequence = 7 }, "verdict"},
		"simulated called so beside a real type": {func(_ *testing.T, _ *receipttest.Scene, p *receipt.Predicate) { p.Simulated = true }, "type"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			s := newScene(t, false)
			before := faults(check.Check(seal(t, s), trusting(t, s)))
			require.Empty(t, before, "it held before")
			tt.spoil(t, s, &s.Statement.Predicate)
			r := check.Check(seal(t, s), trusting(t, s))
			assert.Contains(t, strings.Fields(faults(r)), tt.want, text(r))
		})
	}
}

// P8: whatever is done to a lab's receipt, it does not come to look like one of hardware.
func TestP8SimulatedEvidenceNeverVerifiesAsReal(t *testing.T) {
	t.Parallel()
	pinned, err := snp.AMDRoots()
	require.NoError(t, err)
	retype := func(s *receipttest.Scene) {
		p := &s.Statement.Predicate
		s.Statement.PredicateType, p.Simulated, p.Verdict = receipt.TypeReal, false, enclave.VerdictProtected
		for i := range p.Nodes {
			p.Nodes[i].Evidence[0].Result.Simulated = false
		}
		for i := range p.Authorities {
			p.Authorities[i].Simulated = false
		}
	}
	t.Run("with the type changed, by its own key", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, true)
		s.Statement.PredicateType = receipt.TypeReal
		r := check.Check(seal(t, s), check.Options{Roots: pinned})
		assert.Subset(t, strings.Fields(faults(r)), []string{"key", "type"}, text(r))
	})
	t.Run("with every word changed, by its own key", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, true)
		retype(s)
		r := check.Check(seal(t, s), check.Options{Roots: pinned})
		assert.Subset(t, strings.Fields(faults(r)), []string{"key", "roster", "chain"}, text(r))
		assert.NotContains(t, text(r), "["+check.Hardware+"]")
	})
	t.Run("with every word changed, by the real key", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, true)
		retype(s)
		s.Statement.Predicate.Signer = receipt.Endorse(s.Verifier, receipt.RoleReal, s.Real.Public().(ed25519.PublicKey))
		file, err := receipt.Seal(s.Real, s.Statement)
		require.NoError(t, err)
		r := check.Check(file, check.Options{Roots: pinned})
		assert.Contains(t, strings.Fields(faults(r)), "chain", text(r))
		assert.NotContains(t, text(r), "["+check.Hardware+"]")
	})
	t.Run("its key does not sign real ones, and the other way round", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, false)
		s.Statement.Predicate.Signer = receipt.Endorse(s.Verifier, receipt.RoleSimulated, s.Fake.Public().(ed25519.PublicKey))
		file, err := receipt.Seal(s.Fake, s.Statement)
		require.NoError(t, err)
		assert.Contains(t, faults(check.Check(file, check.Options{Roots: pinned})), "key")
		opt := trusting(t, s)
		assert.Contains(t, faults(check.Check(file, opt)), "signature", "nor is it the pinned key")
	})
}

func TestTheReadersOwnPolicyIsAppliedInPlaceOfTheReceipts(t *testing.T) {
	t.Parallel()
	s := newScene(t, false)
	opt := trusting(t, s)
	same, err := appraise.Load(strings.NewReader("# mine\n" + receipttest.PolicyText(false)))
	require.NoError(t, err)
	opt.Policy = &same
	r := check.Check(seal(t, s), opt)
	assert.True(t, r.Good(), text(r))
	stricter, err := appraise.Load(strings.NewReader(strings.Replace(receipttest.PolicyText(false), "snp: 24", "snp: 25", 1)))
	require.NoError(t, err)
	opt.Policy = &stricter
	r = check.Check(seal(t, s), opt)
	assert.Contains(t, strings.Fields(faults(r)), "tcb_minimum", text(r))
}

func TestAFlippedByteIsRefusedWhereverItIs(t *testing.T) {
	t.Parallel()
	s, err := receipttest.New(amd, true, "n1")
	require.NoError(t, err)
	file := seal(t, s)
	require.True(t, check.Check(file, check.Options{}).Good())
	for i := range file {
		bit := byte(1) << (i % 8)
		file[i] ^= bit
		if o, err := receipt.Open(file); err == nil { // else Check says no, too
			require.Errorf(t, o.CheckSignature(s.Public()), "byte %d", i)
		}
		if i%97 == 0 { // all that Check does besides would take minutes
			require.Falsef(t, check.Check(file, check.Options{}).Good(), "byte %d", i)
		}
		file[i] ^= bit
	}
}

func TestAMalleatedReportIsTheSameEvidence(t *testing.T) {
	t.Parallel()
	s := newScene(t, false)
	e := &s.Statement.Predicate.Nodes[0].Evidence[0]
	before := e.Digest
	e.Report = attesttest.NegateS(e.Report)
	r := check.Check(seal(t, s), trusting(t, s))
	assert.True(t, r.Good(), text(r))
	assert.Equal(t, before, receipt.EvidenceDigest(e.Report))
}

func FuzzCheck(f *testing.F) {
	s, err := receipttest.New(amd, true, "n1")
	require.NoError(f, err)
	// Every worker of the fuzzer is a process with a scene of its own, and checks the seeds of another's.
	s.Fake = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	s.Statement.Predicate.Signer = receipt.Endorse(s.Verifier, receipt.RoleSimulated, s.Fake.Public().(ed25519.PublicKey))
	file, err := s.Seal()
	require.NoError(f, err)
	f.Add(file)
	f.Add([]byte("{}\n"))
	small := s.Statement
	small.Predicate.Nodes, small.Predicate.Documents, small.Predicate.Rosters = nil, nil, []receipt.Roster{{Peers: []enclave.Peer{{}}}}
	file, err = receipt.Seal(s.Fake, small)
	require.NoError(f, err)
	f.Add(file)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := check.Check(b, check.Options{})
		for _, l := range r.Lines {
			require.NotEqual(t, check.Hardware, l.Vouches, "who trusts no root has no word of AMD's")
		}
		if r.Good() {
			o, err := receipt.Open(b)
			require.NoError(t, err)
			require.NoError(t, o.CheckSignature(r.Key))
		}
	})
}

// FuzzPayload takes what the envelope protects: a verifier may sign anything, and must not crash
// its readers.
func FuzzPayload(f *testing.F) {
	s, err := receipttest.New(amd, true, "n1")
	require.NoError(f, err)
	file, err := s.Seal()
	require.NoError(f, err)
	o, err := receipt.Open(file)
	require.NoError(f, err)
	f.Add(o.Payload())
	header := o.Statement.Predicate.Rosters[0].Header
	_, err = roster.DecodeHeader(header)
	require.NoError(f, err)
	f.Fuzz(func(_ *testing.T, payload []byte) {
		sig := ed25519.Sign(s.Fake, receipt.PAE(receipt.PayloadType, payload))
		check.Check(fmt.Appendf(nil, `{"payload":"%s","payloadType":%q,"signatures":[{"keyid":"%s","sig":"%s"}]}`+"\n",
			base64.StdEncoding.EncodeToString(payload), receipt.PayloadType, o.KeyID, base64.StdEncoding.EncodeToString(sig)), check.Options{})
	})
}
