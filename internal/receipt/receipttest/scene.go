// Package receipttest makes receipts that hold, from a test AMD's keys, for tests that then spoil
// them. A scene that is not simulated is what real hardware would give: its root is then for the
// test to trust, as a reader's own choice.
package receipttest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/attest/attesttest"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// Scene is a finished job with everything that a receipt is made of.
type Scene struct {
	Statement receipt.Statement
	Verifier  ed25519.PrivateKey
	Real      ed25519.PrivateKey // signs receipts of hardware
	Fake      ed25519.PrivateKey // signs simulated ones
	Amd       *attesttest.Hierarchy
	At        time.Time

	policy    appraise.Policy
	simulated bool
	chips     map[string]*attesttest.Chip
}

// PolicyText is what the scene's nodes are appraised by.
func PolicyText(simulated bool) string {
	t := attesttest.CurrentTCB()
	return fmt.Sprintf("# What this site wants.\nname: strict\nreference_values: [{name: image-12, measurement: %s, covers: [firmware, kernel, rootfs]}]\n"+
		"minimum_tcb: {milan: {bl: %d, tee: %d, snp: %d, ucode: %d}}\nrequire_crl: true\nallow_simulated: %t\n",
		attesttest.LabMeasurement(), t.Bootloader, t.TEE, t.SNP, t.Microcode, simulated)
}

// New makes the scene of a job that ran on these nodes. The hierarchy's files lie in dir.
func New(dir string, simulated bool, nodes ...string) (*Scene, error) {
	s := &Scene{At: time.Now().UTC().Truncate(time.Millisecond), simulated: simulated, chips: map[string]*attesttest.Chip{}}
	for _, k := range []*ed25519.PrivateKey{&s.Verifier, &s.Real, &s.Fake} {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		*k = key
	}
	var err error
	if s.Amd, err = attesttest.NewHierarchy(dir, attesttest.SmallKeys()); err != nil {
		return nil, err
	}
	if s.policy, err = appraise.Load(strings.NewReader(PolicyText(simulated))); err != nil {
		return nil, err
	}
	return s, s.fill(nodes)
}

func (s *Scene) fill(nodes []string) error {
	job := enclave.Job{
		JobKey: enclave.JobKey{Cluster: "muc1", Job: 4711}, UID: 2001, GID: 2001, User: "alice", Account: "onc", Partition: "cpu-sev",
		Name: "lammps <md> & co", Nodes: nodes, SubmitHost: "login1", Batch: true, TimeLimit: 3600,
	}
	subject, err := receipt.SubjectOf(job)
	if err != nil {
		return err
	}
	p := &s.Statement.Predicate
	s.Statement.Type, s.Statement.Subject = receipt.StatementType, []receipt.Subject{subject}
	s.Statement.PredicateType = receipt.TypeReal
	p.Verdict, p.Simulated, p.Job = enclave.VerdictProtected, s.simulated, job
	if s.simulated {
		s.Statement.PredicateType, p.Verdict = receipt.TypeSimulated, enclave.VerdictSimulated
	}
	p.Chain.Sequence = 1
	p.Verifier = receipt.Verifier{Key: enclave.PublicKey(public(s.Verifier)), Release: "test"}
	p.Signer = receipt.Endorse(s.Verifier, receipt.RoleFor(s.Statement.PredicateType), public(s.key()))
	p.Tenant = enclave.Tenant{Name: "oncology", Accounts: []string{"onc"}, Subtree: "proj/oncology", RootFID: enclave.FID{Sequence: 0x200000401, Object: 1}, Policy: "strict"}
	started, ended := s.At.Add(2*time.Second), s.At.Add(time.Hour)
	p.Times = receipt.Times{Registered: s.At.Add(-time.Second), Started: &started, Ended: &ended, Sealed: ended.Add(time.Second)}
	p.Policy = receipt.Policy{Name: s.policy.Name(), Digest: s.policy.Digest(), Text: s.policy.Text()}
	p.Authorities, p.Documents = []receipt.Authority{}, map[string][]byte{}
	p.NotCovered = []string{"what the job computed"}
	return s.addNodes(nodes)
}

