package check

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// node goes through one node's evidence, and then through its own words.
func (c *checking) node(n *receipt.Node) {
	for i := range n.Evidence {
		c.evidence(n, &n.Evidence[i])
	}
	at := func(name, by string) Line { return Line{Level: 2, Node: n.Name, Name: name, Vouches: by} }
	if len(n.Evidence) == 0 {
		c.says(at("evidence", c.signed), "none came")
	} else {
		c.says(at("machine", c.signed), "this chip is node %s: an admin's word", n.Name)
	}
	if r := n.Renewals; r.Made > 0 {
		c.says(at("renewals", c.signed), "%d made, %d affirmed, the last at %s; whole are the first, the last and each that failed", r.Made, r.Affirmed, instant(r.Last))
	}
	if n.Refusal != nil {
		c.says(at("refusal", c.signed), "%s", n.Refusal.Error())
	}
	if r := n.Ready; r != nil {
		s := r.Storage
		c.says(at("network", Attested), "tunnels to %d peers were up", r.Peers)
		c.says(at("storage", Attested), "%s: subtree %s at %s; assurance %s; transport %s", s.Backend, s.Subtree, s.Public, s.Assurance, s.Transport)
		if s.Isolation != "" {
			c.says(at("storage", Attested), "isolation %s: the view was in the %s", s.Isolation, map[string]string{
				"node": "node's own mount namespace", "namespace": "job's own mount namespace, and not in the node's",
			}[s.Isolation])
		}
		for _, v := range s.Visible {
			c.says(at("storage", Attested), "the network mount %s was visible, too", v)
		}
	}
	c.teardown(at("teardown", Attested), n.Teardown)
}

func (c *checking) teardown(l Line, t receipt.Teardown) {
	switch {
	case !t.Reported:
		l.Vouches = c.signed
		c.says(l, "no report")
	case t.Refusal != nil:
		c.says(l, "NOT closed: %s", t.Refusal.Error())
	case t.Closed:
		were, err := readBack(t.Checks)
		if err != nil { // the word alone is not believed
			c.says(l, "NOT closed: %s", err)
			return
		}
		c.says(l, "closed again in %d ms, read back: %s; in the tunnels %d bytes, outside %d bytes, packets rejected %d, dropped %d",
			t.TookMS, were, t.Network.TunnelBytes, t.Network.OutsideBytes, t.Network.Rejected, t.Network.Dropped)
	default:
		c.says(l, "NOT closed")
	}
}

// readBack lists the kinds of things that a node has read back from its kernel, and found as they were before the job.
func readBack(checks []enclave.Check) (string, error) {
	var kinds []string
	for _, k := range checks {
		name := strings.TrimPrefix(k.Name, "closed.")
		if k.Result != enclave.CheckPass {
			return "", fmt.Errorf("%s: %s %s", name, k.Result, k.Reason)
		}
		kinds = append(kinds, name)
	}
	return strings.Join(kinds, " "), must(len(kinds) > 0, "nothing was read back")
}

// evidence judges one report again and holds the outcome against what the verifier wrote down.
func (c *checking) evidence(n *receipt.Node, e *receipt.Evidence) {
	base := Line{Level: 2, Node: n.Name, Purpose: purpose(e.Claim.Purpose), Epoch: e.Claim.Epoch, Vouches: Recomputed}
	named := func(name string) Line { l := base; l.Name = name; return l }
	c.add(named("claim"), c.claim(n, e), "cluster, job, node, nonce, keys, policy and epoch are this receipt's")
	c.add(named("digest"), must(receipt.EvidenceDigest(e.Report) == e.Digest, "the digest is not that of the report's signed body"), "sha256:%s", e.Digest)
	j := c.judged[e]
	delete(c.judged, e) // a large job's would fill the memory
	if j.err != nil {
		c.add(named("certificates"), j.err, "")
		return
	}
	res := j.result
	again := c.appraise(n, e, res.SNPReport)
	c.fake = c.fake || res.Simulated && res.Genuine
	by := c.vouches(res)
	for _, k := range again.Checks {
		l := named(k.Name)
		if slices.Contains(hardware(), k.Name) {
			l.Vouches = by
		}
		c.compare(l, k, e.Result)
	}
	c.verifiersOwn(base, again, e.Result)
	c.add(named("result"), c.agree(again, e), "%s", e.Result.Status)
	if err := c.binds(n, e, again); err != nil {
		c.add(named("keys"), err, "")
	}
}

// claim holds the fields against the statement around them: a report of another job, node, nonce
// or verifier has other fields.
func (c *checking) claim(n *receipt.Node, e *receipt.Evidence) error {
	k, p := e.Claim, c.said
	switch {
	case k.Cluster != p.Job.Cluster, k.Job != uint64(p.Job.Job), k.Restart != p.Job.Restart, k.HetOffset != p.Job.HetOffset:
		return must(false, "it is of job %s/%d.%d", k.Cluster, k.Job, k.Restart)
	case k.Node != n.Name:
		return must(false, "it is of node %s", k.Node)
	case k.VerifierKey != receipt.KeyID(p.Verifier.Key[:]):
		return errors.New("it was made for another verifier")
	case k.Policy != p.Policy.Digest:
		return errors.New("it was made under another policy")
	case k.Intent != enclave.Digest{}:
		return errors.New("it has an intent, which this version does not know")
	case c.nonces[k.Nonce]:
		return errors.New("its nonce was used twice")
	}
	c.nonces[k.Nonce] = true
	return nil
}

