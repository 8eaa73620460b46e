package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slurm-enclave/slurm-enclave/internal/appraise"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// diffFlags are the words of `policy diff`.
type diffFlags struct {
	judgeFlags
	reports string
	noNodes bool
	json    bool
}

// PolicyDiff is the document behind `enclave policy diff`.
type PolicyDiff struct {
	From    CheckedPolicy     `json:"from"`
	To      CheckedPolicy     `json:"to"`
	Changes []appraise.Change `json:"changes"`
	Nodes   []NodeStanding    `json:"nodes"`
}

// NodeStanding is what a node's last evidence is worth under both policies. What can't be told
// is the status none, with its reason.
type NodeStanding struct {
	Node      string         `json:"node"`
	From      enclave.Status `json:"from"`
	To        enclave.Status `json:"to"`
	Simulated bool           `json:"simulated"`
	Reasons   []string       `json:"reasons,omitempty"` // why the second one refuses, or why nothing can be told
	unknown   bool
}

// falls is true for a node that the first policy lets in and the second does not.
func (n NodeStanding) falls() bool {
	return n.From == enclave.StatusAffirming && n.To != enclave.StatusAffirming
}

func (s screen) diffCommand(store string) *cobra.Command {
	f := diffFlags{judgeFlags: judgeFlags{store: store}}
	c := command("diff A B", "What policy B changes against A, and which nodes fall below it", cobra.ExactArgs(2))
	c.Long = `What policy B changes against A, and which nodes fall below it.

The nodes' last evidence comes from enclaved, for operators, or from --reports: X.bin or
X.report.bin, with X.cert.der, X.der, X.pem or X.certs beside it. It is verified here.

Exit status: 0 no node falls below, 1 a policy can't be used, 2 usage, 3 a node falls below, 4 that
can't be determined, 5 not an operator.`
	c.RunE = func(c *cobra.Command, args []string) error {
		return s.diff(c.Context(), c.OutOrStdout(), f, args[0], args[1])
	}
	c.Flags().StringVar(&f.reports, "reports", "", "directory of reports to judge in place of the nodes'")
	c.Flags().BoolVar(&f.noNodes, "no-nodes", false, "compare the policies only")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	f.add(c)
	return c
}

func (s screen) diff(ctx context.Context, out io.Writer, f diffFlags, from, to string) error {
	if f.noNodes && f.reports != "" {
		return &ExitError{ExitUsage, errors.New("policy diff: --no-nodes and --reports exclude each other")}
	}
	a, err := loadPolicy(from)
	if err != nil {
		return &ExitError{ExitFailure, err}
	}
	b, err := loadPolicy(to)
	if err != nil {
		return &ExitError{ExitFailure, err}
	}
	d := PolicyDiff{From: checkPolicy(from, nil), To: checkPolicy(to, nil), Changes: append([]appraise.Change{}, appraise.Diff(a, b)...), Nodes: []NodeStanding{}}
	var unasked error
	if !f.noNodes {
		d.Nodes, unasked = s.standings(ctx, f, a, b)
	}
	if f.json {
		err = printJSON(out, d)
	} else {
		err = printText(out, PolicyDiffScreen(d))
	}
	if err != nil {
		return err
	}
	return fallen(d.Nodes, unasked)
}

func fallen(nodes []NodeStanding, unasked error) error {
	n, unknown := 0, 0
	for _, s := range nodes {
		if s.falls() {
			n++
		}
		if s.unknown {
			unknown++
		}
	}
	switch {
	case n > 0:
		return &ExitError{ExitBelow, fmt.Errorf("policy diff: %d nodes fall below", n)}
	case unasked != nil:
		return unasked
	case unknown > 0:
		return &ExitError{ExitUnknown, fmt.Errorf("policy diff: of %d nodes it can't be told", unknown)}
	}
	return nil
}

func (s screen) standings(ctx context.Context, f diffFlags, a, b appraise.Policy) ([]NodeStanding, error) {
	j, err := f.judge()
	if err != nil {
		return []NodeStanding{}, err
	}
	if f.reports != "" {
		return standingsOfFiles(f.reports, j, a, b)
	}
	return s.standingsOfNodes(ctx, j, a, b)
}