func (s *Scene) addNodes(nodes []string) error {
	p := &s.Statement.Predicate
	var peers []enclave.Peer
	for i, name := range nodes {
		node, err := s.node(name)
		if err != nil {
			return err
		}
		p.Nodes = append(p.Nodes, node)
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte((i + 1) >> 8), byte(i + 1)})
		peers = append(peers, enclave.Peer{
			Node: name, Addresses: []netip.Addr{a}, Endpoint: netip.AddrPortFrom(a, 51820), Key: node.Evidence[0].Claim.WireGuard,
		})
	}
	return s.AddRoster(peers, "")
}

// AddRoster signs the next epoch.
func (s *Scene) AddRoster(peers []enclave.Peer, gone string) error {
	p := &s.Statement.Predicate
	leaves, err := roster.Digests(peers)
	if err != nil {
		return err
	}
	epoch := uint32(len(p.Rosters) + 1)
	signed, err := roster.Sign(s.Verifier, enclave.RosterHeader{
		JobKey: p.Job.JobKey, Epoch: epoch, SubmitHost: p.Job.SubmitHost, Tenant: p.Tenant.Name, Subtree: p.Tenant.Subtree, RootFID: p.Tenant.RootFID,
		PolicyDigest: p.Policy.Digest, Lifetime: 3900, Simulated: s.simulated, Size: uint32(len(peers)), Root: roster.Root(leaves),
	})
	if err != nil {
		return err
	}
	p.Rosters = append(p.Rosters, receipt.Roster{Epoch: epoch, At: s.At, Gone: gone, Header: signed.Header, Signature: signed.Signature, Peers: peers})
	return nil
}

// ReadBack is what a node says that its kernel has no more.
func ReadBack() []enclave.Check {
	var all []enclave.Check
	for _, kind := range []string{"boot", "links", "rules", "routes", "tables", "sockets", "mounts", "processes", "files", "ipc"} {
		all = append(all, enclave.Check{Name: "closed." + kind, Result: enclave.CheckPass})
	}
	return all
}

func (s *Scene) node(name string) (receipt.Node, error) {
	chip, err := s.Amd.NewChip(attesttest.ChipID(name), attesttest.CurrentTCB(), attesttest.Validity{})
	if err != nil {
		return receipt.Node{}, err
	}
	s.chips[name] = chip
	n := receipt.Node{
		Name: name, Enrolled: receipt.Enrolled{Chip: chip.ID.String()},
		Ready: &receipt.Ready{Peers: 1, Storage: receipt.Storage{
			Backend: "bind", Subtree: "proj/oncology", Public: "/lustre", Assurance: "L1", Transport: "fabric-trusted",
		}},
		Teardown: receipt.Teardown{Reported: true, Closed: true, Checks: ReadBack(), TookMS: 75, Network: receipt.Network{TunnelBytes: 4096}},
	}
	c := claim.Claim{HPKE: make([]byte, claim.HPKESize)}
	for _, b := range [][]byte{c.WireGuard[:], c.Ed25519[:], c.HPKE} {
		_, _ = rand.Read(b) // never fails
	}
	e, err := s.Evidence(name, c, claim.PurposeJob)
	n.Evidence = []receipt.Evidence{e}
	return n, err
}

// Evidence makes a node's next evidence with the keys of c, as the verifier keeps it.
func (s *Scene) Evidence(node string, c claim.Claim, purpose claim.Purpose) (receipt.Evidence, error) {
	p := &s.Statement.Predicate
	c.Cluster, c.Job, c.Restart, c.Node = p.Job.Cluster, uint64(p.Job.Job), p.Job.Restart, node
	c.VerifierKey, c.Policy, c.Purpose, c.Epoch = receipt.KeyID(public(s.Verifier)), p.Policy.Digest, purpose, 1
	_, _ = rand.Read(c.Nonce[:]) // never fails
	data, err := c.ReportData()
	if err != nil {
		return receipt.Evidence{}, err
	}
	chip := s.chips[node]
	raw, err := chip.Signed(chip.Report(data))
	if err != nil {
		return receipt.Evidence{}, err
	}
	return s.judged(node, c, raw)
}