// appraise computes REPORT_DATA from the claim, and judges by the policy's text.
func (c *checking) appraise(n *receipt.Node, e *receipt.Evidence, r enclave.SNPReport) enclave.AttestationResult {
	k := claim.Claim{
		Cluster: e.Claim.Cluster, VerifierKey: e.Claim.VerifierKey, Nonce: e.Claim.Nonce, Job: e.Claim.Job,
		HetOffset: e.Claim.HetOffset, Restart: e.Claim.Restart, Node: e.Claim.Node, WireGuard: e.Claim.WireGuard,
		Ed25519: e.Claim.Ed25519, HPKE: e.Claim.HPKE, Intent: e.Claim.Intent, Policy: e.Claim.Policy,
		Purpose: claim.Purpose(e.Claim.Purpose), Epoch: e.Claim.Epoch,
	}
	data, err := k.ReportData()
	if err != nil || c.policy == nil {
		why := "there is no policy to judge by"
		if err != nil {
			why = err.Error()
		}
		return enclave.AttestationResult{Status: enclave.StatusNone, Checks: []enclave.Check{{Name: "report_data", Result: enclave.CheckFail, Reason: why}}}
	}
	return appraise.Appraise(*c.policy, r, appraise.Expectation{Node: n.Name, ReportData: data, Chip: n.Enrolled.Chip, ReportID: n.Enrolled.ReportID})
}

// hardware are the checks whose outcome AMD's signature vouches for; the others are arithmetic on
// its fields, the policy and the enrolment.
func hardware() []string {
	return []string{"chain", "validity", "tcb", "hwid", "signature", "report_data", "measurement"}
}

// vouches is whose word the hardware's checks are: nobody's while the report is not genuine.
func (c *checking) vouches(res snp.Result) string {
	switch {
	case !res.Genuine:
		return Recomputed
	case res.Simulated:
		return TestRoot
	case c.opt.Own:
		return OwnRoots
	}
	return Hardware
}

// compare holds one check against the verifier's. With a policy of the reader's own there is
// nothing to compare with, and what fails is bad.
func (c *checking) compare(l Line, now enclave.Check, then enclave.AttestationResult) {
	i := slices.IndexFunc(then.Checks, func(k enclave.Check) bool { return k.Name == now.Name })
	passed := now.Result == enclave.CheckPass
	switch {
	case c.opt.Policy != nil && !ofSignature(now.Name):
		c.add(l, must(passed, "%s", now.Reason), "%s", now.Reason)
	case i < 0:
		c.add(l, must(passed, "%s; the verifier of that day did not ask", now.Reason), "%s; the verifier of that day did not ask", now.Reason)
	case then.Checks[i].Result != now.Result:
		c.add(l, must(false, "%s (%s); the receipt says %s (%s)", now.Result, now.Reason, then.Checks[i].Result, then.Checks[i].Reason), "")
	case passed:
		c.add(l, nil, "%s", now.Reason)
	default:
		c.add(l, nil, "%s, as the receipt says: %s", strings.ToUpper(string(now.Result)), now.Reason)
	}
}

// ofSignature is true for checks that no policy changes.
func ofSignature(name string) bool {
	return name == "report_data" || name == "chip" || appraise.CodeOf(name) == appraise.CodeGenuine
}

// verifiersOwn are checks that need the verifier's books: its word, and nothing more.
func (c *checking) verifiersOwn(base Line, again, then enclave.AttestationResult) {
	for _, k := range then.Checks {
		if !slices.ContainsFunc(again.Checks, func(x enclave.Check) bool { return x.Name == k.Name }) {
			l := base
			l.Name, l.Vouches = k.Name, c.signed
			c.says(l, "%s %s", k.Result, k.Reason)
		}
	}
}

// agree: affirmed then is affirmed now. A node may have been refused for what only the verifier
// knew, never the other way round.
func (c *checking) agree(again enclave.AttestationResult, e *receipt.Evidence) error {
	then := e.Result
	affirmed := then.Status == enclave.StatusAffirming
	switch {
	case affirmed && again.Status != enclave.StatusAffirming:
		return must(false, "the receipt says %s, judged again it is %s", then.Status, again.Status)
	case affirmed && then.Failed() != nil:
		return must(false, "%s, and check %s failed", then.Status, then.Failed().Name)
	case affirmed && c.opt.Policy == nil && (then.Simulated != again.Simulated || then.Weak != again.Weak),
		affirmed && (then.Measurement != again.Measurement || then.ChipID != again.ChipID || then.TCB != again.TCB || then.Product != again.Product):
		return errors.New("measurement, chip, patch level or flags are not the report's")
	}
	return nil
}

// binds notes what the hardware vouches for, and holds later evidence to the keys of the first.
func (c *checking) binds(n *receipt.Node, e *receipt.Evidence, again enclave.AttestationResult) error {
	if again.Status != enclave.StatusAffirming || e.Result.Status != enclave.StatusAffirming {
		return nil
	}
	keys := enclave.NodeKeys{WireGuard: e.Claim.WireGuard, Ed25519: e.Claim.Ed25519, HPKE: e.Claim.HPKE}
	first, ok := c.affirmed[n.Name]
	if !ok && claim.Purpose(e.Claim.Purpose) == claim.PurposeJob {
		c.affirmed[n.Name] = affirmation{keys: keys, weak: again.Weak}
		return nil
	}
	same := keys.WireGuard == first.keys.WireGuard && keys.Ed25519 == first.keys.Ed25519 && bytes.Equal(keys.HPKE, first.keys.HPKE)
	return must(ok && same, "affirmed with other keys than the node started with")
}

func purpose(p uint8) string {
	switch claim.Purpose(p) {
	case claim.PurposeJob:
		return "job"
	case claim.PurposeRenew:
		return "renewal"
	}
	return fmt.Sprintf("purpose %d", p)
}