func (s screen) standingsOfNodes(ctx context.Context, j judge, a, b appraise.Policy) ([]NodeStanding, error) {
	out := []NodeStanding{}
	src, err := s.source(ctx)
	if err != nil {
		return out, err
	}
	fleet, err := src.Nodes(ctx)
	if err != nil {
		return out, asked(err)
	}
	for _, n := range fleet.Nodes {
		e, err := src.LatestEvidence(ctx, n.Name)
		if r, ok := enclave.AsRefusal(err); ok && r.Code == codeNotThere {
			out = append(out, NodeStanding{Node: n.Name, From: enclave.StatusNone, To: enclave.StatusNone, Reasons: []string{"it has sent no evidence yet"}})
			continue
		}
		if err != nil {
			return out, asked(err)
		}
		res, err := j.verify(e.Evidence.Report, e.Evidence.Certificates)
		if err != nil {
			return out, err
		}
		out = append(out, standing(n.Name, res, a, b))
	}
	return out, nil
}

func standingsOfFiles(dir string, j judge, a, b appraise.Policy) ([]NodeStanding, error) {
	out := []NodeStanding{}
	names, err := filepath.Glob(filepath.Join(dir, "*.bin"))
	if err != nil || len(names) == 0 {
		return out, &ExitError{ExitMissing, fmt.Errorf("policy diff: no *.bin in %s", dir)}
	}
	for _, n := range names {
		base := strings.TrimSuffix(strings.TrimSuffix(n, ".bin"), ".report")
		cert := ""
		for _, end := range []string{".cert.der", ".der", ".pem", ".certs"} {
			if _, err := os.Stat(base + end); err == nil {
				cert = base + end
				break
			}
		}
		res, err := j.file(n, cert)
		if err != nil {
			return out, err
		}
		out = append(out, standing(filepath.Base(base), res, a, b))
	}
	return out, nil
}

func standing(node string, res snp.Result, a, b appraise.Policy) NodeStanding {
	n := NodeStanding{Node: node, From: enclave.StatusNone, To: enclave.StatusNone, Simulated: res.Simulated}
	if err := invalid("evidence", res); err != nil {
		n.Reasons, n.unknown = []string{err.Error()}, true
		return n
	}
	after := appraise.Standing(b, node, res.SNPReport)
	n.From, n.To = appraise.Standing(a, node, res.SNPReport).Status, after.Status
	n.Reasons = failures(after)
	return n
}

// PolicyDiffScreen is the answer as text.
func PolicyDiffScreen(d PolicyDiff) string {
	var b strings.Builder
	fmt.Fprintf(&b, "from %s, sha256 %s\nto   %s, sha256 %s\n", printable(d.From.File), d.From.Digest, printable(d.To.File), d.To.Digest)
	switch {
	case d.From.Digest == d.To.Digest:
		b.WriteString("the same file\n")
	case len(d.Changes) == 0:
		b.WriteString("no change of meaning; the digest is another one\n")
	}
	w := table(&b)
	for _, c := range d.Changes {
		row(w, strings.ToUpper(string(c.Direction)), c.Key, c.From+" -> "+c.To)
	}
	_ = w.Flush() // a strings.Builder never fails
	for _, n := range d.Nodes {
		word := "stays out"
		switch {
		case n.falls():
			word = "FALLS BELOW"
		case n.From == enclave.StatusNone:
			word = "not known"
		case n.To == enclave.StatusAffirming && n.From != enclave.StatusAffirming:
			word = "is let in"
		case n.To == enclave.StatusAffirming:
			word = "stays in"
		}
		if n.Simulated && n.From != enclave.StatusNone {
			word += " (SIMULATED)"
		}
		fmt.Fprintf(&b, "node %s %s\n", printable(n.Node), word)
		indented(&b, "-", n.Reasons)
	}
	return clean(b.String())
}