// judged has the verifier's part done by the verifier's own packages.
func (s *Scene) judged(node string, c claim.Claim, raw []byte) (receipt.Evidence, error) {
	roots, err := s.Roots()
	if s.simulated {
		roots, err = snp.TestRoots(s.Amd.Roots())
	}
	if err != nil {
		return receipt.Evidence{}, err
	}
	crl, err := s.Amd.CRL(s.At.Add(-time.Hour), s.At.Add(30*24*time.Hour), false)
	if err != nil {
		return receipt.Evidence{}, err
	}
	list, err := snp.ParseCRL(crl)
	if err != nil {
		return receipt.Evidence{}, err
	}
	chain, err := snp.ParseCertificates(s.chips[node].Table())
	if err != nil {
		return receipt.Evidence{}, err
	}
	data, err := c.ReportData()
	if err != nil {
		return receipt.Evidence{}, err
	}
	opt := snp.Options{Roots: roots, At: s.At}
	opt.CRLs = append(opt.CRLs, list)
	r := snp.Verify(raw, chain, opt)
	res := appraise.Appraise(s.policy, r.SNPReport, appraise.Expectation{Node: node, ReportData: data, Chip: s.chips[node].ID.String()})
	res.Checks = append(res.Checks, enclave.Check{Name: "enrolled", Result: enclave.CheckPass, Reason: "the node's enrolment is in force"})
	e := receipt.Evidence{At: s.At, Digest: receipt.EvidenceDigest(raw), Claim: Claim(c), Report: raw, Provider: "sev_guest", Result: res}
	for _, der := range r.Endorsements.Certificates {
		e.Certificates = append(e.Certificates, s.keep(der))
	}
	for _, der := range r.Endorsements.CRLs {
		e.CRLs = append(e.CRLs, s.keep(der))
	}
	s.authority(r.Endorsements.Authorities)
	return e, nil
}

func (s *Scene) authority(list [][]byte) {
	p := &s.Statement.Predicate
	if len(list) == 2 && len(p.Authorities) == 0 {
		p.Authorities = []receipt.Authority{{Simulated: s.simulated, Intermediate: s.keep(list[0]), Root: s.keep(list[1])}}
	}
}

func (s *Scene) keep(der []byte) enclave.Digest {
	d := enclave.Digest(sha256.Sum256(der))
	s.Statement.Predicate.Documents[hex.EncodeToString(d[:])] = der
	return d
}

// Claim is a claim as receipts spell it.
func Claim(c claim.Claim) receipt.Claim {
	return receipt.Claim{
		Cluster: c.Cluster, VerifierKey: c.VerifierKey, Nonce: c.Nonce, Job: c.Job, HetOffset: c.HetOffset, Restart: c.Restart,
		Node: c.Node, WireGuard: c.WireGuard, Ed25519: c.Ed25519, HPKE: c.HPKE, Intent: c.Intent, Policy: c.Policy,
		Purpose: uint8(c.Purpose), Epoch: c.Epoch,
	}
}

// Roots trust the scene's hierarchy as if it were AMD's.
func (s *Scene) Roots() (snp.Roots, error) { return snp.SiteRoots(s.Amd.Roots()) }

// key is the one that may sign the scene's receipt.
func (s *Scene) key() ed25519.PrivateKey {
	if s.simulated {
		return s.Fake
	}
	return s.Real
}

// Seal signs the statement as it is now, with the right key: what a verifier that lies would do.
func (s *Scene) Seal() ([]byte, error) { return receipt.Seal(s.key(), s.Statement) }

// Public is the key that the scene's receipts are signed with.
func (s *Scene) Public() ed25519.PublicKey { return public(s.key()) }

func public(k ed25519.PrivateKey) ed25519.PublicKey { return ed25519.PublicKey(k[ed25519.SeedSize:]) }
