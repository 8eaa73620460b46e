package check

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// level2 derives again what AMD's roots and arithmetic can say.
func (c *checking) level2() {
	at := func(name string) Line { return Line{Level: 2, Name: name, Vouches: Recomputed} }
	c.add(at("documents"), c.documents(), "%d certificates and revocation lists have the digests they go by", len(c.said.Documents))
	c.add(at("roots"), c.findRoots(), "%s", c.rootsReason())
	c.add(at("policy"), c.findPolicy(), "%s", c.policyReason())
	c.add(at("node_list"), c.nodeList(), "%d nodes, each once, in the job's order", len(c.said.Nodes))
	c.judge()
	for i := range c.said.Nodes {
		c.node(&c.said.Nodes[i])
	}
	for i := range c.said.Rosters {
		c.roster(i)
	}
	c.add(at("outcome"), c.outcome(), "verdict %s, weak %t, simulated %t follow from the evidence", c.said.Verdict, c.said.Weak, c.said.Simulated)
}

// documents are named by their digests, and a name that is not theirs names another.
func (c *checking) documents() error {
	for name, body := range c.said.Documents {
		sum := sha256.Sum256(body)
		if hex.EncodeToString(sum[:]) != name {
			return must(false, "document %.64s has another digest", name)
		}
	}
	return nil
}

func (c *checking) document(d enclave.Digest) ([]byte, error) {
	b, ok := c.said.Documents[d.String()]
	return b, must(ok, "document %s is not in the receipt", d)
}

// findRoots takes test roots from a simulated receipt only, and they stay a lab's.
func (c *checking) findRoots() error {
	c.roots = c.opt.Roots
	var bundles [][]byte
	for _, a := range c.said.Authorities {
		b, err := c.bundle(a.Intermediate, a.Root)
		if err != nil {
			return err
		}
		if a.Simulated && c.report.Simulated() {
			bundles = append(bundles, b)
		}
	}
	if len(bundles) == 0 {
		return nil
	}
	test, err := snp.TestRoots(bundles...)
	if err != nil {
		return err
	}
	c.roots = snp.Join(c.roots, test)
	return nil
}

func (c *checking) rootsReason() string {
	if !c.report.Simulated() {
		return "taken from you or from this program, none from the receipt"
	}
	return "this receipt brings its test root along: UNTRUSTED, anybody can make one"
}

