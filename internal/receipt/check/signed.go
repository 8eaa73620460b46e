package check

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
)

// level1 is what the centre's signature holds together.
func (c *checking) level1(o receipt.Opened) {
	at := func(name string) Line { return Line{Level: 1, Name: name, Vouches: Recomputed} }
	c.add(at("form"), nil, "DSSE envelope of an in-toto statement, in the one form that receipts have")
	key, err := c.signature(o)
	c.report.Key = key
	vouch := at("signature")
	vouch.Vouches = c.signed
	c.add(vouch, err, "signed by key sha256:%s", o.KeyID)
	c.add(at("key"), c.role(), "the verifier vouches for the key in the role %s", c.said.Signer.Role)
	c.add(at("type"), c.kind(), "%s", c.report.Said.PredicateType)
	c.add(at("subject"), c.subject(), "start %s of the job", c.said.Job.JobKey)
	c.add(at("verdict"), c.verdict(), "%s, as the content has it", c.said.Verdict)
	c.statements()
}

// signature checks with the reader's keys, or else with the key inside, which anybody could have
// put there.
func (c *checking) signature(o receipt.Opened) (ed25519.PublicKey, error) {
	inside := ed25519.PublicKey(c.said.Signer.Key[:])
	for _, k := range c.opt.Keys {
		if receipt.KeyID(k) == o.KeyID {
			c.signed, c.report.Pinned = Signature, true
			if !bytes.Equal(k, inside) {
				return k, errors.New("the key that signed is not the one that the receipt names")
			}
			return k, o.CheckSignature(k)
		}
	}
	if len(c.opt.Keys) != 0 {
		return inside, must(false, "signed by key sha256:%s, which is none of yours", o.KeyID)
	}
	return inside, o.CheckSignature(inside)
}

// role keeps the two kinds of receipts apart by their keys.
func (c *checking) role() error {
	if want := receipt.RoleFor(c.report.Said.PredicateType); c.said.Signer.Role != want {
		return must(false, "a key of role %q signed a receipt that needs one of role %q", c.said.Signer.Role, want)
	}
	if c.said.Signer.Key == c.said.Verifier.Key {
		return errors.New("the verifier's own key signed a receipt")
	}
	return c.said.Signer.CheckEndorsement(c.said.Verifier.Key)
}

// kind holds type, flag and evidence together: one simulated piece is enough.
func (c *checking) kind() error {
	hardware := c.report.Said.PredicateType == receipt.TypeReal
	simulated := c.said.Verdict == enclave.VerdictSimulated
	for _, n := range c.said.Nodes {
		for _, e := range n.Evidence {
			simulated = simulated || e.Result.Simulated
		}
	}
	for _, a := range c.said.Authorities {
		simulated = simulated || a.Simulated
	}
	switch {
	case hardware == c.said.Simulated:
		return errors.New("the predicate's type and its flag simulated differ")
	case hardware && simulated:
		return errors.New("simulated evidence in a receipt of the type for hardware")
	}
	return nil
}

func (c *checking) subject() error {
	want, err := receipt.SubjectOf(c.said.Job)
	if err != nil {
		return err
	}
	list := c.report.Said.Subject
	return must(len(list) == 1 && list[0] == want, "the subject is not the job that the predicate is about")
}

// verdict holds the verdict against what is said beside it.
func (c *checking) verdict() error {
	p := c.said
	chained := (p.Chain.Sequence == 1) == (p.Chain.Previous == enclave.Digest{})
	switch {
	case p.Chain.Sequence == 0 || !chained:
		return errors.New("sequence number and previous receipt do not fit together")
	case p.Times.Ended == nil:
		return errors.New("sealed before the job was over")
	}
	switch p.Verdict {
	case enclave.VerdictProtected, enclave.VerdictSimulated:
		return must(p.Times.Started != nil && p.Refusal == nil && len(p.Rosters) != 0, "%s, and the job was refused or never let in", p.Verdict)
	case enclave.VerdictRefused:
		return must(p.Refusal != nil, "refused without a reason")
	}
	return must(false, "verdict %q is not final", p.Verdict)
}

// statements are nobody's to check: time, people, and that these were all nodes.
func (c *checking) statements() {
	p := c.said
	at := func(name string) Line { return Line{Level: 1, Name: name, Vouches: c.signed} }
	c.says(at("times"), "registered %s, let in %s, over %s, sealed %s", instant(&p.Times.Registered), instant(p.Times.Started), instant(p.Times.Ended), instant(&p.Times.Sealed))
	c.says(at("job"), "user %s (uid %d), account %s, partition %s, tenant %s: as Slurm told the verifier", p.Job.User, p.Job.UID, p.Job.Account, p.Job.Partition, p.Tenant.Name)
	c.says(at("nodes"), "these are all: %s", strings.Join(p.Job.Nodes, ","))
	c.says(at("chain"), "receipt %d of the cluster, after %s", p.Chain.Sequence, p.Chain.Previous)
	if p.Refusal != nil {
		c.says(at("refusal"), "%s, fault: %s", p.Refusal.Error(), p.Refusal.Fault)
	}
	for _, r := range p.Rosters {
		if r.Gone != "" && r.Refusal != nil {
			l := at("left")
			l.Node, l.Epoch = r.Gone, r.Epoch
			c.says(l, "out of the roster at %s: %s", instant(&r.At), r.Refusal.Error())
		}
	}
}
