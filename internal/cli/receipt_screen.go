package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt/check"
)

// simulatedFirst is the first line of everything about a simulated receipt.
const simulatedFirst = "SIMULATED: proves nothing about hardware"

// receiptJSON is read by others: names don't change.
type receiptJSON struct {
	Good      bool            `json:"good"`
	Simulated bool            `json:"simulated"`
	Weak      bool            `json:"weak"`
	Verdict   enclave.Verdict `json:"verdict"`
	Cluster   string          `json:"cluster"`
	Job       uint32          `json:"job"`
	Restart   uint32          `json:"restart"`
	Sequence  uint64          `json:"sequence"`
	Digest    enclave.Digest  `json:"digest"`
	Previous  enclave.Digest  `json:"previous"`
	Key       receiptKeyJSON  `json:"key"`
	Lines     []check.Line    `json:"lines"`
	NotShown  []string        `json:"not_shown"`
}

type receiptKeyJSON struct {
	Fingerprint string `json:"fingerprint"`
	Pinned      bool   `json:"pinned"`
}

func receiptDocument(r check.Report) receiptJSON {
	p := r.Said.Predicate
	return receiptJSON{
		Good: r.Good(), Simulated: r.Simulated(), Weak: p.Weak, Verdict: p.Verdict, Cluster: p.Job.Cluster, Job: p.Job.Job,
		Restart: p.Job.Restart, Sequence: p.Chain.Sequence, Digest: r.Digest, Previous: p.Chain.Previous,
		Key: receiptKeyJSON{keyName(r), r.Pinned}, Lines: r.Lines, NotShown: notShown(p),
	}
}

func keyName(r check.Report) string {
	if r.Key == nil {
		return ""
	}
	return "sha256:" + receipt.KeyID(r.Key).String()
}

// notShown is what no receipt can say, and what this one says that it does not.
func notShown(p receipt.Predicate) []string {
	return append([]string{"what the job computed", "that no other job ran", "side channels, and what happened in the node after it was booted"}, p.NotCovered...)
}

// ReceiptScreen is the outcome of a check as text, in printable ASCII: what a receipt says was
// written by others.
func ReceiptScreen(r check.Report) string {
	var b strings.Builder
	if r.Opened && r.Simulated() {
		fmt.Fprintf(&b, "%s\n", simulatedFirst)
	}
	if !r.Opened {
		fmt.Fprintf(&b, "NOT A RECEIPT\n\n")
		receiptLines(&b, r.Lines)
		return clean(b.String())
	}
	p := r.Said.Predicate
	weak := ""
	if p.Weak {
		weak = ", WEAK"
	}
	fmt.Fprintf(&b, "Receipt %d of cluster %s: job %d, start %d, verdict %s%s, %d nodes\n\n", p.Chain.Sequence, printable(p.Job.Cluster),
		p.Job.Job, p.Job.Restart, strings.ToUpper(printable(string(p.Verdict))), weak, len(p.Nodes))
	pinned := "unpinned: anybody could have made this key; give --key"
	if r.Pinned {
		pinned = "pinned by you"
	}
	fields(&b, [][2]string{{"File", "sha256:" + r.Digest.String()}, {"Signed by", keyName(r) + " (" + pinned + ")"}})
	receiptLines(&b, r.Lines)
	fmt.Fprintf(&b, "\n%s\n\n  Not shown by any receipt, or not by this one:\n", outcome(r))
	for _, n := range notShown(p) {
		fmt.Fprintf(&b, "    - %s\n", printable(n))
	}
	return clean(b.String())
}

func outcome(r check.Report) string {
	switch {
	case !r.Good():
		return fmt.Sprintf("RESULT: BAD: %d of %d lines are bad", r.Faults(), len(r.Lines))
	case r.Simulated():
		return "RESULT: simulated; every check is good, and nothing is proved about hardware"
	case !r.Pinned:
		return "RESULT: good; whose signature it is has to be found out: the key is unpinned"
	}
	return "RESULT: good"
}

// receiptLines prints the lines under the level, and then under the evidence, that they belong to.
func receiptLines(out io.Writer, lines []check.Line) {
	titles := map[int]string{1: "Level 1: what the centre signed", 2: "Level 2: what can be derived again"}
	level, group := 0, ""
	for _, l := range lines {
		if l.Level != level {
			level, group = l.Level, ""
			_, _ = fmt.Fprintf(out, "\n%s\n", titles[level]) // a strings.Builder never fails
		}
		if g := groupOf(l); g != group {
			if group = g; g != "" {
				_, _ = fmt.Fprintf(out, "  %s\n", printable(g)) // as above
			}
		}
		_, _ = fmt.Fprintf(out, "    %-4s  %-14s  %s  [%s]\n", l.Result, printable(l.Name), printable(l.Reason), printable(l.Vouches)) // as above
	}
}

func groupOf(l check.Line) string {
	switch {
	case l.Node != "" && l.Purpose != "":
		return fmt.Sprintf("%s, evidence (%s, epoch %d)", l.Node, l.Purpose, l.Epoch)
	case l.Node != "":
		return l.Node
	case l.Epoch != 0:
		return fmt.Sprintf("roster of epoch %d", l.Epoch)
	case l.Level == 2:
		return "the whole"
	}
	return ""
}