// bundle is PEM, as the parsers of certificates take it.
func (c *checking) bundle(list ...enclave.Digest) ([]byte, error) {
	var out bytes.Buffer
	for _, d := range list {
		der, err := c.document(d)
		if err != nil {
			return nil, err
		}
		if err = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// findPolicy proves that the text is the one that the reports are bound to, and reads it.
func (c *checking) findPolicy() error {
	p := c.said.Policy
	c.policy = c.opt.Policy
	if !c.appraised() {
		return must(p == receipt.Policy{}, "a policy is there, and nothing was appraised")
	}
	own, err := appraise.Load(strings.NewReader(p.Text))
	switch {
	case err != nil:
		return err
	case own.Digest() != p.Digest:
		return errors.New("the text of the policy is not the one that the reports are bound to")
	case own.Name() != p.Name:
		return must(false, "the text's name is %q", own.Name())
	}
	if c.policy == nil {
		c.policy = &own
	}
	return nil
}

func (c *checking) appraised() bool {
	return len(c.said.Rosters) != 0 || slices.ContainsFunc(c.said.Nodes, func(n receipt.Node) bool { return len(n.Evidence) != 0 })
}

func (c *checking) policyReason() string {
	switch {
	case !c.appraised():
		return "nothing was appraised"
	case c.opt.Policy != nil:
		return fmt.Sprintf("judged by your policy %s, sha256:%s; the receipt's own is %s, sha256:%s, bound into every report",
			c.opt.Policy.Name(), c.opt.Policy.Digest(), c.said.Policy.Name, c.said.Policy.Digest)
	}
	return fmt.Sprintf("%s: SHA-256 of the text is %s, bound into every report", c.said.Policy.Name, c.said.Policy.Digest)
}

func (c *checking) nodeList() error {
	names := make([]string, 0, len(c.said.Nodes))
	for _, n := range c.said.Nodes {
		names = append(names, n.Name)
	}
	seen := map[string]bool{}
	for _, n := range names {
		if seen[n] {
			return must(false, "node %s is there twice", n)
		}
		seen[n] = true
	}
	return must(slices.Equal(names, c.said.Job.Nodes), "these nodes are not the job's")
}

// roster checks one epoch: signature, leaves, and that each leaf's key is in affirmed evidence.
func (c *checking) roster(i int) {
	r := c.said.Rosters[i]
	l := Line{Level: 2, Name: "roster", Epoch: r.Epoch, Vouches: Recomputed}
	h, err := roster.Verify(c.said.Verifier.Key[:], roster.Signed{Header: r.Header, Signature: r.Signature})
	if err == nil {
		err = c.header(i, h)
	}
	if err == nil {
		err = roster.CheckPeers(h, r.Peers)
	}
	c.add(l, err, "signed by the verifier whose key is in the reports; %d leaves under its root", len(r.Peers))
	l.Name = "roster_keys"
	c.add(l, c.leaves(r), "every leaf's tunnel key is in that node's affirmed evidence")
}

func (c *checking) header(i int, h enclave.RosterHeader) error {
	r, p := c.said.Rosters[i], c.said
	switch {
	case h.Epoch != r.Epoch || int64(h.Epoch) != int64(i)+1:
		return must(false, "epoch %d in the header, %d beside it, number %d in the list", h.Epoch, r.Epoch, i+1)
	case h.JobKey != p.Job.JobKey:
		return must(false, "it is the roster of %s", h.JobKey)
	case h.PolicyDigest != p.Policy.Digest:
		return errors.New("it was made under another policy")
	case h.Tenant != p.Tenant.Name || h.Subtree != p.Tenant.Subtree || h.RootFID != p.Tenant.RootFID:
		return errors.New("it names another tenant or subtree")
	case h.Simulated && !p.Simulated || h.Weak != p.Weak && i == 0:
		return errors.New("it says simulated or weak, and the receipt does not")
	case i > 0 && !slices.ContainsFunc(p.Rosters[i-1].Peers, func(x enclave.Peer) bool { return x.Node == r.Gone }):
		return must(false, "node %q left, and was not there", r.Gone)
	}
	return nil
}

// leaves holds the roster against the hardware: a node nobody attested may not be on it.
func (c *checking) leaves(r receipt.Roster) error {
	here := make(map[string]bool, len(r.Peers))
	for _, x := range r.Peers {
		here[x.Node] = true
		a, ok := c.affirmed[x.Node]
		switch {
		case !ok:
			return must(false, "node %s is on it without affirmed evidence", x.Node)
		case a.keys.WireGuard != x.Key:
			return must(false, "node %s is on it with another key than its evidence has", x.Node)
		}
	}
	if r.Epoch != 1 {
		return must(!here[r.Gone], "node %s is still on it", r.Gone)
	}
	for _, n := range c.said.Job.Nodes {
		if !here[n] {
			return must(false, "node %s of the job is not on it", n)
		}
	}
	return nil
}

// outcome holds the verdict against what was derived.
func (c *checking) outcome() error {
	p := c.said
	if c.fake && !p.Simulated {
		return errors.New("evidence ends in a test root, and the receipt does not say so")
	}
	if p.Times.Started == nil && len(p.Rosters) == 0 {
		return nil // nobody was let in
	}
	weak := false
	for _, n := range p.Job.Nodes {
		a, ok := c.affirmed[n]
		if !ok {
			return must(false, "the job was let in, and node %s is not affirmed", n)
		}
		weak = weak || a.weak
	}
	switch {
	case weak != p.Weak && c.opt.Policy == nil:
		return must(false, "weak is %t by the evidence", weak)
	case p.Verdict == enclave.VerdictProtected && p.Simulated, p.Verdict == enclave.VerdictSimulated && !p.Simulated:
		return errors.New("the verdict's word is not the evidence's")
	}
	return nil
}
